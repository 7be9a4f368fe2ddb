"""Which partitions this worker may commit for, and in whose name (docs/adr/0015).

Each assignment of a partition begins a *term*, with a number that was never used before. What is computed from a
partition's records belongs to the term in which its state was restored, and stays with it. A commit claims the terms
that it contains: it gets a group membership only while all of them still run.

Why that is enough: the group gives a partition to another worker only after this one's callback has returned, and the
callback ends the term first. So a membership that was noted while the term ran was valid before the partition could
move, and the broker refuses it afterwards (KIP-447). A membership that was noted later never reaches that commit.
"""

import threading
from collections.abc import Iterable
from typing import NamedTuple

from streams.sinks.base import CycleAborted


class Term(NamedTuple):
    """One assignment of a partition to this worker."""

    partition: int
    number: int
    """Unique within the process: a partition that comes back gets another number."""


class Terms:
    """The running terms of one consumer and its membership in the group. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, Term] = {}
        self._number = 0
        self._membership: object | None = None

    def begin(self, partitions: Iterable[int]) -> dict[int, Term]:
        """Begin a term for each of `partitions`, which were just assigned; a term that was running ends."""
        with self._lock:
            begun: dict[int, Term] = {}
            for partition in partitions:
                self._number += 1
                begun[partition] = self._running[partition] = Term(partition, self._number)
            return begun

    def end(self, partitions: Iterable[int]) -> None:
        """End the terms of `partitions`. Call it before the group is told, or can find out, that they are free."""
        with self._lock:
            for partition in partitions:
                self._running.pop(partition, None)

    def note(self, membership: object | None) -> None:
        """Record the consumer's membership as of now; None: it is no member. Call it from the thread that polls."""
        with self._lock:
            self._membership = membership

    def running(self) -> dict[int, Term]:
        """The running term of each partition."""
        with self._lock:
            return dict(self._running)

    def runs(self, term: Term) -> bool:
        """Whether `term` has not ended."""
        with self._lock:
            return self._running.get(term.partition) == term

    def claim(self, terms: Iterable[Term]) -> object:
        """The membership to commit a cycle with these terms under; use exactly this one for the commit.

        Raises:
            CycleAborted: a term has ended, or the consumer is no member. Nothing of the cycle may be committed.

        """
        with self._lock:
            ended = sorted({term.partition for term in terms if self._running.get(term.partition) != term})
            if ended:
                raise CycleAborted(
                    "partitions_lost", f"the cycle contains partitions that were given away since: {ended}"
                )
            if self._membership is None:
                raise CycleAborted("left_group", "not a member of the group")
            return self._membership
