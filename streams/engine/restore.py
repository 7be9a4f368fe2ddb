"""Restore: from a partition's store and changelogs to a task that stands exactly at the group's committed offset.

The store is as of its last flush; the checkpoint in it says which commit cycle that was, and whose state it is. The
journal and the table topics bring it forward, always to their end: a cycle that only released idle events moves them
and not the offset. What the checkpoint and the journal say of their identity is compared with what is declared and
there now (`state.identity`): a store of another life or layout is moved aside and rebuilt from Kafka; a journal or
table of another life is refused.
"""

from dataclasses import replace
from typing import Final

from streams.engine.config import TaskConfig
from streams.engine.log import Changelog
from streams.engine.restore_adoption import adopting_task
from streams.engine.restore_context import OnRows, RestoreContext
from streams.engine.restore_identity import IdentityCheck
from streams.engine.restore_journal import JournalReplay
from streams.engine.restore_offset import StartOffset
from streams.engine.restore_tables import replay_tables
from streams.engine.task import PartitionTask
from streams.growth.layout import FIRST_EPOCH
from streams.growth.layouts import Layouts
from streams.limits import STORE_AGE_MS_MAX
from streams.operators.base import RestoreBudget
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Places
from streams.state.journal import Position
from streams.state.names import CHECKPOINT
from streams.state.store import Store, StoreCorrupted, StoreOutdated, WriteBatch, prefix_end

HELD_BYTES_MAX: Final = 64 << 20
_ALL_KEYS: Final = b"", prefix_end(b"")


def restore_partition(
    config: TaskConfig,
    partition: int,
    store: Store,
    changelog: Changelog,
    *,
    ids_in_memory_max: int,
    held_bytes_max: int = HELD_BYTES_MAX,
    places: Places | None = None,
    accepted: frozenset[str] = frozenset(),
    on_rows: OnRows = lambda _records, _rows: None,
    layouts: Layouts | None = None,
    age_ms: int = 0,
) -> PartitionTask:
    """Task for `partition`, its state equal to what the group has committed.

    Each operator keeps up to `ids_in_memory_max` rows and about `held_bytes_max` bytes of the journal in memory
    meanwhile; the rest is moved to the store. `places` says where the flow's topics are now. For a rebuild, which
    writes their rows, state goes on although topics in `accepted` were created again. `on_rows` is told how many
    changelog records were read, and how many rows of state they held.

    `layouts` has the flow's growths. A partition that a growth has brought, and that has no state of its own yet, takes
    over its parent's: its task has an `adoption`, which is to be committed before anything is consumed.

    `age_ms`: so long ago the store had all that was committed. Beyond `STORE_AGE_MS_MAX` it is used only if it still
    has. A store without a checkpoint has at most what an unfinished restore has left, and is emptied.

    Raises:
        NotCutYet: the parent has not given the state away yet; try again later.
        RestoreFailed: the state and what is there now cannot be reconciled; the message says why and what to do.
        StoreCorrupted: the store holds something else than our state; quarantine it and restore from nothing.
        StoreOutdated: the store is of another life or layout, or too old; move it aside and restore from nothing.

    """
    context = RestoreContext(config, partition, changelog, places or Places(), on_rows, layouts)
    identities = IdentityCheck(context, accepted)
    offsets = [StartOffset(context, number) for number in range(len(config.inputs))]
    committed = [one.committed() for one in offsets]
    budget = RestoreBudget(ids_in_memory_max, held_bytes_max)
    checkpoint = read_checkpoint(store)
    if checkpoint is None:
        empty(store)
    epoch = offsets[0].epoch(committed[0])
    if layouts is not None and layouts.is_child(partition) and epoch < layouts.known[-1].epoch:
        return adopting_task(context, layouts, store, budget, has_store=checkpoint is not None)
    declared = context.declared(epoch if checkpoint is None else checkpoint.identity.epoch)
    low, high = changelog.bounds(config.pipeline.journal, partition)
    if checkpoint is not None:
        identities.require_same_life(checkpoint, declared, committed[0], high)
    task = PartitionTask(config, partition, store, checkpoint)
    if layouts is not None:
        layouts.enter(task.home, epoch)
    start = max(low, checkpoint.replay_from if checkpoint else low)
    reached = JournalReplay(context, task, budget).run(checkpoint, start, high)
    if checkpoint is not None and reached.cycle > checkpoint.cycle:
        require_recent(age_ms)
    if reached.cycle:
        reached = identities.under_declared(task, reached, context.declared(reached.identity.epoch))
        positions = reached.positions(config.further_names)
        found = [
            one.after(its, position, reached.cycle)
            for one, its, position in zip(offsets, committed, positions, strict=True)
        ]
    else:
        declared = context.declared(FIRST_EPOCH if layouts is None else layouts.before.epoch)
        reached = replace(reached, identity=declared)
        positions = reached.positions(config.further_names)
        found = [one.first(its) for one, its in zip(offsets, committed, strict=True)]
        identities.require_no_rows()
        identities.require_same_division(declared)
    tables_next = replay_tables(context, task, reached)
    starts = [_at(position, offset_next) for position, offset_next in zip(positions, found, strict=True)]
    if starts != positions:
        reached = reached.at(starts, config.further_names)
    if (of_source := committed[0]) is not None:
        task.ready, task.cleared = of_source.ready or 0, of_source.cleared or 0
    task.stand_at(replace(reached, tables_next=tables_next))
    if reached.cycle:
        store.write(WriteBatch(puts=[(CHECKPOINT, task.checkpoint.pack())]))
    return task


def _at(position: Position, offset_next: int) -> Position:
    """The position at an offset; whose epoch is not known where that is another one than it had."""
    return position if position.offset_next == offset_next else Position(offset_next, position.watermark)


def empty(store: Store) -> None:
    """Delete all rows of a store without a checkpoint.

    They are of a restore that was not finished. A row of a key that was deleted since then would stay: compaction takes
    the deletion away, too.
    """
    if store.range(*_ALL_KEYS, 1):
        store.write(WriteBatch(delete_ranges=[_ALL_KEYS]))


def require_recent(age_ms: int) -> None:
    """Require that a store which has missed cycles was complete not long ago.

    Raises:
        StoreOutdated: deletions that it has missed may be gone.

    """
    if age_ms > STORE_AGE_MS_MAX:
        raise StoreOutdated(
            f"the local state had all that was committed {age_ms / 3_600_000:,.0f} h ago, and has missed cycles since: "
            "rows that were deleted meanwhile may be gone from the compacted topics without a trace "
            f"(delete.retention.ms), so that a store is brought forward for {STORE_AGE_MS_MAX // 3_600_000} h only"
        )


def read_checkpoint(store: Store) -> Checkpoint | None:
    """The checkpoint of a store; None when nothing was ever committed into it.

    Raises:
        StoreCorrupted: it is none of ours, or of an earlier format.

    """
    row = store.get_many([CHECKPOINT])[0]
    if row is None:
        return None
    try:
        return Checkpoint.unpack(row)
    except ValueError as error:
        raise StoreCorrupted(f"unreadable checkpoint: {error}") from None
