"""The commit cycle of one partition: what it adds to the transaction, and what is written after the commit.

`applied` alone may be called, in another thread, while the next batch is processed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from streams.batch.columns import TIME_MIN
from streams.engine.adoption import Adoption
from streams.engine.changelog_rows import FORGOTTEN_HEADER
from streams.engine.effects import TaskCommit, Tombstones
from streams.engine.partition import PartitionState, merged
from streams.growth.layout import FIRST_EPOCH
from streams.growth.stages import Standing
from streams.limits import JOURNAL_RECORD_BYTES_MAX
from streams.operators.changes import Changes
from streams.state import journal
from streams.state.checkpoint import Checkpoint
from streams.state.journal import JournalEntry
from streams.state.names import CHECKPOINT
from streams.state.store import WriteBatch


@dataclass(frozen=True, slots=True)
class Written:
    """Offsets of the records of a committed cycle."""

    journal_first: int
    journal_next: int
    tables_next: dict[str, int]
    """Position after the last row, by topic; only topics that got rows."""


class TaskCycle:
    """Commit cycles of one partition."""

    def __init__(self, state: PartitionState) -> None:
        self._state = state

    def close(self) -> TaskCommit | None:
        """Close the open cycle: all effects since the last one, or None when there are none."""
        state = self._state
        if state.adoption is not None:
            return self._adopting(state.adoption)
        if state.offsets_next == state.offsets_closed and not state.has_changed and state.clearing is None:
            return None
        tombstones = self._tombstones()
        progress, state.progress = state.progress, {}
        if any(one.is_settled for one in progress.values()):
            state.growth = replace(state.growth, settled=state.epoch)
        cycle, changed = state.cycle_closed + 1, state.keys.take_changed()
        changes = [operator.changes(changed) for operator in state.operators.values()]
        end = max(position.watermark for position in state.positions)
        newest = max((end if one.is_of_cycle_end else one.event_time_max for one in changes), default=TIME_MIN)
        first, *others = state.positions
        commit = TaskCommit(
            partition=state.partition,
            cycle=cycle,
            offset_next=first.offset_next,
            watermark=first.watermark,
            event_time_max=newest,
            journal=self._journal(cycle, newest, changes),
            changelogs=[rows for one in changes for rows in one.changelogs],
            carried=[one.carried for one in changes if one.carried is not None],
            rows=[rows for one in changes for rows in one.rows],
            store=WriteBatch(
                [each for one in changes for each in one.store.delete_ranges],
                [each for one in changes for each in one.store.puts],
            ),
            marks=state.marks(),
            leader_epoch=first.leader_epoch,
            further=tuple(others),
            partitions=state.named_partitions,
            growth=state.growth,
            identity=state.identity,
            standing=_told(state.standing),
            tombstones=tombstones,
            progress=progress,
        )
        state.cycle_closed, state.offsets_closed, state.has_output = cycle, state.offsets_next, False
        state.growth_closed, state.standing_closed = state.growth, state.standing
        return commit

    def forgetting(self, keys: Sequence[bytes]) -> TaskCommit:
        """The next cycle, which makes every later restore forget `keys` (docs/adr/0090).

        Only when nothing is open or in flight, and no operator holds events of the keys. It is never applied: the
        task's memory and store still have the keys, so that the state must be restored.
        """
        state = self._state
        if state.adoption is not None or state.cycle_closed != state.checkpoint.cycle:
            raise RuntimeError(f"partition {state.partition}: keys are forgotten between cycles only")
        start = max(state.offset_next, state.first_offset)  # a position can be committed even if nothing was read yet
        state.positions[0] = first = replace(state.positions[0], offset_next=start)
        parts = [part for one in state.operators.values() for part in (one.marked_sections(), one.forgotten(keys))]
        return TaskCommit(
            partition=state.partition,
            cycle=state.checkpoint.cycle + 1,
            offset_next=start,
            watermark=first.watermark,
            event_time_max=TIME_MIN,
            journal=self._packed(state.checkpoint.cycle + 1, TIME_MIN, merged(parts)),
            changelogs=[],
            carried=[],
            rows=[],
            store=WriteBatch(),
            marks=state.marks(),
            leader_epoch=first.leader_epoch,
            further=tuple(state.positions[1:]),
            partitions=state.named_partitions,
            growth=state.growth,
            identity=state.identity,
            standing=_told(state.standing),
            tombstones=[
                Tombstones(topic, state.partition, keys, [(FORGOTTEN_HEADER, b"")])
                for topic in state.config.pipeline.table_topics
            ],
        )

    def _adopting(self, adoption: Adoption) -> TaskCommit:
        """The next cycle of an adoption; with the last one the state is the partition's own."""
        state = self._state
        portion = adoption.next()
        cycle, state.identity = state.cycle_closed + 1, portion.identity
        if adoption.is_closed:
            state.adoption = None
        rows = portion.rows
        commit = TaskCommit(
            partition=state.partition,
            cycle=cycle,
            offset_next=state.offset_next,
            watermark=state.positions[0].watermark,
            event_time_max=adoption.event_time_max,
            journal=self._packed(cycle, adoption.event_time_max, portion.sections),
            changelogs=[] if rows is None else [rows.rows],
            carried=[] if rows is None else list(rows.carried),
            rows=[],
            store=WriteBatch(),
            marks=state.marks(),
            leader_epoch=state.positions[0].leader_epoch,
            further=tuple(state.positions[1:]),
            partitions=state.named_partitions,
            growth=state.growth,
            identity=state.identity,
            standing=state.standing,
        )
        state.cycle_closed, state.standing_closed = cycle, state.standing
        return commit

    def _tombstones(self) -> list[Tombstones]:
        state = self._state
        if state.clearing is None:
            return []
        found = state.clearing.next()
        if state.clearing.is_done:
            state.cleared, state.clearing = state.clearing.epoch, None
        return found

    def _journal(self, cycle: int, event_time_max: int, changes: list[Changes]) -> list[bytes]:
        return self._packed(cycle, event_time_max, merged([one.sections for one in changes]))

    def _packed(self, cycle: int, event_time_max: int, sections: Mapping[str, Sequence[bytes]]) -> list[bytes]:
        state = self._state
        entry = JournalEntry(
            cycle=cycle,
            event_time_max=event_time_max,
            positions=dict(zip(state.config.position_names, state.positions, strict=True)),
            identity=state.identity.packed,
        )
        growth = state.growth.packed
        if growth:
            sections = merged([{journal.GROWTH: [growth]}, sections])
        return journal.pack(entry, sections, record_bytes_max=JOURNAL_RECORD_BYTES_MAX)

    def applied(self, commit: TaskCommit, written: Written) -> None:
        """Step 5: the cycle is committed in Kafka; write its rows and the checkpoint, atomically."""
        state = self._state
        batch = WriteBatch(list(commit.store.delete_ranges), list(commit.store.puts))
        for operator in state.operators.values():
            operator.applied(written.journal_first)
        state.journal_index.note(written.journal_first, len(commit.journal), commit.event_time_max, batch)
        state.checkpoint = Checkpoint(
            cycle=commit.cycle,
            offset_next=commit.offset_next,
            watermark=commit.watermark,
            journal_next=written.journal_next,
            replay_from=state.journal_index.replay_from(written.journal_next),
            tables_next={**state.checkpoint.tables_next, **written.tables_next},
            marks=commit.marks,
            growth=commit.growth,
            identity=commit.identity,
        ).at(commit.positions, state.config.further_names)
        batch.puts.append((CHECKPOINT, state.checkpoint.pack()))
        state.store.write(batch)


def _told(standing: Standing) -> Standing | None:
    """Growth state for the offset's metadata; empty if there was no growth."""
    return None if standing == Standing(FIRST_EPOCH) else standing
