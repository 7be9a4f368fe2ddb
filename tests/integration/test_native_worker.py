"""A worker with STREAMS_NATIVE=on, and one with `off`, is killed, joined and fenced.

Events pass it as references into buffers of the native library, which takes them from the client's queue and gives
them to the other client: it must lose and double nothing, and end as soon as any other.
"""

import signal
import time
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import Producer

from logistics.flows.gps import GPS
from streams.flow.discover import select_pipelines
from streams.kafka.topics import apply_topics
from streams.local.stack import Stack
from tests.integration.kafka_helpers import admin_of, delete_topics
from tests.integration.test_exactly_once import RECORDS_PER_S, SEED, wait_for_progress
from tests.integration.test_rejects import Encoder
from tests.integration.workers import (
    NEVER_IDLE,
    PARTITIONS,
    Traffic,
    Worker,
    assert_exactly_once,
    fresh_world,
    read,
    rough_shape,
    wait_until,
    workers,
)

pytestmark = [pytest.mark.kafka, pytest.mark.native, pytest.mark.timeout(600)]

ON: Final = {**NEVER_IDLE, "STREAMS_NATIVE": "on"}
ENDS_S: Final = 15.0
"""A client that waits for a queue or a topic that is still held does not end at all."""


def terminated(worker: Worker) -> None:
    started_s = time.monotonic()
    assert worker.terminate() == 0, worker.printed()[-4000:]
    assert time.monotonic() - started_s < ENDS_S


@pytest.mark.parametrize(("mode", "other"), [("on", "off"), ("off", "on")])
def test_killed_while_it_works_and_in_a_cycle_it_loses_and_doubles_nothing(
    stack: Stack, tmp_path: Path, mode: str, other: str
) -> None:
    chosen = {**NEVER_IDLE, "STREAMS_NATIVE": mode}
    probe = fresh_world(stack)
    with workers(stack, tmp_path, "a") as (worker,):
        with Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=RECORDS_PER_S):
            worker.start(chosen).wait_ready()
            assert worker.said("natively: streams_native" if mode == "on" else "in Python: STREAMS_NATIVE=off")
            wait_for_progress(probe)
            worker.kill()
            worker.start({**chosen, "STREAMS_FAILPOINT": "produced:3"})
            assert worker.wait_ended() == -signal.SIGKILL, worker.printed()[-4000:]
            worker.start(chosen).wait_ready()
            wait_for_progress(probe)
        terminated(worker)
        # What one has written the other reads: journal and store are the same.
        worker.start({"STREAMS_NATIVE": other}).wait_ready()
        report = assert_exactly_once(stack, probe, worker, seed=SEED)
    assert min(report.duplicates, report.late, report.rejected) > 0


def sent(stack: Stack, encoder: Encoder) -> list[bytes]:
    """New events of a few devices, given to the source as it is now."""
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "partitioner": "murmur2_random"})
    values = []
    for number in range(60):
        values.append(encoder.framed(device_id=f"car-{number % 12}"))
        producer.produce(GPS.source, values[-1], b"car-%d" % (number % 12))
    assert producer.flush(60) == 0
    return values


@pytest.mark.parametrize("mode", ["on", pytest.param("off", marks=pytest.mark.slow)])
def test_a_source_that_is_created_again_under_it_is_read_from_its_first_record(
    stack: Stack, tmp_path: Path, mode: str
) -> None:
    fresh_world(stack)
    encoder = Encoder(stack)
    with workers(stack, tmp_path, "a") as (worker,):
        worker.start({"STREAMS_NATIVE": mode}).wait_ready()
        all_sent = sent(stack, encoder)
        came_out(stack, all_sent)
        delete_topics(admin_of(stack), {GPS.source})
        apply_topics(admin_of(stack), select_pipelines([GPS.name]), partitions=PARTITIONS)
        all_sent += sent(stack, encoder)
        came_out(stack, all_sent)
        assert worker.said("the source topic was deleted and created again")
        terminated(worker)


def came_out(stack: Stack, values: list[bytes]) -> None:
    """Wait until each has come out, and see that none has twice."""

    def found() -> list[bytes]:
        return [message.value() or b"" for topic in (GPS.clean, GPS.late) for message in read(stack, topic)]

    wait_until(lambda: set(values) <= set(found()), f"{len(values)} events come out", timeout_s=90)
    assert sorted(found()) == sorted(values)


@pytest.mark.slow
def test_joined_and_fenced_it_loses_and_doubles_nothing(stack: Stack, tmp_path: Path) -> None:
    probe = fresh_world(stack)
    with workers(stack, tmp_path, "a", "b", "c") as (first, second, double):
        with Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=RECORDS_PER_S):
            first.start(ON).wait_ready()
            second.start(ON).wait_ready()
            wait_for_progress(probe)
            terminated(second)
            double.data_dir.mkdir(parents=True)
            (double.data_dir / "worker.id").write_text((first.data_dir / "worker.id").read_text())
            double.start(ON)
            assert 3 == first.wait_ended(120), first.printed()[-4000:]
            wait_for_progress(probe, timeout_s=120)
        terminated(double)
        double.start({"STREAMS_NATIVE": "on"}).wait_ready()
        assert_exactly_once(stack, probe, double, seed=SEED)
