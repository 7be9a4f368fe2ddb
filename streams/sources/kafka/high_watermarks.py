"""Asks for the high watermarks of topics without waiting: the intake thread must go on polling meanwhile."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    OffsetSpec,
)

from streams.batch.lanes import input_of, lane_of, partition_of_lane
from streams.kafka import clients
from streams.kafka.admin import NOT_KNOWN, RECONNECT_MS_MAX
from streams.kafka.broker_watch import BrokerWatch
from streams.limits import IDLE_GAP_MS_MAX
from streams.settings import Settings

REQUEST_TIMEOUT_S: Final = 2.0
"""Shorter than the gap after which idle time starts over: a leader that is away must not reset other partitions."""
_LATEST: Final = OffsetSpec.latest()
_RENEWED_MS_MIN: Final = 3_000

assert REQUEST_TIMEOUT_S * 1000 < IDLE_GAP_MS_MAX  # noqa: S101

Futures = Mapping[TopicPartition, "Future[Any]"]


@dataclass(frozen=True, slots=True)
class _Question:
    asked_ms: int
    answers: Futures

    @property
    def is_answered(self) -> bool:
        return all(future.done() for future in self.answers.values())


class HighWatermarks:
    """Questions and answers. One thread; the client connects with the first question.

    The client answers a question when the last leader has answered, or not in time. So a partition whose leader did not
    answer is asked for by itself from then on, until it does: it delays no other.

    A client that was asked before partitions were added does not know these for a minute or more. It is re-created.
    """

    def __init__(self, settings: Settings, *, topics: Sequence[str], client_id: str) -> None:
        """Of `topics`, whose partitions are called by their lanes (`streams.batch.lanes`)."""
        self._settings, self._topics = settings, tuple(topics)
        self._config: dict[str, Any] = {
            "client.id": client_id,
            "reconnect.backoff.max.ms": RECONNECT_MS_MAX,
            "topic.metadata.refresh.interval.ms": 30_000,
        }
        self._client: AdminClient | None = None
        self._made_ms = 0
        self._is_outdated = False
        """Whether the client does not know a partition that it was asked for."""
        self._brokers = BrokerWatch()
        self._open: list[_Question] = []
        self._alone: set[int] = set()
        self._list: Callable[[list[int]], Futures] = self._listed

    def ask(self, partitions: list[int], now_ms: int) -> None:
        """Ask for the ends of `partitions`, open transactions included; not for those of an unanswered question."""
        pending = {self._lane(at) for question in self._open for at in question.answers}
        wanted = [partition for partition in partitions if partition not in pending]
        together = [partition for partition in wanted if partition not in self._alone]
        alone = [[partition] for partition in wanted if partition in self._alone]
        if self._is_outdated and not self._open and now_ms - self._made_ms >= _RENEWED_MS_MIN:
            self._client, self._is_outdated = None, False
        if self._client is None:
            self._made_ms = now_ms
        for group in [together, *alone] if together else alone:
            self._open.append(_Question(now_ms, self._list(group)))

    def answers(self) -> list[tuple[dict[int, int], int]]:
        """New high watermarks by partition, and when they were asked for; without partitions that nobody answered."""
        if self._client is not None:
            self._client.poll(0)
        done = [question for question in self._open if question.is_answered]
        if not done:
            return []
        self._open = [question for question in self._open if not question.is_answered]
        return [(self._taken(question), question.asked_ms) for question in done]

    def _taken(self, question: _Question) -> dict[int, int]:
        found: dict[int, int] = {}
        for at, future in question.answers.items():
            try:
                found[self._lane(at)] = future.result().offset
            except KafkaException as error:
                self._is_outdated |= error.args[0].code() in NOT_KNOWN
        self._alone -= found.keys()
        if found:  # where nobody answers, asking one by one would change nothing
            self._alone |= {self._lane(at) for at in question.answers} - found.keys()
        return found

    def _listed(self, partitions: list[int]) -> Futures:
        if self._client is None or self._brokers.is_stranded:
            self._brokers = BrokerWatch()
            self._client = clients.admin(self._settings, {**self._config, **self._brokers.config()})
        asked: Futures = self._client.list_offsets(
            {TopicPartition(self._topics[input_of(lane)], partition_of_lane(lane)): _LATEST for lane in partitions},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=REQUEST_TIMEOUT_S,
        )
        return asked

    def _lane(self, at: TopicPartition) -> int:
        return lane_of(self._topics.index(at.topic), at.partition)

    def close(self) -> None:
        """Close the client."""
        self._client, self._open = None, []
