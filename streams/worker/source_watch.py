"""Notices a source topic that was deleted and created again while a worker consumes it.

Offsets in the new topic begin again, so that a consumer that goes on at its old position skips records. The client does
not tell: it may even go on reading where the new log happens to be long enough.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

import structlog

from streams.batch.lanes import input_of, partition_of_lane
from streams.errors import StreamsError
from streams.kafka.places import KafkaPlaces
from streams.sinks.base import CycleAborted

log = structlog.get_logger(__name__)

_INTERVAL_S: Final = 5.0


class SourceWatch:
    """Compares the id of a topic with those that offsets are known in. One thread calls `look`, often."""

    def __init__(self, places: KafkaPlaces, source: str, known: Callable[[], frozenset[str]]) -> None:
        """`known`: ids of the source topic that the offsets of tasks belong to."""
        self._places, self._source, self._known = places, source, known
        self._thread = ThreadPoolExecutor(1, "source-watch")
        self._asked: Future[str | None] | None = None
        self._asked_of: frozenset[str] = frozenset()
        self._due_s = 0.0
        self._is_closed = False

    def look(self, now_s: float, *, is_suspect: bool) -> str | None:
        """Why the offsets in the source are void, as a sentence; None while they are valid.

        Asks the broker in the background every few seconds, and at once when the source `is_suspect`; no more once it
        is closed, since the last cycle of a worker that stops may still come by.
        """
        if is_suspect:
            self._due_s = now_s
        if self._asked is None:
            if not self._is_closed and now_s >= self._due_s and (known := self._known()):
                self._due_s = now_s + _INTERVAL_S
                self._asked_of = known
                self._asked = self._thread.submit(self._places.id_of, self._source)
            return None
        if not self._asked.done():
            return None
        asked, self._asked = self._asked, None
        try:
            found = asked.result()
        except StreamsError as error:
            log.debug("the source topic was not described", topic=self._source, error=str(error))
            return None
        if not self._asked_of <= self._known() or self._asked_of == {found}:
            return None  # restored meanwhile, or as it was
        if found is None:
            return f"the source topic {self._source} was deleted"
        return f"the source topic {self._source} was deleted and created again"

    def close(self) -> None:
        """Ask the broker no more."""
        self._is_closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)


class SuspectSource(Protocol):
    """What the consumer noticed about the source; see `streams.kafka.intake.Intake`."""

    def take_suspicion(self) -> bool:
        """Whether the source may have been recreated; returned once."""

    def take_beyond_end(self) -> frozenset[int]:
        """Partitions that were found to end before the next offset; returned once."""


class WatchedSource:
    """Implements `ports.SourceCheck` with the broker's topic ids and the consumer's findings."""

    def __init__(self, topics: Sequence[str], watches: Sequence[SourceWatch], consumer: SuspectSource) -> None:
        """`topics` of the flow's inputs, in their order; each has a watch of its own."""
        self._topics = tuple(topics)
        self._watches = tuple(watches)
        self._consumer = consumer

    def require_unchanged(self, now_s: float) -> None:
        """Return if the source is unchanged as far as is known.

        Raises:
            CycleAborted: it was recreated or truncated.

        """
        is_suspect = self._consumer.take_suspicion()
        looks = [watch.look(now_s, is_suspect=is_suspect) for watch in self._watches]
        if (gone := next(filter(None, looks), None)) is not None:
            raise CycleAborted("source_recreated", gone)
        if beyond := self._consumer.take_beyond_end():
            lanes = ", ".join(f"{self._topics[input_of(lane)]}-{partition_of_lane(lane)}" for lane in sorted(beyond))
            raise CycleAborted("source_truncated", f"truncated before the offset that is next: {lanes}")
