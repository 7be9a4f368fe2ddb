"""More comes than the worker, or its broker, can take: memory stays bounded, and nothing is dropped."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psutil
import pytest

from loadtest.fleet import Fleet
from loadtest.fleet.fill import Filler
from logistics.flows.gps import GPS
from streams.local.stack import Stack
from tests.integration.workers import (
    FROM_NOTHING,
    NEVER_IDLE,
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
MEMORY_MB_MAX = 768
TIGHT = {**NEVER_IDLE, "STREAMS_MEMORY_MB_MAX": str(MEMORY_MB_MAX)}


class Memory:
    """Largest resident size of a process, sampled twenty times a second."""

    def __init__(self, pid: int) -> None:
        self.mb_max = 0.0
        self._process = psutil.Process(pid)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ends.wait(0.05):
            try:
                self.mb_max = max(self.mb_max, self._process.memory_info().rss / (1 << 20))
            except psutil.NoSuchProcess:
                return


@contextmanager
def slowed(pid: int, *, frozen_s: float, running_s: float) -> Iterator[None]:
    """Freeze a process again and again: it gets a fraction of its time, and answers in bursts."""
    process, ends = psutil.Process(pid), threading.Event()

    def run() -> None:
        while not ends.wait(running_s):
            process.suspend()
            ends.wait(frozen_s)
            process.resume()

    thread = threading.Thread(target=run, name="slowed")
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
        process.resume()


def fill(stack: Stack, records: int) -> None:
    filler = Filler(stack.bootstrap_servers)
    for batch in Fleet(SEED, rough_shape(stack)).batches(records):
        filler.send(GPS.source, batch)
    filler.flush()


def drain(stack: Stack, directory: Path, records: int, failpoint: str, *, slow_broker: bool) -> None:
    probe = fresh_world(stack)
    fill(stack, records)
    with workers(stack, directory, "a") as (worker,):
        worker.program = FROM_NOTHING
        worker.start({**TIGHT, "STREAMS_FAILPOINT": failpoint} if failpoint else TIGHT)
        with Memory(worker.pid) as memory:
            worker.wait_ready(timeout_s=120)
            if slow_broker:
                assert stack.kafka_pid is not None
                with slowed(stack.kafka_pid, frozen_s=0.4, running_s=0.1):
                    came_to_its_end(probe.all_is_committed, worker)
            else:
                came_to_its_end(probe.all_is_committed, worker)
        assert memory.mb_max < MEMORY_MB_MAX, f"{memory.mb_max:.0f} MB"
        end_of_run(worker)
        report = assert_exactly_once(stack, probe, worker, seed=SEED, about=f"{memory.mb_max:.0f} MB")
    assert records == report.events


def came_to_its_end(all_is_committed: Callable[[], bool], worker: Worker) -> None:
    def done() -> bool:
        assert worker.is_running, worker.printed()[-4000:]
        return all_is_committed()

    wait_until(done, "all is committed", timeout_s=240)


@pytest.mark.slow
def test_a_slow_agent_takes_no_more_memory_and_drops_nothing(stack: Stack, tmp_path: Path) -> None:
    drain(stack, tmp_path, 300_000, "slow:produced:300", slow_broker=False)


@pytest.mark.slow
def test_a_slow_broker_takes_no_more_memory_and_drops_nothing(stack: Stack, tmp_path: Path) -> None:
    drain(stack, tmp_path, 150_000, "", slow_broker=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_much_slower_agent_takes_no_more_memory_and_drops_nothing(stack: Stack, tmp_path: Path) -> None:
    """Slower than the time after which intake polls on with all partitions paused."""
    drain(stack, tmp_path, 1_000_000, "slow:produced:3000", slow_broker=False)
