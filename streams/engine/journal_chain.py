"""Checks while a journal is restored that no part of a cycle is missing."""

from streams.errors import StreamsError
from streams.state.checkpoint import Checkpoint
from streams.state.journal import JournalEntry


class RestoreFailed(StreamsError):
    """State cannot be restored to the committed offset; the partition must not be processed."""


class JournalChain:
    """The records of one journal partition in their order.

    A missing record (as when a broker has lost a transaction's end, docs/adr/0014) must be noticed: the store's
    checkpoint says that a cycle has happened, but not what its ids and held events were.
    """

    def __init__(
        self, where: str, *, first_offset: int | None, expected: tuple[int, int] | None, cycle_least: int
    ) -> None:
        """`expected`: cycle and part of the first record; None: any."""
        self._where, self._first_offset = where, first_offset
        self._next = expected
        self._cycle_least = cycle_least
        self._last: JournalEntry | None = None
        self._offset = -1

    @staticmethod
    def of(where: str, checkpoint: Checkpoint | None, start: int) -> "JournalChain":
        """The chain of what is read from `start` on, given what the store has.

        - A journal that was never truncated begins with cycle 1, wherever aborted cycles have moved it to.
        - Where the checkpoint names a record from which to replay, that record comes first.
        - Where the store has everything, the next cycle comes first.
        - A journal that was truncated beyond what the store has begins anywhere: the rest is not needed any more.
        """
        if checkpoint is None:
            return JournalChain(where, first_offset=None, expected=(1, 0) if start == 0 else None, cycle_least=0)
        if start < checkpoint.journal_next:
            is_named = start == checkpoint.replay_from
            return JournalChain(
                where,
                first_offset=start if is_named else None,
                expected=(1, 0) if start == 0 else None,
                cycle_least=checkpoint.cycle,
            )
        is_next = start == checkpoint.journal_next
        return JournalChain(
            where, first_offset=None, expected=(checkpoint.cycle + 1, 0) if is_next else None, cycle_least=0
        )

    def goes_on(self, offset: int, entry: JournalEntry) -> bool:
        """Whether the record is new: a client may return the same ones twice.

        Raises:
            RestoreFailed: something is missing before it.

        """
        if offset <= self._offset:
            return False
        if self._last is None and self._first_offset not in {None, offset}:
            raise self._gap(f"it begins with {_part(entry)} at offset {offset}")
        if self._next not in {None, (entry.cycle, entry.part)}:
            before = f"after {_part(self._last)}" if self._last else "first"
            raise self._gap(f"{before} comes {_part(entry)}")
        self._last, self._offset = entry, offset
        self._next = (entry.cycle, entry.part + 1) if entry.part + 1 < entry.parts else (entry.cycle + 1, 0)
        return True

    def ends(self) -> None:
        """Check that the journal does not end before the store's cycle.

        Raises:
            RestoreFailed: something is missing.

        """
        last = self._last
        if last is None and self._cycle_least:
            raise self._gap(f"cycle {self._cycle_least} is not there")
        if last is not None and (last.part + 1 < last.parts or last.cycle < self._cycle_least):
            raise self._gap(f"it ends with {_part(last)}")

    def _gap(self, what: str) -> RestoreFailed:
        return RestoreFailed(
            f"{self._where} is not complete: {what}. Reading it again; should it stay so, the broker has lost records "
            "that it had committed (docs/adr/0014)"
        )


def _part(entry: JournalEntry) -> str:
    return f"part {entry.part + 1} of {entry.parts} of cycle {entry.cycle}"
