"""`streams worker --processes 2` on a real Kafka: one is killed, then the supervisor; nothing is lost or doubled."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from streams.kafka.partitioner import partition_of
from streams.local.stack import Stack
from tests.integration.tables import STATE, path_of
from tests.integration.test_exactly_once import wait_for_progress
from tests.integration.workers import (
    NEVER_IDLE,
    PARTITIONS,
    Traffic,
    Worker,
    assert_exactly_once,
    fresh_world,
    rough_shape,
    wait_until,
)

SEED = 20_261
TWO = ["--processes", "2"]
ENOUGH_MEMORY = {"STREAMS_MEMORY_MB_MAX": "1024"}


@pytest.fixture
def worker(stack: Stack, tmp_path: Path) -> Iterator[Worker]:
    """One that is not started, whose processes have identities that the group knows from earlier runs."""
    made = Worker(stack, tmp_path, "s")
    for number in (0, 1):
        directory = made.data_dir / str(number)
        directory.mkdir(parents=True)
        (directory / "worker.id").write_text(f"tests-s{number}")
    yield made
    if made.is_running:
        made.terminate()


def processes_of(worker: Worker) -> list[psutil.Process]:
    """The workers, in the order of their numbers."""
    found = psutil.Process(worker.pid).children()
    return sorted(found, key=lambda one: one.cmdline()[-1])


def text_of(worker: Worker, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def test_nothing_is_lost_or_doubled_when_a_process_or_the_supervisor_is_killed(stack: Stack, worker: Worker) -> None:
    probe = fresh_world(stack)
    with Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=2_000):
        worker.start({**NEVER_IDLE, **ENOUGH_MEMORY}, options=TWO).wait_ready()
        first, second = processes_of(worker)
        wait_for_progress(probe)

        [table] = [one for one in json.loads(text_of(worker, "/tables"))["tables"] if one["table"] == STATE]
        assert len(table["partitions_here"]) < PARTITIONS, "one of the processes answers"
        rows = wait_until(lambda: json.loads(text_of(worker, f"/tables/{STATE}?limit=1000"))["rows"], "there are rows")
        assert {0, 1, 2} == {partition_of(row["key"].encode(), PARTITIONS) for row in rows}, "of all of them"
        assert rows[0]["key"] == json.loads(text_of(worker, path_of(rows[0]["key"])))["key"]

        second.kill()
        wait_until(lambda: worker.said("started again"), "the supervisor says that one has ended")
        worker.wait_ready()
        assert first in processes_of(worker), "the other one goes on"
        wait_for_progress(probe)

        metrics = text_of(worker, "/metrics")
        assert 'streams_worker_process_restarts_total{process="1"} 1.0' in metrics
        assert 'streams_worker_process_up{process="1"} 1.0' in metrics
        for number in (0, 1):
            assert f'streams_events_total{{outcome="clean",pipeline="gps",process="{number}"}}' in metrics
        assert worker.said('"process": 0')
        assert worker.said('"process": 1')

        orphans = processes_of(worker)
        worker.kill()
        _, alive = psutil.wait_procs(orphans, timeout=30)
        assert not alive, "no process outlives its supervisor"

    worker.start(ENOUGH_MEMORY, options=TWO).wait_ready()
    assert_exactly_once(stack, probe, worker, seed=SEED)
    children = processes_of(worker)
    assert 0 == worker.terminate(), worker.printed()[-4000:]
    assert not any(one.is_running() for one in children)


@pytest.mark.slow  # in short: `tests/unit/test_supervisor.py`, what an end means
def test_a_fenced_process_ends_all(stack: Stack, worker: Worker) -> None:
    fresh_world(stack)
    worker.start({**NEVER_IDLE, **ENOUGH_MEMORY}, options=TWO).wait_ready()
    other = Worker(stack, worker.data_dir.parent, "other")
    other.data_dir.mkdir()
    (other.data_dir / "worker.id").write_text("tests-s1")
    try:
        other.start(NEVER_IDLE)
        assert 3 == worker.wait_ended(), worker.printed()[-4000:]
    finally:
        if other.is_running:
            other.terminate()
    assert worker.said("fenced")


def test_missing_topics_are_said_and_end_all(stack: Stack, worker: Worker) -> None:
    worker.start({**ENOUGH_MEMORY, "STREAMS_TOPIC_PREFIX": "nowhere."}, options=TWO)

    assert 1 == worker.wait_ended(), worker.printed()[-4000:]
    assert worker.said("topics are missing")
    assert worker.said("streams: process ")
