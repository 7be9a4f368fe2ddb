"""What other threads ask of the thread that polls a consumer: carried out there, of each partition in order."""

import queue
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

import structlog
from confluent_kafka import KafkaException

from streams.kafka.admin import described
from streams.resilience.retry import Backoff

log = structlog.get_logger(__name__)

Kind = Literal["start", "stop", "pause"]

_UNANSWERED: Final = Backoff(first_s=0.1, pause_s_max=2.0)


@dataclass(slots=True)
class Command:
    """What another thread asked for."""

    kind: Kind
    partitions: frozenset[int]
    run: Callable[[], None]
    failures: int = 0
    not_before_s: float = 0.0

    def voids(self, earlier: "Command") -> bool:
        """Whether `earlier`, if it still waits, is not to be carried out any more."""
        if self.kind == "pause":
            return earlier.kind == "pause"
        return earlier.kind == "start" and earlier.partitions <= self.partitions


class Commands:
    """`put` from any thread, everything else from the one that polls."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._pending: list[Command] = []
        """Not carried out yet: the client refused, and is asked again."""

    def put(self, kind: Kind, partitions: Iterable[int], run: Callable[[], None]) -> None:
        """Have `run` called before the next poll; it concerns `partitions`."""
        self._asked.put(Command(kind, frozenset(partitions), run))

    def waiting(self) -> list[frozenset[int]]:
        """Partitions of each command that is still to be carried out, in order."""
        self._gather()
        return [command.partitions for command in self._pending]

    def void_starts(self, partitions: Iterable[int]) -> None:
        """Starts of these partitions that were asked for so far are not carried out any more."""
        gone = frozenset(partitions)
        self._gather()
        self._pending = [one for one in self._pending if one.kind != "start" or one.partitions.isdisjoint(gone)]

    def obey(self) -> None:
        """Carry out what was asked for, of each partition in order.

        What the client refuses now is tried again later, and holds up only commands for the same partitions.
        """
        self._gather()
        now_s = time.monotonic()
        waiting: list[Command] = []
        held: set[int] = set()
        for command in self._pending:
            if command.not_before_s > now_s or not held.isdisjoint(command.partitions):
                waiting.append(command)
                held |= command.partitions
                continue
            try:
                command.run()
            except KafkaException as error:
                command.failures += 1
                command.not_before_s = now_s + _UNANSWERED.jittered_s(command.failures)
                waiting.append(command)
                held |= command.partitions
                log.warning(
                    "the consumer refuses a command; trying again", command=command.kind,
                    partitions=sorted(command.partitions), error=described(error), failures=command.failures,
                )  # fmt: skip
        self._pending = waiting

    def _gather(self) -> None:
        """Take the commands of other threads; each voids what it replaces."""
        while not self._asked.empty():
            command = self._asked.get()
            self._pending = [earlier for earlier in self._pending if not command.voids(earlier)]
            self._pending.append(command)
