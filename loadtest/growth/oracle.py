"""What a flow that has grown must have written: for each key one stream, whatever the partitions were.

Knows nothing of partitions, parents or epochs. It judges traffic in which nothing is late and nothing is rejected.
"""

import io
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any, Final

import fastavro
from confluent_kafka import Message

from loadtest.oracle.decode import newest_schema, plain_schema, registry_schemas
from loadtest.oracle.events import Event
from loadtest.oracle.folds import VehicleFold, compare_rows
from loadtest.oracle.read import TopicReader
from streams.flow.declaration import Pipeline
from streams.kafka.partitioner import partition_of
from streams.settings import Settings

DETAILS_MAX: Final = 20
_FRAME_BYTES: Final = 5


@dataclass(slots=True)
class Verdict:
    """Counts of events, or of rows of the table; all but the first three are 0 when everything is right."""

    events: int = 0
    """Number of records in the source."""
    duplicates: int = 0
    """How many of the records are copies of an event that is there already."""
    clean: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    late: int = 0
    rejected: int = 0
    table_mismatches: int = 0
    rows_not_at_home: int = 0
    keys_with_two_rows: int = 0
    details: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the output is exactly what the input demands."""
        wrong = (
            self.lost, self.duplicated, self.out_of_order, self.late, self.rejected, self.table_mismatches,
            self.rows_not_at_home, self.keys_with_two_rows,
        )  # fmt: skip
        return not any(wrong)

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as an object of the report's JSON."""
        return asdict(self)

    def note(self, text: str) -> None:
        """Keep the first few mismatches in words."""
        if len(self.details) < DETAILS_MAX:
            self.details.append(text)


def judge(settings: Settings, pipeline: Pipeline) -> Verdict:
    """Read every topic to its end and compare; the flow must have let go of everything.

    Raises:
        StreamsError: a topic is missing, or Kafka or the registry does not answer.

    """
    decode = _Decoder(settings)
    reader = TopicReader(settings.kafka_bootstrap_servers)
    try:
        found = Verdict()
        sent: dict[bytes, dict[bytes, None]] = defaultdict(dict)
        for message in reader.records(pipeline.source):
            found.events += 1
            sent[_bytes(message.key())][_bytes(message.value())] = None
        found.duplicates = found.events - sum(map(len, sent.values()))
        clean: dict[bytes, list[bytes]] = defaultdict(list)
        for partition in range(reader.partitions(pipeline.clean)):  # a later home of a key has a higher number
            for batch in reader.batches(pipeline.clean, [partition]):
                for message in batch:
                    clean[_bytes(message.key())].append(_bytes(message.value()))
        found.clean = sum(map(len, clean.values()))
        late = Counter(_bytes(message.value()) for message in reader.records(pipeline.late))
        found.late = late.total()
        found.rejected = sum(1 for _ in reader.records(pipeline.dlq))
        rows = _rows(reader, pipeline.tables[0].topic, found)
        for key in sorted({*sent, *clean, *rows}):
            _judge_key(key, sent.get(key, {}), clean.get(key, []), late, rows.get(key), decode, found)
        return found
    finally:
        reader.close()


def _judge_key(
    key: bytes, sent: dict[bytes, None], clean: list[bytes], late: Counter[bytes], row: Message | None,
    decode: "_Decoder", found: Verdict,
) -> None:  # fmt: skip
    name, seen = key.decode(errors="replace"), Counter(clean)
    lost = [value for value in sent if not seen[value] and not late[value]]
    surplus = sum(count - (value in sent) for value, count in seen.items())
    found.lost += len(lost)
    found.duplicated += surplus
    events = [decode.event(key, value) for value in clean]
    order = [(event.event_time_ms, event.sequence, event.event_id) for event in events]
    disorder = sum(later < earlier for earlier, later in pairwise(order))
    found.out_of_order += disorder
    if lost or surplus or disorder:
        found.note(f"{name}: {len(lost)} of {len(sent)} lost, {surplus} doubled, {disorder} out of order")
    fold = VehicleFold(name)
    for event in events:
        fold.add(event)
    differing = compare_rows(fold.row(), None if row is None else decode.row(_bytes(row.value()))) if events else []
    if differing or (row is not None and not events):
        found.table_mismatches += 1
        found.note(f"row of {name}: {', '.join(differing) or 'should not be'}")


def _rows(reader: TopicReader, topic: str, found: Verdict) -> dict[bytes, Message]:
    """The row of each key, of all partitions together."""
    newest: dict[tuple[int, bytes], Message] = {}
    for message in reader.records(topic):
        newest[int(message.partition() or 0), _bytes(message.key())] = message
    partitions = reader.partitions(topic)
    rows: dict[bytes, Message] = {}
    for (partition, key), message in sorted(newest.items(), key=lambda each: each[0]):
        if message.value() is None:
            continue
        found.keys_with_two_rows += key in rows
        found.rows_not_at_home += partition_of(key, partitions) != partition
        rows[key] = message
    return rows


class _Decoder:
    """Values of positions, and rows of vehicles."""

    def __init__(self, settings: Settings) -> None:
        schema_by_id = registry_schemas(settings.schema_registry_url)
        reads = plain_schema(newest_schema("gps.positions.v1-value"))
        self._row = plain_schema(newest_schema("vehicles.state.v1-value"))
        self._reads = reads

        @cache
        def writes(schema_id: int) -> Any:
            return plain_schema(schema_by_id(schema_id) or "")

        self._writes = writes

    def event(self, key: bytes, value: bytes) -> Event:
        """The event of a clean record."""
        read: Any = fastavro.schemaless_reader(
            io.BytesIO(value[_FRAME_BYTES:]), self._writes(int.from_bytes(value[1:_FRAME_BYTES], "big")), self._reads
        )
        return Event(
            0, 0, key, read["event_id"], read["device_id"], read["sequence"], read["event_time"], read["latitude"],
            read["longitude"], read["speed_kmh"], value, read["heading_deg"],
        )  # fmt: skip

    def row(self, value: bytes) -> dict[str, Any]:
        """Decode a record's value as a row of the table."""
        read: Any = fastavro.schemaless_reader(io.BytesIO(value[_FRAME_BYTES:]), self._row, None)
        return dict(read)


def _bytes(found: Any) -> bytes:
    return bytes(found or b"")
