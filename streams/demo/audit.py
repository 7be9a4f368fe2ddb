"""Compares what came into a source with what came out of its flow: each event once, and none missing.

It reads the topics as any consumer can, and shares nothing with the worker. Each trouble that the demo makes is judged
by an audit that begins before it.
"""

import io
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import fastavro
from confluent_kafka import KafkaException, Message, TopicPartition

from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka import clients
from streams.kafka.headers import headers_of
from streams.schemas.client import Registry, UnknownSchema
from streams.settings import Settings

LOOK_BACK_MS: Final = 60_000
"""Outputs are read from so long before: an event may be a copy of one that came shortly before."""
STORED_MS_MIN: Final = 2_000
"""An event that is so much older than its record was stored by its device before it was sent."""
REQUEST_TIMEOUT_S: Final = 5.0
ROWS_MAX: Final = 50_000
FRAME_BYTES: Final = 5
# What fastavro raises for bytes that are not a record of the writer's schema.
_UNDECODABLE: Final = (EOFError, IndexError, KeyError, ValueError, TypeError, OverflowError, MemoryError)

Identity = tuple[str, int] | bytes
"""Id and time of an event; for an invalid record, its bytes."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The results for events between the beginning and the end of an audit."""

    events: int
    """Number of different events, copies not counted."""
    missing: int
    """Number of events that are in no output yet."""
    doubled: int
    """More than once among clean and late events."""
    outcomes: Counter[str]
    """Events in `clean`, `late` and `rejected`, of the keys that were asked about only."""
    stored: Counter[str] = field(default_factory=Counter)
    """The same of the events that happened since the beginning and were stored before they were sent."""
    stored_ms_max: int = 0
    """Age of the oldest one when it was sent."""
    late_ms_max: int = 0
    """The most by which one of `stored` was late."""


class Audit:
    """One audit of a flow with one input, from its creation on. Use it in a `with` block, in one thread.

    Call `take_in` often; after `end`, the audit is complete when `is_complete`.
    """

    def __init__(self, settings: Settings, flow: Pipeline, partitions: int, is_asked: Callable[[bytes], bool]) -> None:
        """`is_asked`: whether a key's events are counted by what became of them.

        Raises:
            StreamsError: the topics cannot be read.

        """
        self._registry = Registry(settings)
        self._flow, self._partitions, self._is_asked = flow, partitions, is_asked
        self._bytes_max = settings.streams_record_bytes_max
        self._schemas: dict[int, Any] = {}
        self._came: dict[Identity, bool] = {}
        self._stored: set[Identity] = set()
        self._stored_ms_max = self._late_ms_max = 0
        self._found: dict[Identity, str] = {}
        self._doubled: set[Identity] = set()
        self._read_to = dict.fromkeys(range(partitions), 0)
        self._began_ms = time.time_ns() // 1_000_000
        self._ends: dict[int, int] | None = None
        self._consumer = clients.consumer(
            settings,
            {
                "client.id": "streams-demo-audit",
                "group.id": "streams-demo",  # required by the client; it neither joins nor commits
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            },
        )
        self._outcomes = {flow.clean: "clean", flow.late: "late", flow.dlq: "rejected"}
        try:
            self._consumer.assign(self._beginnings())
        except KafkaException as error:
            self._consumer.close()
            raise StreamsError(f"reading {flow.source} and its outputs: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def end(self) -> None:
        """Ignore events from now on.

        Raises:
            StreamsError: the topics cannot be read.

        """
        try:
            self._ends = self._source_ends()
        except KafkaException as error:
            raise StreamsError(f"reading {self._flow.source}: {error}") from None

    @property
    def is_complete(self) -> bool:
        """Whether everything that arrived is in an output."""
        if self._ends is None or any(self._read_to[number] < end for number, end in self._ends.items()):
            return False
        return self._came.keys() <= self._found.keys()

    def take_in(self) -> None:
        """Read new records.

        Raises:
            StreamsError: the topics cannot be read, or the registry does not answer.

        """
        try:
            messages = self._consumer.consume(ROWS_MAX, 0.0)
        except KafkaException as error:
            raise StreamsError(f"reading {self._flow.source} and its outputs: {error}") from None
        for message in messages:
            if message.error() is None:
                self._take(message)

    def findings(self) -> Findings:
        """The results so far."""
        asked = [one for one, is_asked in self._came.items() if is_asked]
        missing = self._came.keys() - self._found.keys()
        return Findings(
            events=len(self._came),
            missing=len(missing),
            doubled=len(self._doubled & self._came.keys()),
            outcomes=Counter(self._found[one] for one in asked if one in self._found),
            stored=Counter(self._found[one] for one in self._stored if one in self._found),
            stored_ms_max=self._stored_ms_max,
            late_ms_max=self._late_ms_max,
        )

    def _beginnings(self) -> list[TopicPartition]:
        numbers = range(self._partitions)
        ends = self._source_ends()
        self._read_to = dict(ends)
        since_ms = self._began_ms - LOOK_BACK_MS
        asked = [TopicPartition(topic, number, since_ms) for topic in self._outcomes for number in numbers]
        outputs = self._consumer.offsets_for_times(asked, REQUEST_TIMEOUT_S)
        return [TopicPartition(self._flow.source, number, ends[number]) for number in numbers] + outputs

    def _source_ends(self) -> dict[int, int]:
        return {
            number: self._consumer.get_watermark_offsets(
                TopicPartition(self._flow.source, number), REQUEST_TIMEOUT_S, cached=False
            )[1]
            for number in range(self._partitions)
        }

    def _take(self, message: Message) -> None:
        topic, number, offset = str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)
        value: Any = message.value()
        if topic != self._flow.source:
            self._take_output(self._outcomes[topic], self._identity(value), message)
            return
        is_before_end = self._ends is None or offset < self._ends[number]
        self._read_to[number] = offset + 1
        if not is_before_end or len(value or b"") > self._bytes_max:
            return
        one = self._identity(value)
        key: Any = message.key()
        is_asked = self._is_asked(key or b"")
        self._came[one] = is_asked
        age_ms = 0 if isinstance(one, bytes) or one[1] < self._began_ms else message.timestamp()[1] - one[1]
        if is_asked and age_ms >= STORED_MS_MIN:
            self._stored.add(one)
            self._stored_ms_max = max(self._stored_ms_max, age_ms)

    def _take_output(self, outcome: str, one: Identity, message: Message) -> None:
        if outcome != "rejected":
            before = self._found.get(one)
            if before is not None and before != "rejected":
                self._doubled.add(one)
        if outcome != "rejected" or one not in self._found:
            self._found[one] = outcome
        if outcome == "late" and one in self._stored:
            headers: Any = dict(headers_of(message))
            self._late_ms_max = max(self._late_ms_max, int(headers.get("late.by_ms", b"0")))

    def _identity(self, value: bytes | None) -> Identity:
        value = value or b""
        schema = self._schema(int.from_bytes(value[1:FRAME_BYTES], "big")) if value[:1] == b"\0" else None
        if schema is None:
            return value
        reader = io.BytesIO(value[FRAME_BYTES:])
        try:
            row: Any = fastavro.schemaless_reader(reader, schema, None)
            if reader.read(1):
                return value
            return str(row[self._flow.id_field]), int(row[self._flow.time_field])
        except _UNDECODABLE:
            return value

    def _schema(self, schema_id: int) -> Any:
        """Parsed without logical types: times stay integers. None: there is none with this id."""
        if schema_id not in self._schemas:
            try:
                text = self._registry.schema_by_id(schema_id)
                self._schemas[schema_id] = fastavro.parse_schema(_plain(json.loads(text)))
            except UnknownSchema:
                self._schemas[schema_id] = None
        return self._schemas[schema_id]


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _plain(value) for name, value in node.items() if name != "logicalType"}
    return [_plain(value) for value in node] if isinstance(node, list) else node
