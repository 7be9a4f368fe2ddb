"""A worker that hangs ends itself and says where; one that waits for something that is away does not."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from streams.local.stack import Stack
from tests.integration.test_exactly_once import wait_for_progress
from tests.integration.workers import (
    NEVER_IDLE,
    Traffic,
    Worker,
    assert_exactly_once,
    end_of_run,
    fresh_world,
    rough_shape,
    wait_until,
    workers,
)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

SEED = int(os.environ.get("SEED", "1"))
STALL_S = 8
PATIENT_S = 40
WATCHED = {**NEVER_IDLE, "STREAMS_STALL_S": str(STALL_S)}


@pytest.fixture
def worker(stack: Stack, tmp_path: Path) -> Iterator[Worker]:
    with workers(stack, tmp_path, "a") as (made,):
        yield made


@pytest.mark.parametrize(
    ("step", "thread"),
    [("produced", "gps-engine"), pytest.param("offsets_sent", "gps-commit", marks=pytest.mark.slow)],
)
def test_a_worker_that_hangs_dumps_its_stacks_and_ends(stack: Stack, worker: Worker, step: str, thread: str) -> None:
    probe = fresh_world(stack)
    with Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=500):
        worker.start({**WATCHED, "STREAMS_FAILPOINT": f"hang:{step}:2"})
        assert 1 == worker.wait_ended(120), worker.printed()[-4000:]
        assert worker.said("failpoint reached: this thread hangs")
        assert worker.said("streams: stalled: no progress for")
        assert any("waits_for" in line for line in worker.said('"stalled"'))
        stacks = worker.said("stack of what hangs or waits")
        assert any(f"thread {thread}" in line and "failpoint.py" in line for line in stacks), stacks
        assert any('"task ' in line and "in intake_loop" in line for line in stacks), stacks
        worker.start(NEVER_IDLE).wait_ready()
        wait_for_progress(probe)
    end_of_run(worker)
    assert_exactly_once(stack, probe, worker, seed=SEED)


@pytest.mark.slow
def test_an_idle_worker_and_one_whose_broker_is_frozen_are_left_alone(stack: Stack, worker: Worker) -> None:
    probe = fresh_world(stack)
    with Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=1_000):
        # A call to a broker that has just come back may take its 15 s before it is tried again.
        worker.start({**NEVER_IDLE, "STREAMS_STALL_S": str(PATIENT_S)}).wait_ready()
        wait_for_progress(probe)
    wait_until(probe.all_is_committed, "it has come to the end")
    with Traffic(stack, rough_shape(stack), seed=SEED + 1, records_per_s=1_000):
        broker = psutil.Process(stack.kafka_pid)
        broker.send_signal(signal.SIGSTOP)
        frozen_at = time.monotonic()
        try:
            wait_until(lambda: time.monotonic() - frozen_at > 1.2 * PATIENT_S, "it was frozen for long enough")
        finally:
            broker.send_signal(signal.SIGCONT)
        assert worker.is_running, worker.printed()[-4000:]
        wait_for_progress(probe, timeout_s=120)
    assert worker.is_running
    assert not worker.said("stalled")
