"""Handles rebalances: partitions assigned, revoked, lost. The consumer calls it from within a poll."""

from collections.abc import Callable, Iterable
from functools import partial

from streams.errors import FencedError
from streams.sinks.base import CycleAborted
from streams.worker.cycle import CommitCycle
from streams.worker.ownership import Ownership
from streams.worker.ports import BetweenSteps
from streams.worker.remarks import SourceRemarks
from streams.worker.terms import Terms


class RebalanceListener:
    """Listener of one consumer (`streams.kafka.intake.Ownership`).

    Terms begin and end at once, in the thread that polls; releasing and restoring is done between steps, in order.
    """

    def __init__(
        self,
        terms: Terms,
        ownership: Ownership,
        cycle: CommitCycle,
        remarks: SourceRemarks,
        between_steps: BetweenSteps,
        *,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """`on_failure` is told of an error with which the worker cannot go on."""
        self._terms = terms
        self._ownership = ownership
        self._cycle = cycle
        self._remarks = remarks
        self._between_steps = between_steps
        self._on_failure = on_failure

    # --- in the thread that polls -----------------------------------------------------------------------------------

    def assigned(self, partitions: list[int]) -> None:
        """Have these partitions restored; partitions for which there is no state topic stay paused."""
        terms = self._terms.begin(self._remarks.assigned(partitions))
        self._between_steps.later(partial(self._ownership.take, terms))

    def revoked(self, partitions: list[int]) -> None:
        """Commit what was processed and release these; bounded in time, since the whole group waits for it."""
        self._remarks.gone(partitions)
        try:
            self._between_steps.bounded(partial(self.release, partitions), "release")
        finally:
            # Released or not: on return the group learns that they are free.
            self._terms.end(partitions)

    def lost(self, partitions: list[int]) -> None:
        """Drop everything that is not committed, and release these: others have them."""
        self._remarks.gone(partitions)
        self._terms.end(partitions)
        self._between_steps.bounded(partial(self._abandon, partitions), "abandon")

    def noted(self, membership: object | None) -> None:
        """Record the consumer's group membership as of now, for the next commit.

        Called with every poll: partitions that were refused are taken once a growth is known that brings them.
        """
        self._terms.note(membership)
        if admitted := self._remarks.admitted():
            self.assigned(admitted)

    # --- between steps ----------------------------------------------------------------------------------------------

    def release(self, partitions: Iterable[int]) -> None:
        """Commit the open cycle, or roll it back if that fails; release those of `partitions` that are owned."""
        owned = [partition for partition in partitions if partition in self._ownership.owned]
        if not owned:
            return
        try:
            self._cycle.end()
            self._cycle.wait_for_commit()
        except CycleAborted as error:
            self._cycle.roll_back(error)
        except FencedError as error:
            self._on_failure(error)
        self._ownership.release(owned)

    def _abandon(self, partitions: Iterable[int]) -> None:
        self._cycle.roll_back(CycleAborted("partitions_lost", "the group has given partitions to others"))
        self._ownership.release(partitions)
