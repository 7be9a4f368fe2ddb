"""The task of a partition that a growth has brought: it begins with the state that its parent had of its keys.

That is what the parent's journal says up to its cut, and the rows of its tables. It is read into the partition's own
store as a restore of the parent would read it, without what is of other keys. What is to be written of it to the
partition's own journal and tables is the task's `adoption`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from streams.engine.adoption import Adoption
from streams.engine.journal_chain import RestoreFailed
from streams.engine.journal_index import JournalIndex
from streams.engine.partition import merged
from streams.engine.restore_context import RestoreContext
from streams.engine.restore_identity import IdentityCheck
from streams.engine.restore_journal import JournalReplay
from streams.engine.restore_tables import replay_tables
from streams.engine.snapshot import changelog_parts
from streams.engine.task import PartitionTask
from streams.errors import StreamsError
from streams.growth.coupling import Coupling
from streams.growth.layouts import Layouts
from streams.growth.state import ForwardedReading, GrowthState
from streams.operators.base import ALL, RestoreBudget
from streams.state import journal
from streams.state.identity import Identity
from streams.state.journal import Position
from streams.state.names import JOURNAL_INDEX
from streams.state.store import Store, StoreOutdated, WriteBatch, prefix_end


class NotCutYet(StreamsError):
    """The parent has not cut its log yet: what it has of the partition's keys changes still."""

    retry_in_s: float | None = 1.0
    """Read by `streams.resilience.retry`: a cut comes soon, and keys wait for it."""


def adopting_task(
    context: RestoreContext, layouts: Layouts, store: Store, budget: RestoreBudget, *, has_store: bool
) -> PartitionTask:
    """Task with an adoption; `has_store`: the store has something of an earlier attempt.

    Raises:
        NotCutYet: try again later.
        RestoreFailed: the parent's journal cannot be read, or does not fit; the message says why.
        StoreOutdated: the store is to be emptied first.

    """
    if has_store:
        raise StoreOutdated("state was being taken over from another partition: that begins again")
    growth = layouts.growth
    if growth is None:
        raise ValueError("no growth has brought this partition")
    partition, parent = context.partition, growth.parent_of(context.partition)
    of_parent = replace(context, partition=parent)
    task = PartitionTask(context.config, partition, store, None)
    task.home.adopt(growth.after)
    low, high = context.changelog.bounds(context.pipeline.journal, parent)
    replay = JournalReplay(of_parent, task, budget)
    reached = replay.run(None, low, high, before_epoch=growth.epoch)
    if replay.cut is None:
        raise NotCutYet(f"{context.where}: {of_parent.where} has not given the state of its keys away yet")
    cut = [replay.cut.positions.get(name) for name in context.config.position_names]
    if None in cut:
        raise RestoreFailed(f"{of_parent.where}: the cut in {context.pipeline.journal} does not name every offset")
    before, after = context.declared(growth.before.epoch), context.declared(growth.epoch)
    if reached.cycle:
        reached = IdentityCheck(of_parent, ()).under_declared(task, reached, before)
        before, after = (_own(reached.identity, one) for one in (before, after))
        replay_tables(of_parent, task, reached)
    batch = WriteBatch(delete_ranges=[(JOURNAL_INDEX, prefix_end(JOURNAL_INDEX))])
    store.write(batch)
    task.journal_index = JournalIndex()
    watermarks = [one.watermark for one in cut if one is not None]
    start = replace(
        task.checkpoint,
        cycle=_last_cycle(context),
        journal_next=0,
        identity=before,
        growth=GrowthState(parent, tuple(_readings(context, watermarks))),
    )
    task.stand_at(start.at(list(_beginnings(context, watermarks)), context.config.further_names))
    # As on a clean stop: what is to be written is read from the store.
    task.maintenance.spill(below=ALL, rows_keep=0, keep_keys=False)
    task.adoption = _adoption(context, task, before, after)
    return task


def _beginnings(context: RestoreContext, watermarks: Sequence[int]) -> Iterator[Position]:
    """Where the partition begins in each input, at the watermark that its parent had there at its cut."""
    for one, watermark in zip(context.config.inputs, watermarks, strict=True):
        yield Position(context.changelog.bounds(one.topic, context.partition)[0], watermark)


def _readings(context: RestoreContext, watermarks: Sequence[int]) -> Iterator[ForwardedReading]:
    for topic, watermark in zip(context.pipeline.forwarded_topics, watermarks, strict=True):
        first = context.changelog.bounds(topic, context.partition)[0]
        yield ForwardedReading(first, Coupling.at_cut(watermark))


def _own(found: Identity, declared: Identity) -> Identity:
    """Identity of state of `found` that is written to journal and tables of its own, which begin with it."""
    return declared.taking_over(found, added_from=dict.fromkeys(declared.tables, 0))


def _adoption(context: RestoreContext, task: PartitionTask, before: Identity, after: Identity) -> Adoption:
    changes = [one.snapshot(task.watermark, task.marks()) for one in task.operators.values()]
    return Adoption(
        merged([one.sections for one in changes]),
        (
            part
            for topic in context.tables
            for part in changelog_parts(context.config, task.store, context.partition, topic)
        ),
        event_time_max=max([task.watermark, *(one.event_time_max for one in changes)]),
        before=before,
        after=after,
    )


def _last_cycle(context: RestoreContext) -> int:
    """Return the last cycle that an earlier attempt has written to the partition's journal; 0: there was none."""
    topic, partition = context.pipeline.journal, context.partition
    low, high = context.changelog.bounds(topic, partition)
    cycles = [0]
    for rows in context.changelog.read(topic, partition, low, high):
        cycles += [journal.unpack(row.value or b"").cycle for row in rows]
    return max(cycles)
