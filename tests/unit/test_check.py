"""The oracle from source records to verdict, over topics in memory, with outputs made by hand from the model's."""

import dataclasses
import io
import json
import math
from types import SimpleNamespace

import fastavro
import pytest
from confluent_kafka import Message

from loadtest.fleet import SOURCES, Fleet, FleetShape
from loadtest.fleet.traffic import REJECTS
from loadtest.oracle.check import Limits, Misrouted, Topics, judge
from loadtest.oracle.compare import Report
from loadtest.oracle.decode import SCHEMAS, Decoder, Record, newest_schema
from loadtest.oracle.folds import DOMAINS
from loadtest.oracle.model import PartitionModel
from loadtest.oracle.read import Share
from streams.errors import UsageError
from streams.kafka.partitioner import partition_of

pytestmark = pytest.mark.thorough

PARTITIONS = 3
LIMITS = Limits(lateness_ms=5_000, horizon_ms=86_400_000, skew_ms_max=60_000, record_bytes_max=2_000)
MINUTES = SimpleNamespace(
    topic="vehicles.minutes.v1", subject="vehicles.minutes.v1-value", size_ms=60_000, grace_ms=30_000
)
SUBJECTS = {
    7: "gps.positions.v1-value",
    8: "vehicles.state.v1-value",
    9: "vehicles.minutes.v1-value",
    10: "orders.events.v1-value",
    11: "orders.state.v1-value",
}
SCHEMA_BY_ID = {number: (SCHEMAS / subject / "1.avsc").read_text() for number, subject in SUBJECTS.items()}


@dataclasses.dataclass
class World:
    topics: Topics
    source_id: int
    table_id: int


def topics_of(pipeline: str, source: str, table: str, windows: tuple[SimpleNamespace] = ()) -> Topics:
    return Topics(pipeline, source, f"{source}.clean", f"{source}.late", f"{source}.dlq", table, windows)


GPS = World(topics_of("gps", "gps.positions.v1", "vehicles.state.v1", (MINUTES,)), 7, 8)
ORDERS = World(topics_of("orders", "orders.events.v1", "orders.state.v1"), 10, 11)


class MemoryTopics:
    """Topics that grow by `append`, read as `TopicReader` reads them."""

    def __init__(self) -> None:
        self.logs = {}

    def append(self, topic, key, value, *, partition: None = None, timestamp_ms: int = 0, headers: None = None) -> None:
        logs = self.logs.setdefault(topic, [[] for _ in range(PARTITIONS)])
        place = partition_of(key, PARTITIONS) if partition is None else partition
        logs[place].append(
            Message(
                topic=topic, partition=place, offset=len(logs[place]), key=key, value=value,
                timestamp=(1, timestamp_ms), headers=headers,
            )
        )  # fmt: skip

    def partitions(self, _topic):
        return PARTITIONS

    def batches(self, topic, partitions):
        for partition in partitions:
            log = self.logs.get(topic, [[]] * PARTITIONS)[partition]
            yield from (log[:1_000], log[1_000:])

    def records(self, topic, share: None = None):
        for batch in self.batches(topic, range(PARTITIONS) if share is None else [share.partition]):
            yield from (each for each in batch if share is None or share.wants(each.key()))


def framed(schema_id, row):
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(json.loads(SCHEMA_BY_ID[schema_id])), row)
    return b"\0" + schema_id.to_bytes(4, "big") + buffer.getvalue()


def filled(world, records: int = 4_000):
    """Topics with some traffic in the source: two minutes of it, by default."""
    shape = FleetShape(
        devices=30,
        start_ms=1_750_000_000_000,
        schema=SCHEMA_BY_ID[world.source_id],
        schema_id=world.source_id,
        duplicate_immediate=0.03,
        duplicate_delayed=0.03,
        disordered=0.05,
        late=0.02,
        rejects=dict.fromkeys(REJECTS, 0.003),
        incompatible_schema_id=world.table_id,
        record_bytes_max=LIMITS.record_bytes_max,
    )
    topics = MemoryTopics()
    for batch in Fleet(1, shape, SOURCES[world.topics.pipeline]).batches(records):
        for key, value, timestamp_ms in zip(batch.keys, batch.values, batch.timestamps_ms, strict=True):
            topics.append(world.topics.source, key, value, timestamp_ms=timestamp_ms)
    return topics


def write_output(world, topics, *, is_idle: bool = True) -> None:
    """What an engine would have written that is right; windows in as many rows as they have stretches of 20 events."""
    names = world.topics
    domain = DOMAINS[names.pipeline]
    decoder = Decoder(SCHEMA_BY_ID.get, newest_schema(f"{names.source}-value"), domain.event)
    for partition, log in enumerate(topics.logs[names.source]):
        limits = dataclasses.asdict(LIMITS)
        del limits["is_idle_in_the_end"], limits["timestamp_age_ms"]
        model = PartitionModel(**limits, fold=domain.fold)
        records = [Record(each.offset(), each.timestamp()[1], each.key(), each.value()) for each in log]
        for result in decoder.decode(records):
            model.feed(result)
        if is_idle:
            model.idle(math.inf)
        for event in model.clean:
            topics.append(names.clean, event.key, event.raw, timestamp_ms=event.timestamp_ms)
        for late in model.late:
            headers = [("late.reason", late.reason.encode()), ("late.by_ms", b"%d" % late.by_ms)]
            topics.append(names.late, late.event.key, late.event.raw, headers=headers)
        for reject in model.rejected:
            headers = [("dlq.reason", reject.reason.encode()), ("__streams.errors.partition", b"%d" % partition)]
            headers.append(("__streams.errors.offset", b"%d" % reject.offset))
            headers.append(("__streams.errors.topic", names.source.encode()))
            topics.append(names.dlq, reject.key, reject.raw, headers=headers)
        for key, row in model.table.items():
            topics.append(names.table, key.encode(), framed(world.table_id, row))
        if names.windows:
            write_windows(topics, model.clean)


def write_windows(topics, clean) -> None:
    fold, rows, revisions = {}, {}, {}
    for number, event in enumerate(clean):
        name = event.device_id, event.event_time_ms // 60_000 * 60_000
        vehicle = fold.setdefault(event.device_id, DOMAINS["gps"].fold(event.device_id))
        before_mm = vehicle.odometer_mm
        vehicle.add(event)
        row = rows.setdefault(name, [0, 0, None])
        row[0] += 1
        row[1] += vehicle.odometer_mm - before_mm
        row[2] = max((speed for speed in (row[2], event.speed_kmh) if speed is not None), default=None)
        if number % 20 == 0 or number == len(clean) - 1:
            for due in list(rows):
                write_row(topics, due, revisions, rows.pop(due))


def write_row(topics, name, revisions, row) -> None:
    device, start_ms = name
    revision = revisions[name] = revisions.get(name, -1) + 1
    value = {"device_id": device, "window_start": start_ms, "window_end": start_ms + 60_000, "revision": revision}
    value |= {"events": row[0], "distance_km": row[1] / 1e6, "speed_max_kmh": row[2]}
    topics.append(MINUTES.topic, device.encode(), framed(9, value))


def rows_of(world, topics):
    """Rows of the table, decoded."""
    for log in topics.logs[world.topics.table]:
        for message in log:
            schema = fastavro.parse_schema(json.loads(SCHEMA_BY_ID[world.table_id]))
            yield fastavro.schemaless_reader(io.BytesIO(message.value()[5:]), schema, None)


def verdict(world, topics, names: None = None):
    return judge(topics, SCHEMA_BY_ID.get, names or world.topics, LIMITS, lambda _topic, _records: None)


@pytest.fixture(params=[GPS, ORDERS], ids=["gps", "orders"])
def world(request: pytest.FixtureRequest):
    return request.param


@pytest.fixture
def topics(world):
    made = filled(world)
    write_output(world, made)
    return made


def test_what_an_engine_has_done_right_has_no_faults(world, topics) -> None:
    report = verdict(world, topics)
    assert report.ok, report.details
    assert report.events == 4_000 == report.clean + report.late + report.rejected + report.duplicates
    assert min(report.clean, report.late, report.rejected, report.duplicates) > 10
    assert bool(report.windows) == bool(world.topics.windows)
    assert report.window_rows >= report.windows


def test_nothing_written_is_everything_lost(world) -> None:
    report = verdict(world, filled(world))
    assert report.lost > 3_000
    assert report.rejects_missing == report.rejected_expected > 50
    assert report.table_mismatches > 25


def test_a_missing_row_of_the_table_is_seen(world, topics) -> None:
    for log in topics.logs[world.topics.table]:
        gone = log[-1].key()
        log[:] = [message for message in log if message.key() != gone]
    assert verdict(world, topics).table_mismatches == PARTITIONS


def test_only_the_newest_row_of_a_key_counts(world, topics) -> None:
    log = topics.logs[world.topics.table][0]
    topics.append(world.topics.table, log[0].key(), log[1].value(), partition=0)
    report = verdict(world, topics)
    assert report.table_mismatches - report.window_mismatches == 1
    topics.append(world.topics.table, log[0].key(), log[0].value(), partition=0)
    assert verdict(world, topics).ok


def test_an_older_worker_without_windows_is_told_unless_they_are_left_out() -> None:
    topics = filled(GPS)
    write_output(GPS, topics)
    del topics.logs[MINUTES.topic]
    report = verdict(GPS, topics)
    assert report.window_mismatches == report.windows == report.table_mismatches > 0
    assert len(report.details) == 1
    assert verdict(GPS, topics, GPS.topics.without_windows()).ok


def test_a_row_of_a_window_in_another_partition_or_twice_is_seen() -> None:
    topics = filled(GPS)
    write_output(GPS, topics)
    logs = topics.logs[MINUTES.topic]
    again = logs[0][3]
    topics.append(MINUTES.topic, again.key(), again.value())
    report = verdict(GPS, topics)
    assert (report.window_duplicates, report.window_mismatches) == (1, 0)
    logs[0].pop()
    astray = logs[0].pop()
    topics.append(MINUTES.topic, astray.key(), astray.value(), partition=1)
    report = verdict(GPS, topics)
    assert (report.window_duplicates, report.window_mismatches) == (0, 1)


def test_topics_come_from_the_declaration_of_the_pipeline() -> None:
    topics = Topics.of_pipeline("gps")
    assert topics.clean == "gps.positions.v1.clean"
    assert topics.table == "vehicles.state.v1"
    with pytest.raises(UsageError, match="no flow 'other'"):
        Topics.of_pipeline("other")


def test_what_is_still_held_is_expected_nowhere_unless_all_has_been_idle(world) -> None:
    topics = filled(world)
    write_output(world, topics, is_idle=False)
    assert verdict(world, topics).lost
    limits = dataclasses.replace(LIMITS, is_idle_in_the_end=False)
    assert judge(topics, SCHEMA_BY_ID.get, world.topics, limits, lambda _topic, _records: None).ok


# --- partition by partition -----------------------------------------------------------------------------------------


def in_shares(world, topics):
    total = Report()
    for number in range(PARTITIONS):
        share = Share(number, PARTITIONS)
        total.add(judge(topics, SCHEMA_BY_ID.get, world.topics, LIMITS, lambda _topic, _records: None, share=share))
    return total


def test_judged_partition_by_partition_the_verdict_is_the_same(world, topics) -> None:
    names = world.topics
    topics.logs[names.clean][1].pop(7)
    topics.logs[names.clean][2].append(topics.logs[names.clean][2][3])
    topics.logs[names.dlq][0].pop()
    topics.append(names.table, b"nobody", framed(world.table_id, next(iter(rows_of(world, topics)))))
    whole, parts = verdict(world, topics), in_shares(world, topics)
    assert whole.lost
    assert whole.rejects_missing
    assert {**parts.as_dict(), "details": None} == {**whole.as_dict(), "details": None}


def test_a_key_in_a_partition_of_others_cannot_be_judged_by_partitions(world, topics) -> None:
    names = world.topics
    first = topics.logs[names.source][0][0]
    topics.append(names.source, first.key(), first.value(), partition=1, timestamp_ms=first.timestamp()[1])
    with pytest.raises(Misrouted, match="keys of other partitions"):
        in_shares(world, topics)
