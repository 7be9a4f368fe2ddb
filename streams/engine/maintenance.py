"""What is done to a partition between cycles, when nothing is open or in flight.

State is moved to the store or forgotten, the journal is cut, the store is closed.
"""

from dataclasses import replace

from streams.batch.columns import TIME_MIN
from streams.engine.partition import PartitionState
from streams.operators.base import ALL, Spill
from streams.state.names import CHECKPOINT
from streams.state.store import WriteBatch


class TaskMaintenance:
    """Maintenance of one partition."""

    def __init__(self, state: PartitionState) -> None:
        self._state = state

    def spill(self, *, below: int, rows_keep: int = ALL, bytes_keep: int = ALL, keep_keys: bool) -> None:
        """Move state to the store, as `operators.base.Spill` says; without `keep_keys` all keys are dropped.

        Raises:
            RuntimeError: a cycle is open or in flight; what would be moved is not committed.

        """
        self._require_settled()
        state = self._state
        batch = WriteBatch()
        durable = ALL
        for name, operator in reversed(state.operators.items()):
            # An earlier operator gains nothing by moving more than what a later one still needs the journal for.
            goal = Spill(min(below, durable), rows_keep, bytes_keep)
            durable = min(durable, operator.spill(goal, state.watermark_of(name), batch))
        self._write_moved(batch, durable)
        if not keep_keys:
            state.forget_keys()  # now: rows of keys that are looked up again are read from the store

    def expire(self) -> None:
        """Discard what is too old to matter, in memory and in the store, with its part of the journal.

        Raises:
            RuntimeError: a cycle is open or in flight.

        """
        self._require_settled()
        batch = WriteBatch()
        state = self._state
        durable = min(one.expire(state.watermark_of(name), batch) for name, one in state.operators.items())
        if durable > TIME_MIN or batch.puts or batch.delete_ranges:
            self._write_moved(batch, durable)

    def truncate_journal_before(self) -> int | None:
        """Journal offset before which nothing is needed any more; None when there is nothing to truncate.

        What is older than `TaskConfig.journal_ms` is not needed, but for what operators still want: they write it again
        with the next cycle; its part stays until that is committed.
        """
        state = self._state
        if state.watermark == TIME_MIN:
            return None
        keep_from = state.journal_index.oldest_needed(state.watermark - state.config.journal_ms)
        if keep_from is None:
            return None
        needed = [at for one in state.operators.values() if (at := one.journal_needed(keep_from)) is not None]
        batch = WriteBatch()
        cut = state.journal_index.cut(min([keep_from, *needed]), batch)
        if cut is not None:
            state.store.write(batch)
        return cut

    def park(self) -> None:
        """Move everything that is only in memory to the store, and close it: a restart replays nothing.

        A partition that is not settled may hold uncommitted state: its store is closed unchanged.
        """
        if self._state.is_settled:
            self.spill(below=ALL, rows_keep=0, keep_keys=True)
        self._state.store.close()

    def _require_settled(self) -> None:
        if not self._state.is_settled:
            raise RuntimeError(f"partition {self._state.partition}: state can be moved between cycles only")

    def _write_moved(self, batch: WriteBatch, durable_below: int) -> None:
        """Write what was moved, with a checkpoint that needs no journal below an event time any more."""
        state = self._state
        state.journal_index.skip(durable_below)
        replay_from = state.journal_index.replay_from(state.checkpoint.journal_next)
        state.checkpoint = replace(state.checkpoint, replay_from=replay_from)
        if state.checkpoint.cycle:
            batch.puts.append((CHECKPOINT, state.checkpoint.pack()))
        state.store.write(batch)
