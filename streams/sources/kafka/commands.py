"""Commands of other threads to the thread that polls a consumer: carried out there, in order for each partition."""

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
    """A command of another thread."""

    kind: Kind
    partitions: frozenset[int]
    run: Callable[[], None]
    failures: int = 0
    not_before_s: float = 0.0

    def voids(self, earlier: "Command") -> bool:
        """Whether `earlier`, if it still waits, has become void."""
        if self.kind == "pause":
            return earlier.kind == "pause"
        return earlier.kind == "start" and earlier.partitions <= self.partitions


class Commands:
    """`put` from any thread, everything else from the one that polls."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._pending: list[Command] = []
        """Commands that the client has refused so far; they are tried again."""

    def put(self, kind: Kind, partitions: Iterable[int], run: Callable[[], None]) -> None:
        """Queue `run` for the next poll; it concerns `partitions`."""
        self._asked.put(Command(kind, frozenset(partitions), run))

    def waiting(self) -> list[frozenset[int]]:
        """Partitions of each command that is still to be carried out, in order."""
        self._gather()
        return [command.partitions for command in self._pending]

    def void_starts(self, partitions: Iterable[int]) -> None:
        """Drop the queued starts of these partitions."""
        gone = frozenset(partitions)
        self._gather()
        self._pending = [one for one in self._pending if one.kind != "start" or one.partitions.isdisjoint(gone)]

    def obey(self) -> None:
        """Carry out the queued commands, in order for each partition.

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
        """Take the commands of other threads; each drops those that it replaces."""
        while not self._asked.empty():
            command = self._asked.get()
            self._pending = [earlier for earlier in self._pending if not command.voids(earlier)]
            self._pending.append(command)
