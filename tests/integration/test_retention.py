"""A backfill of old records on a broker that looks for expired ones every second: nothing of the outputs is deleted."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import NewTopic, OffsetSpec

from logistics.flows.gps import GPS
from streams.kafka.admin import settled
from streams.local import kafka
from streams.local.stack import Stack, running_stack
from tests.integration.kafka_helpers import admin_of, alter_topic
from tests.integration.test_rejects import Encoder
from tests.integration.workers import fresh_world, read, wait_drained, wait_until, workers

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

DAY_MS = 86_400_000
EVENTS = 500
CANARY = "tests.expires"


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own, whose broker looks for expired records every second."""
    with pytest.MonkeyPatch.context() as patch:
        often = (
            "log.retention.check.interval.ms=1000\nlog.initial.task.delay.ms=1000\nlog.segment.delete.delay.ms=100\n"
        )
        patch.setattr(kafka, "PROPERTIES", kafka.PROPERTIES + often)
        with running_stack(tmp_path_factory.mktemp("impatient")) as running:
            yield running


def test_a_backfill_of_records_of_40_days_ago_survives_its_retention(impatient: Stack, tmp_path: Path) -> None:
    probe = fresh_world(impatient)
    alter_topic(impatient, GPS.source, retention_ms="-1")
    begin_ms = int(time.time() * 1000) - 40 * DAY_MS
    producer = Producer(
        {"bootstrap.servers": impatient.bootstrap_servers, "partitioner": "murmur2_random", "enable.idempotence": True}
    )
    encoder = Encoder(impatient)
    for number in range(EVENTS):
        at_ms = begin_ms + number * 1_000
        good = encoder.framed(event_time=at_ms, sequence=number)
        late = encoder.framed(event_time=at_ms - 60_000, sequence=number)
        for value in (good, late, b"not a position"):
            producer.produce(GPS.source, value, b"car-7", timestamp=at_ms)
    assert 0 == producer.flush(60)

    with workers(impatient, tmp_path, "a") as (worker,):
        worker.start().wait_ready()
        wait_drained(probe, worker)
    an_expired_record_is_deleted(impatient)

    assert 2 * EVENTS == len(read(impatient, GPS.clean)) + len(read(impatient, GPS.late))
    assert EVENTS == len(read(impatient, GPS.dlq))


def an_expired_record_is_deleted(stack: Stack) -> None:
    """Write one with an old timestamp and wait until the broker has deleted it: it has looked at every topic since."""
    client = admin_of(stack)
    for future in client.create_topics([NewTopic(CANARY, 1, 1, config={"retention.ms": str(7 * DAY_MS)})]).values():
        settled(f"creating {CANARY}", future)
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "enable.idempotence": True})
    for _ in range(2):
        producer.produce(CANARY, b"x", timestamp=int(time.time() * 1000) - 40 * DAY_MS)
        assert 0 == producer.flush(60)
    where = TopicPartition(CANARY, 0)

    def first() -> int:
        return int(client.list_offsets({where: OffsetSpec.earliest()})[where].result(10).offset)

    wait_until(lambda: first() == 2, "the broker deletes what has expired", timeout_s=120)
