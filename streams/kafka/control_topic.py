"""Reads a control topic: a small compacted topic of one partition, kept in memory from its beginning."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.errors import StreamsError
from streams.kafka import clients
from streams.kafka.acls import group_in_words
from streams.kafka.admin import RECONNECT_MS_MAX, admin_client, described
from streams.kafka.broker_watch import BrokerWatch
from streams.settings import Settings

log = structlog.get_logger(__name__)

READ_TIMEOUT_S: Final = 10.0
_RECORDS_MAX: Final = 1_000
_WAIT_S: Final = 0.05
_HELD_S: Final = 0.25
"""A caller of `refresh` waits at most this long for a caller of `wait`."""
_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - public constants of librdkafka
_ABSENT: Final = frozenset({
    KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
})  # fmt: skip
_LEADERLESS: Final = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})


class ControlTopic:
    """Reads the records of one control topic. It joins no group. Any thread. A missing topic has no records."""

    def __init__(self, settings: Settings, topic: str, *, client: str, group: str, what: str) -> None:
        """Connects at the first read.

        `group`: required by the client, which asks for its coordinator: that of the flow, which every role that reads
        this may describe. `what` says what follows while the topic cannot be read.
        """
        self._settings, self._topic, self._what = settings, topic, what
        self._config: dict[str, Any] = {
            "client.id": client,
            "group.id": group,  # it neither joins nor commits
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 500,
            "topic.metadata.refresh.interval.ms": 30_000,
            "reconnect.backoff.max.ms": RECONNECT_MS_MAX,
        }
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._readers = 0
        self._is_there = False
        self._consumer: Consumer | None = None
        self._asking: AdminClient | None = None
        self._brokers = BrokerWatch()
        self._log: list[tuple[bytes | None, bytes | None, int]] = []
        self._position = 0
        """Up to where the log was read."""
        self._is_told = False
        """Whether it was logged that the topic cannot be read."""

    def refresh(self, timeout_s: float = READ_TIMEOUT_S) -> None:
        """Read what is in the topic now.

        Raises:
            StreamsError: no answer.

        """
        deadline_s = time.monotonic() + timeout_s
        with self._first_in_line(), self._lock:
            while (end := self._end(timeout_s)) is None:
                if time.monotonic() > deadline_s:
                    raise StreamsError(f"{self._topic} has no leader for {timeout_s:g} s")
                time.sleep(_WAIT_S)
            while self._position < end:
                if time.monotonic() > deadline_s:
                    self._close()
                    raise StreamsError(f"reading {self._topic}: no answer within {timeout_s:g} s")
                self._take(_WAIT_S)

    @contextmanager
    def _first_in_line(self) -> Iterator[None]:
        """Callers of `wait` let callers of `refresh` go first."""
        with self._counting:
            self._readers += 1
        try:
            yield
        finally:
            with self._counting:
                self._readers -= 1

    def wait(self, timeout_s: float) -> None:
        """Wait for a further record, at most this long, and read what is there.

        Raises:
            StreamsError: the client refuses.

        """
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            if self._readers:
                time.sleep(_WAIT_S)
                continue
            with self._lock:
                if self._take(min(left_s, _HELD_S)):
                    while self._take(0):
                        pass
                    return

    def log(self) -> list[tuple[bytes | None, bytes | None, int]]:
        """Key, value and timestamp in ms of every record that was read."""
        with self._lock:
            return list(self._log)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self._asking = None
            self._close()

    def _end(self, timeout_s: float) -> int | None:
        """The offset after the last record; 0 for a missing topic, None while it has no leader."""
        try:
            # Of all topics: asking by name creates a missing one where the broker auto-creates topics.
            self._is_there = self._is_there or self._topic in self._admin().list_topics(timeout=timeout_s).topics
            if not self._is_there:
                return 0
            where = TopicPartition(self._topic, 0)
            asked = self._admin().list_offsets({where: OffsetSpec.latest()}, request_timeout=timeout_s)
            end = asked[where].result(timeout_s + 1).offset
        except KafkaException as error:
            if error.args[0].code() in _ABSENT:
                return 0
            if error.args[0].code() in _LEADERLESS:  # as one that was created just now
                return None
            self._asking = None
            self._close()  # a client that got no answer may never get one (`kafka.broker_watch`)
            raise StreamsError(f"asking for the end of {self._topic}: {described(error)}") from None
        return int(end)

    def _admin(self) -> AdminClient:
        """The client that asks. The broker answers the one that reads only when its fetch is over, up to half a second.

        A restore asks, and keys may be waiting for it.
        """
        if self._asking is None:
            self._asking = admin_client(self._settings)
        return self._asking

    def _asked(self) -> Consumer:
        """The consumer that reads, from the beginning or from where it was."""
        if self._consumer is not None and self._brokers.is_stranded:
            self._close()
        if self._consumer is None:
            self._brokers = BrokerWatch()
            self._consumer = clients.consumer(self._settings, {**self._config, **self._brokers.config()})
            start = self._position or OFFSET_BEGINNING
            self._consumer.assign([TopicPartition(self._topic, 0, start)])
        return self._consumer

    def _take(self, timeout_s: float) -> bool:
        """Read records; returns whether there were any."""
        has_come = False
        try:
            first = self._asked().consume(1, timeout_s)
            for message in [*first, *(self._asked().consume(_RECORDS_MAX, 0) if first else ())]:
                has_come |= self._took(message)
        except KafkaException as error:
            self._close()
            raise StreamsError(f"reading {self._topic}: {described(error)}") from None
        return has_come

    def _took(self, message: Message) -> bool:
        error, offset = message.error(), int(message.offset() or 0)
        if error is None:
            if offset < self._position:
                return False
            self._log.append((message.key(), message.value(), int(message.timestamp()[1])))
            self._position = offset + 1
            return True
        if error.code() == _EOF:
            self._position = max(self._position, offset)
        elif error.code() not in _ABSENT and not self._is_told:
            self._is_told = True
            if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                words = group_in_words(self._config["group.id"])
                log.warning("a right is lacking; the control topic is read without", topic=self._topic, error=words)
                return False
            log.warning(
                "a control topic cannot be read",
                topic=self._topic,
                meanwhile=self._what,
                error=described(KafkaException(error)),
            )
        return False

    def _close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
