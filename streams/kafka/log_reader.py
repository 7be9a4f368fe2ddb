"""Reads small ranges of logs: the first record at or after an offset, or the newest few. Never joins a group."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from streams.errors import StreamsError
from streams.kafka import clients
from streams.kafka.acls import group_in_words
from streams.kafka.admin import RECONNECT_MS_MAX, described
from streams.settings import Settings

log = structlog.get_logger(__name__)

READ_TIMEOUT_S: Final = 5.0
_NO_GROUP: Final = KafkaError.GROUP_AUTHORIZATION_FAILED
_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of librdkafka
_CONSUME: Final = 2_000


@dataclass(frozen=True, slots=True)
class Span:
    """What to read: from `first`, at most `records_max` records, none at or after `end`."""

    topic: str
    partition: int
    first: int
    end: int
    records_max: int = 1


@dataclass(frozen=True, slots=True)
class Read:
    """Records found in a span. `complete`: there are no others in it; else the time was up, or there are more."""

    records: list[Message]
    complete: bool


class LogReader:
    """Reads spans, read_committed unless told otherwise. One thread; `close` when done."""

    def __init__(self, settings: Settings, *, client: str, group: str, isolation: str = "read_committed") -> None:
        """`client`: its `client.id`. `group`: required by the client, which asks for its coordinator."""
        self._settings, self._group = settings, group
        self._is_told = False
        """Whether it was logged that the group may not be described."""
        self._config: dict[str, Any] = {
            "client.id": client,
            "group.id": group,  # it neither joins nor commits
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "queued.min.messages": 1,
            "fetch.queue.backoff.ms": 10,  # with the default, a second passes after each batch of a partition
            "queued.max.messages.kbytes": 8_192,
            "fetch.message.max.bytes": 65_536,
            "fetch.wait.max.ms": 20,
            "reconnect.backoff.max.ms": RECONNECT_MS_MAX,
        }
        self._consumer = clients.consumer(settings, self._config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def read(self, spans: Sequence[Span], *, timeout_s: float = READ_TIMEOUT_S) -> Mapping[Span, Read]:
        """Records of each span, in order of their offsets; at most one span per partition.

        Raises:
            StreamsError: the client refuses.

        """
        at = {(span.topic, span.partition): span for span in spans}
        if len(at) != len(spans):
            raise ValueError("two spans in one partition")
        found: dict[Span, list[Message]] = {span: [] for span in spans}
        complete: set[Span] = set()
        open_spans = {key: span for key, span in at.items() if span.first < span.end}
        complete.update(span for span in spans if span.first >= span.end)
        try:
            self._consumer.assign([TopicPartition(s.topic, s.partition, s.first) for s in open_spans.values()])
            deadline_s, is_answered = time.monotonic() + timeout_s, not open_spans
            while open_spans and (left_s := deadline_s - time.monotonic()) > 0:
                messages = self._consumer.consume(_CONSUME, min(left_s, 0.2))
                is_answered |= bool(messages)
                self._look_for_refusals(messages)
                closed = self._take(messages, open_spans, found, complete)
                if closed:
                    self._consumer.incremental_unassign([TopicPartition(*key) for key in closed])
            self._consumer.unassign()
        except KafkaException as error:
            raise StreamsError(f"reading records: {described(error)}") from None
        if not is_answered:  # not even an end was reported: the client may never get an answer again (`broker_watch`)
            self._consumer.close()
            self._consumer = clients.consumer(self._settings, self._config)
        return {span: Read(found[span], span in complete) for span in spans}

    def _look_for_refusals(self, messages: list[Message]) -> None:
        """Log once that the brokers refuse the group; records are read all the same."""
        errors = (message.error() for message in messages)
        if not self._is_told and any(error and error.code() == _NO_GROUP for error in errors):
            self._is_told = True
            log.warning("a right is lacking; records are read without", error=group_in_words(self._group))

    @staticmethod
    def _take(
        messages: list[Message],
        open_spans: dict[tuple[str, int], Span],
        found: dict[Span, list[Message]],
        complete: set[Span],
    ) -> list[tuple[str, int]]:
        """Sort messages into their spans; returns the spans that are complete."""
        closed: list[tuple[str, int]] = []
        for message in messages:
            key: Any = (message.topic(), message.partition())
            span = open_spans.get(key)
            if span is None:
                continue
            error, offset = message.error(), int(message.offset() or 0)
            if error is not None:
                if error.code() != _EOF:
                    continue  # of one partition; the others go on, and this one is asked again another time
                complete.add(span)
            elif offset >= span.end:
                complete.add(span)
            elif offset >= span.first:
                found[span].append(message)
                if offset == span.end - 1:
                    complete.add(span)
                elif len(found[span]) < span.records_max:
                    continue
            else:
                continue
            del open_spans[key]
            closed.append(key)
        return closed
