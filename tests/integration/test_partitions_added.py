"""Partitions added to a source: the new ones are refused in words, the others go on, and a restart starts."""

import time
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions

from logistics.flows.gps import GPS
from streams.kafka.partitioner import partition_of
from streams.local.stack import Stack
from tests.integration.kafka_helpers import admin_of, committed_records
from tests.integration.test_rejects import Encoder
from tests.integration.workers import PARTITIONS, Worker, fresh_world, wait_until, workers

pytestmark = pytest.mark.kafka

NEW = 6
DEVICES = [f"car-{number}" for number in range(24)]
REFUSED = f"{GPS.source} partitions [3, 4, 5] are not consumed"


class Sender:
    """A position of each device, in the partition that a producer would choose that sees so many."""

    def __init__(self, stack: Stack) -> None:
        self._encoder = Encoder(stack)
        self._producer = Producer({
            "bootstrap.servers": stack.bootstrap_servers, "topic.metadata.refresh.interval.ms": 500,
        })  # fmt: skip

    def send(self, partitions: int) -> dict[int, set[bytes]]:
        """What was sent to each partition."""
        sent: dict[int, set[bytes]] = {}
        now_ms = int(time.time() * 1000)
        for device in DEVICES:
            value = self._encoder.framed(device_id=device, event_time=now_ms)
            partition = partition_of(device.encode(), partitions)
            self._producer.produce(GPS.source, value, device.encode(), partition)
            sent.setdefault(partition, set()).add(value)
        assert self._producer.flush(60) == 0
        return sent


def test_partitions_that_are_added_are_refused_and_the_others_go_on_also_after_a_restart(
    stack: Stack, tmp_path: Path
) -> None:
    fresh_world(stack)
    sender = Sender(stack)
    with workers(stack, tmp_path, "a") as (worker,):
        worker.start().wait_ready()
        expected = set[bytes]().union(*sender.send(PARTITIONS).values())
        wait_until(lambda: clean(stack) == expected, "all is processed")
        client = admin_of(stack)
        client.create_partitions([NewPartitions(GPS.source, NEW)])[GPS.source].result(30)
        wait_until(lambda: REFUSED in worker.readiness()[1], "the worker refuses them", timeout_s=90)
        assert 503 == worker.readiness()[0]
        assert "partitions 0 to 2" in worker.readiness()[1]
        assert worker.said("partitions are not consumed")
        for run in ("running", "restarted"):
            if run == "restarted":
                assert 0 == worker.terminate(), worker.printed()[-3000:]
                worker.start()
                wait_until(lambda: REFUSED in worker.readiness()[1], "the restarted worker says it, too")
            sent = sender.send(NEW)
            assert set(range(NEW)) == sent.keys()
            expected |= sent[0] | sent[1] | sent[2]
            wait_until(partial(is_clean, stack, frozenset(expected)), f"the partitions with state go on: {run}")
            assert 0 == misrouted(worker), "6 is a multiple of 3: what is in partitions 0 to 2 is at home there"
        assert worker.terminate() == 0
    fresh_world(stack)  # with as many partitions as other tests expect


def clean(stack: Stack) -> set[bytes]:
    return {record.value for record in committed_records(stack, GPS.clean)}


def is_clean(stack: Stack, wanted: frozenset[bytes]) -> bool:
    return clean(stack) == wanted


def misrouted(worker: Worker) -> float:
    return worker.metric(f'streams_misrouted_total{{topic="{GPS.source}"}}')


def test_a_key_in_two_partitions_is_counted_and_named_in_the_log(stack: Stack, tmp_path: Path) -> None:
    """Two producers that hash differently, as Java's and librdkafka's do by default."""
    fresh_world(stack)
    encoder, producer = (
        Encoder(stack),
        Producer({"bootstrap.servers": stack.bootstrap_servers, "enable.idempotence": True}),
    )
    device = DEVICES[0]
    home = partition_of(device.encode(), PARTITIONS)
    for number in range(10):
        value = encoder.framed(device_id=device, event_time=int(time.time() * 1000))
        producer.produce(GPS.source, value, device.encode(), (home + number % 2) % PARTITIONS)
    assert producer.flush(60) == 0
    with workers(stack, tmp_path, "b") as (worker,):
        worker.start().wait_ready()
        wait_until(lambda: misrouted(worker) == 5, "they are counted")
        (line,) = worker.said("keys are in partitions that murmur2 would not have chosen")
        assert f'"{(home + 1) % PARTITIONS}": ["{device}"]' in line
        status, said = worker.readiness()
        assert 200 == status
        assert "5 events since the start have a key of another partition" in said
