"""The journal, read to its end: each record brings the operators one cycle forward."""

from dataclasses import replace
from typing import Final

from streams.engine.journal_chain import JournalChain, RestoreFailed
from streams.engine.log import LogRow
from streams.engine.partition import PartitionState
from streams.engine.restore_context import RestoreContext
from streams.engine.restore_identity import JournalIdentities
from streams.growth.state import GrowthState
from streams.operators.base import Replayed, RestoreBudget
from streams.state import journal
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Identity
from streams.state.journal import JournalCorrupted, JournalEntry
from streams.state.store import StoreCorrupted, WriteBatch

_PUTS_MAX: Final = 50_000


class JournalReplay:
    """The replay of one partition's journal."""

    def __init__(self, context: RestoreContext, state: PartitionState, budget: RestoreBudget) -> None:
        self._context, self._state, self._budget = context, state, budget
        self.cut: JournalEntry | None = None
        """The first record of the layout before which `run` was to end; None: there was none."""

    def run(
        self, checkpoint: Checkpoint | None, start: int, end: int, *, before_epoch: int | None = None
    ) -> Checkpoint:
        """Bring the operators forward; returns the checkpoint of the last cycle.

        `before_epoch`: end before the first record of the layout of this epoch, which is the cut of a growth.
        """
        topic, state = self._context.pipeline.journal, self._state
        reached = checkpoint or state.checkpoint
        known_cycle = reached.cycle
        batch = WriteBatch()
        state.journal_index.restore(state.store, start, batch)
        if checkpoint is None or checkpoint.journal_next < start:
            for operator in state.operators.values():
                operator.begin_again(batch)
        state.store.write(batch)
        batch = WriteBatch()
        chain = JournalChain.of(f"{topic}-{self._context.partition}", checkpoint, start)
        identities = JournalIdentities(self._context)
        for rows in self._context.changelog.read(topic, self._context.partition, start, end):
            state_rows = 0
            for row in rows:
                entry = self._entry(row)
                if not chain.goes_on(row.offset, entry):
                    continue
                identity = identities.of(entry, row.offset) if entry.cycle > known_cycle else None
                if before_epoch is not None and identity is not None and identity.epoch >= before_epoch:
                    self.cut = entry
                    break
                reached, found = self._taken(row, entry, reached, identity, is_new=entry.cycle > known_cycle)
                state_rows += found
                state.journal_index.note(row.offset, 1, entry.event_time_max, batch)
            self._context.on_rows(len(rows), state_rows)
            if len(batch.puts) > _PUTS_MAX:
                state.store.write(batch)
                batch = WriteBatch()
            self._keep_to_budget(reached)
            if self.cut is not None:
                break
        if self.cut is None:
            chain.ends()
        state.store.write(batch)
        try:
            for name, operator in state.operators.items():
                operator.journal_restored(self._watermark_of(name, reached), state.checkpoint.marks)
        except JournalCorrupted as error:
            raise StoreCorrupted(f"the local state cannot be read: {error}") from None
        return replace(reached, journal_next=end)

    def _taken(
        self, row: LogRow, entry: JournalEntry, reached: Checkpoint, identity: Identity | None, *, is_new: bool
    ) -> tuple[Checkpoint, int]:
        """Have the operators take a record; the checkpoint after it, and how many rows of state it held."""
        try:
            rows = self._replay(entry, reached, is_new=is_new)
            return self._advanced(reached, entry, identity) if is_new else reached, rows
        except JournalCorrupted as error:
            raise self._unreadable(row, error) from None

    def _replay(self, entry: JournalEntry, reached: Checkpoint, *, is_new: bool) -> int:
        return sum(
            operator.replay(Replayed(entry.sections, is_new, self._watermark_of(name, reached)), self._budget)
            for name, operator in self._state.operators.items()
        )

    def _keep_to_budget(self, reached: Checkpoint) -> None:
        operators = self._state.operators.items()
        self._state.journal_index.skip(
            min(one.bound_replay(self._watermark_of(name, reached), self._budget) for name, one in operators)
        )

    def _watermark_of(self, operator: str, reached: Checkpoint) -> int:
        config = self._context.config
        return config.watermark_of(operator, reached.positions(config.further_names))

    def _advanced(self, reached: Checkpoint, entry: JournalEntry, identity: Identity | None) -> Checkpoint:
        config = self._context.config
        if entry.positions:
            before = reached.positions(config.further_names)
            named = zip(config.position_names, before, strict=True)
            reached = reached.at([entry.positions.get(name, at) for name, at in named], config.further_names)
        if identity is not None:
            reached = replace(reached, identity=identity)
        if (growth := entry.sections.get(journal.GROWTH)) is not None:
            with journal.reading():
                reached = replace(reached, growth=GrowthState.unpack(bytes(growth)))
        return replace(reached, cycle=entry.cycle)

    def _entry(self, row: LogRow) -> JournalEntry:
        try:
            return journal.unpack(row.value or b"")
        except JournalCorrupted as error:
            raise self._unreadable(row, error) from None

    def _unreadable(self, row: LogRow, error: JournalCorrupted) -> RestoreFailed:
        journal_partition = f"{self._context.pipeline.journal}-{self._context.partition}"
        return RestoreFailed(
            f"the record at offset {row.offset} of {journal_partition} is {error}: written by another version, or by "
            "something else. Run the version that has written it, or begin again with "
            f"{self._context.rebuild('source')}"
        )
