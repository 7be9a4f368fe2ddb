"""The commit cycle of one partition: what its end adds to the transaction, and what is written once that is committed.

`applied` alone may be called, in another thread, while the next batch is processed.
"""

from dataclasses import dataclass

from streams.batch.columns import TIME_MIN
from streams.engine.effects import TaskCommit
from streams.engine.partition import PartitionState, merged
from streams.limits import JOURNAL_RECORD_BYTES_MAX
from streams.operators.changes import Changes
from streams.state import journal
from streams.state.checkpoint import Checkpoint
from streams.state.journal import JournalEntry, Position
from streams.state.names import CHECKPOINT
from streams.state.store import WriteBatch


@dataclass(frozen=True, slots=True)
class Written:
    """Where the records of a committed cycle came to lie."""

    journal_first: int
    journal_next: int
    tables_next: dict[str, int]
    """Position after the last row, by topic; only topics that got rows."""


class TaskCycle:
    """Of one partition."""

    def __init__(self, state: PartitionState) -> None:
        self._state = state

    def close(self) -> TaskCommit | None:
        """End the open cycle: everything since the last one, or None when nothing happened."""
        state = self._state
        if state.offset_next == state.offset_closed and not state.has_changed:
            return None
        cycle, changed = state.cycle_closed + 1, state.keys.take_changed()
        changes = [operator.changes(changed) for operator in state.operators.values()]
        newest = max(
            (state.watermark if one.is_of_cycle_end else one.event_time_max for one in changes), default=TIME_MIN
        )
        commit = TaskCommit(
            partition=state.partition,
            cycle=cycle,
            offset_next=state.offset_next,
            watermark=state.watermark,
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
            leader_epoch=state.leader_epoch,
        )
        state.cycle_closed, state.offset_closed, state.has_output = cycle, state.offset_next, False
        return commit

    def _journal(self, cycle: int, event_time_max: int, changes: list[Changes]) -> list[bytes]:
        state = self._state
        position = Position(state.offset_next, state.watermark, state.leader_epoch)
        entry = JournalEntry(
            cycle=cycle,
            event_time_max=event_time_max,
            positions={state.config.pipeline.source: position},
            identity=state.identity.packed,
        )
        sections = merged([one.sections for one in changes])
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
            leader_epoch=commit.leader_epoch,
            identity=state.identity,
        )
        batch.puts.append((CHECKPOINT, state.checkpoint.pack()))
        state.store.write(batch)
