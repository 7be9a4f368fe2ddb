"""Records out of the client and into it with and without a call for each: the same, and no consumer is held up."""

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import NewTopic

from streams.avro.native import choose
from streams.batch.columns import Headers
from streams.batch.records import Records
from streams.kafka.native_client import NativeClients
from streams.local.stack import Stack
from streams.settings import load_settings
from streams.sinks.base import TopicRecords
from streams.sinks.kafka.produce import GivesBatch, GivesEach
from streams.sources.kafka.consumer_calls import assign_again
from streams.sources.kafka.intake import Intake
from tests.integration.kafka_helpers import admin_of, delete_topics, recreate_topic, settings_of
from tests.integration.raw_producer import RawHeaders, RawProducer

pytestmark = [pytest.mark.kafka, pytest.mark.native]

TOPIC = "tests.native-records"
GIVEN = "tests.native-records.given"
STAMPED = "tests.native-records.stamped"
AGAIN = "tests.native-records.again"
CLOSES_S = 20.0
ODD: list[tuple[bytes | None, bytes | None, int, RawHeaders]] = [
    (b"k", b"v", 1_700_000_000_000, [(b"a", b"1"), (b"a", None), (b"", b""), ("ü".encode(), b"\xff")]),
    (None, b"v", 0, [(b"before", b"1"), (b"tr\xfccker", b"2"), (b"after", None)]),
    (b"", None, -1, [(b"\xff", None)]),
    (b"k", b"", 2**62, []),
    (b"\0k", bytes(300_000), 1, [(b"h%d" % number, b"v") for number in range(500)]),
]
PLAIN = 3_000


class Reading:
    """A consumer and all that it has handed over."""

    def __init__(self, stack: Stack, topic: str, native: NativeClients | None) -> None:
        self.parts: list[Records] = []
        self._beyond_end: frozenset[int] = frozenset()
        settings = load_settings(kafka_bootstrap_servers=stack.bootstrap_servers)
        name = f"{topic}-{native is not None}-{time.monotonic_ns()}"
        self.intake = Intake(settings, source=topic, group=name, member=name, ownership=self, native=native)
        self.intake.subscribe()

    def assigned(self, partitions: list[int]) -> None:
        for partition in partitions:
            self.intake.start(partition, 0, (0, 1 << 40))

    def revoked(self, partitions: list[int]) -> None:
        pass

    lost = revoked

    def noted(self, membership: object | None) -> None:
        pass

    def until_count(self, records: int) -> None:
        """Read until there are so many of them."""
        self.until(lambda: self.count >= records)

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline, f"{self.count} records"
            if (records := self.intake.poll().records) is not None:
                self.parts.append(records)

    def beyond_end(self) -> frozenset[int]:
        """Partitions that were found so far to end before the offset that is next."""
        self._beyond_end |= self.intake.take_beyond_end()
        return self._beyond_end

    @property
    def count(self) -> int:
        return sum(map(len, self.parts))

    def by_partition(self) -> list[dict[str, Any]]:
        found = Records.concat(self.parts)
        return [_columns(found.take(np.flatnonzero(found.partition == number))) for number in range(2)]


def _columns(records: Records) -> dict[str, Any]:
    headers = records.headers or [None] * len(records)
    return {
        "offset": records.offset.tolist(),
        "timestamp": records.timestamp_ms.tolist(),
        "key": list(records.key),
        "value": list(records.value),
        "headers": headers,
        "lost": dict(records.headers_lost or {}),
        "types": {column.dtype.str for column in (records.partition, records.offset, records.timestamp_ms)},
        "epochs": dict(records.leader_epochs),
        "broker": records.broker_ms,
    }


def fill(stack: Stack, topic: str, word: str, records: int) -> None:
    """As many records in each of two partitions."""
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "enable.idempotence": True})
    for number in range(records):
        producer.produce(topic, f"{word} {number}".encode(), b"key", number % 2)
    assert producer.flush(60) == 0


@pytest.fixture
def native() -> NativeClients:
    found = choose("on").native
    assert found is not None
    return NativeClients(found)


@pytest.fixture(scope="module")
def topics(stack: Stack) -> int:
    """Fill both topics; returns how many records each has."""
    client = admin_of(stack)
    delete_topics(client, {TOPIC, STAMPED})
    client.create_topics([NewTopic(TOPIC, 2, 1, config={"retention.ms": "-1"})])[TOPIC].result(30)
    stamped = NewTopic(STAMPED, 2, 1, config={"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"})
    client.create_topics([stamped])[STAMPED].result(30)
    raw = RawProducer(stack.bootstrap_servers)
    for topic in (TOPIC, STAMPED):
        for key, value, timestamp_ms, headers in ODD:
            if topic == TOPIC or timestamp_ms > 0:
                raw.send(topic, 0, key, value, min(timestamp_ms, 1_700_000_000_000), headers)
    raw.close()
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "enable.idempotence": True})
    for topic in (TOPIC, STAMPED):
        for number in range(PLAIN):
            producer.produce(topic, b"value %d" % number, b"key %d" % (number % 7), number % 2)
    assert producer.flush(60) == 0
    return PLAIN + len(ODD)


@pytest.mark.parametrize("topic", [TOPIC, STAMPED])
def test_records_are_the_same_with_and_without_message_objects(
    stack: Stack, topics: int, native: NativeClients, topic: str
) -> None:
    wanted = topics if topic == TOPIC else topics - 2
    found = []
    for each in (None, native):
        reading = Reading(stack, topic, each)
        reading.until_count(wanted)
        reading.intake.close()
        found.append(reading.by_partition())
    assert found[0] == found[1]


def test_records_are_given_the_same_one_by_one_and_as_a_batch(stack: Stack, native: NativeClients) -> None:
    given: list[tuple[bytes | None, bytes | None, int, Headers | None]] = [
        (b"k", b"v", 1_700_000_000_000, [("a", b"1"), ("a", None), ("", b""), ("ü", b"\xff")]),
        (None, b"v", 1, None),
        (b"", None, 2, []),
        (b"k", b"", 3, [("cut\0off", b"1")]),
        (b"\0k", random.Random(1).randbytes(300_000), 4, [(f"h{number}", b"v") for number in range(500)]),
        *((b"key %d" % number, b"value %d" % number, number + 1, None) for number in range(5_000)),
    ]
    client = admin_of(stack)
    delete_topics(client, {GIVEN})
    client.create_topics([NewTopic(GIVEN, 2, 1, config={"retention.ms": "-1"})])[GIVEN].result(30)
    keys, values, times, headers = map(list, zip(*given, strict=True))
    made, gives = native.producer(settings_of(stack), {})
    assert gives is not None
    for partition, give in ((0, GivesEach(made)), (1, GivesBatch(gives))):
        assert give(TopicRecords(GIVEN, keys, values, times, headers, partition), 0) == (len(given), None)
        assert made.flush(60) == 0
    reading = Reading(stack, GIVEN, None)
    reading.until(lambda: reading.count >= 2 * len(given))
    reading.intake.close()
    one_by_one, as_a_batch = reading.by_partition()
    assert as_a_batch["value"] == values
    assert as_a_batch["timestamp"] == times
    assert as_a_batch == one_by_one


@pytest.mark.parametrize("is_native", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["natively", "Python"])
def test_a_topic_that_is_created_again_is_read_from_its_beginning_and_the_consumer_closes(
    stack: Stack, native: NativeClients, *, is_native: bool
) -> None:
    """The client stops fetching a partition of which an offset is out of range: its queue is another one then."""
    client = admin_of(stack)
    recreate_topic(stack, AGAIN, 2)
    fill(stack, AGAIN, "first", 500)
    reading = Reading(stack, AGAIN, native if is_native else None)
    reading.until_count(500)
    reading.parts.clear()
    recreate_topic(stack, AGAIN, 2)
    fill(stack, AGAIN, "second", 100)
    reading.until(lambda: len(reading.beyond_end()) == 2)
    # As a worker does that has found that the topic is another one.
    reading.intake.stop([0, 1], 1)
    reading.intake.poll()
    for partition in range(2):
        reading.intake.start(partition, 0, (0, 50))
    reading.until_count(100)
    assert [b"second %d" % number for number in range(100)] == sorted(
        (value for one in reading.by_partition() for value in one["value"]), key=lambda value: int(value.split()[1])
    )
    started_s = time.monotonic()
    reading.intake.close()
    assert time.monotonic() - started_s < CLOSES_S
    delete_topics(client, {AGAIN})


def test_a_partition_that_is_assigned_again_is_always_read_by_the_reader(stack: Stack, native: NativeClients) -> None:
    """The client forgets where records are forwarded to at some moment after the partition was taken away."""
    recreate_topic(stack, AGAIN, 2)
    fill(stack, AGAIN, "one", 100)
    reading = Reading(stack, AGAIN, native)
    reading.until_count(100)
    for _ in range(20):
        reading.parts.clear()
        for partition in range(2):
            here = TopicPartition(AGAIN, partition, 0)
            assign_again(reading.intake.consumer, reading.intake._reader, here)
            reading.intake._consumed.start(partition, 0)
            reading.intake.consumer.resume([here])
        reading.until_count(100)
        assert reading.count == 100
    reading.intake.close()


def test_a_consumer_with_unread_records_closes_and_is_made_anew(
    stack: Stack, topics: int, native: NativeClients
) -> None:
    reading = Reading(stack, TOPIC, native)
    reading.until(lambda: reading.count > 0)
    reading.parts.clear()
    started_s = time.monotonic()
    reading.intake._renew()
    assert time.monotonic() - started_s < CLOSES_S
    reading.until(lambda: reading.count >= topics)
    assert [[*range(len(one["offset"]))] for one in reading.by_partition()] == [
        one["offset"] for one in reading.by_partition()
    ]
    started_s = time.monotonic()
    reading.intake.close()
    assert time.monotonic() - started_s < CLOSES_S
