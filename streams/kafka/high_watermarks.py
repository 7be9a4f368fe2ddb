"""Asks for the high watermarks of one topic without waiting: the intake thread must go on polling meanwhile."""

from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but the stubs do not re-export them
    AdminClient,
    OffsetSpec,
)

from streams.kafka.admin import RECONNECT_MS_MAX, librdkafka_log
from streams.kafka.stranding import BrokerWatch
from streams.settings import Settings

REQUEST_TIMEOUT_S: Final = 5.0
_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class HighWatermarks:
    """One question at a time. One thread; the client connects with the first question."""

    def __init__(self, settings: Settings, *, source: str, client_id: str) -> None:
        self._source = source
        self._config: dict[str, Any] = {
            **settings.kafka_client_config(),
            "client.id": client_id,
            "reconnect.backoff.max.ms": RECONNECT_MS_MAX,
            "topic.metadata.refresh.interval.ms": 30_000,
        }
        self._client: AdminClient | None = None
        self._brokers = BrokerWatch()
        self._asked: dict[TopicPartition, Future[Any]] = {}
        self._asked_ms = 0

    @property
    def is_asking(self) -> bool:
        """Whether a question has no answer yet: no other can be asked."""
        return bool(self._asked)

    def ask(self, partitions: list[int], now_ms: int) -> None:
        """Ask for the ends of `partitions`, open transactions included."""
        if self._client is None or self._brokers.is_stranded:
            self._brokers = BrokerWatch()
            self._client = AdminClient({**self._config, **self._brokers.config()}, logger=librdkafka_log)
        wanted = {TopicPartition(self._source, partition): _LATEST for partition in partitions}
        self._asked_ms = now_ms
        self._asked = self._client.list_offsets(
            wanted, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=REQUEST_TIMEOUT_S
        )

    def answer(self) -> tuple[dict[int, int], int] | None:
        """High watermarks by partition and when they were asked for; None while there is nothing new.

        A partition that has no leader now, or whose leader does not answer, is not in it.
        """
        if self._client is None:
            return None
        self._client.poll(0)
        if not self._asked or not all(future.done() for future in self._asked.values()):
            return None
        found: dict[int, int] = {}
        for at, future in self._asked.items():
            try:
                found[at.partition] = future.result().offset
            except KafkaException:
                continue
        self._asked = {}
        return found, self._asked_ms

    def close(self) -> None:
        """Let go of the client."""
        self._client, self._asked = None, {}
