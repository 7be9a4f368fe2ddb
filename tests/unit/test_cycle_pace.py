"""When a commit cycle ends, and when a worker has nothing to do. Without Kafka."""

import random
from dataclasses import replace

import pytest

from logistics.flows.gps import GPS
from streams.kafka.memory import MemoryKafka
from streams.limits import BATCH_WAIT_MS
from streams.settings import Settings
from tests.simulation.traffic import SCHEMA_ID, fill
from tests.simulation.worker import _PLAN, INTERVAL_MS, SimulatedWorker


@pytest.fixture
def worker() -> SimulatedWorker:
    kafka = MemoryKafka(1)
    fill(kafka, GPS.source, random.Random(1), events=60, devices=3, lateness_ms=0)
    made = SimulatedWorker(
        "w", kafka, random.Random(5), lateness_ms=0, horizon_ms=20_000, batch_records_max=10, faults=False
    )
    made.assign(0)
    made.between_steps.run()
    made.stores.go_on(to_the_end=True)
    made.engine.learn({SCHEMA_ID: _PLAN})
    return made


def gathered(worker: SimulatedWorker, waited_ms: int) -> None:
    """A step through a micro-batch whose records were gathered for so long."""
    while (records := worker.intake.poll()) is None:
        """At times it gives nothing although there is something."""
    polled = worker._batch(records, {})
    worker.core.step(replace(polled, batch=replace(polled.batch, waited_ms=waited_ms)))


def cycles(worker: SimulatedWorker) -> int:
    return worker.engine.tasks[0].cycle_closed


def test_the_default_cycle_ends_with_the_one_micro_batch_that_was_gathered_for_it(worker: SimulatedWorker) -> None:
    interval_ms = Settings().streams_commit_interval_ms
    worker.core.cycle._limits = replace(worker.core.cycle._limits, interval_ms=interval_ms, bytes_max=1 << 40)
    for number in (1, 2):
        gathered(worker, BATCH_WAIT_MS)
        assert cycles(worker) == number


def test_a_cycle_that_is_longer_ends_with_the_micro_batch_that_is_nearest_to_its_time(worker: SimulatedWorker) -> None:
    worker.core.cycle._limits = replace(worker.core.cycle._limits, interval_ms=1_000, bytes_max=1 << 40)
    for number in range(1, 7):
        assert cycles(worker) == 0
        gathered(worker, BATCH_WAIT_MS)
        worker.clock.passed_s += BATCH_WAIT_MS / 1000
        assert cycles(worker) == (number == 6), "at 1,080 ms, not at 900"


def is_at_rest(worker: SimulatedWorker) -> bool:
    return worker.core.is_at_rest


def test_a_worker_is_at_rest_only_once_nothing_is_open_or_in_flight(worker: SimulatedWorker) -> None:
    def step() -> None:
        worker.core.step(worker._batch(None, {}))

    step()
    assert is_at_rest(worker)
    gathered(worker, 0)
    assert not is_at_rest(worker), "a cycle is open"
    worker.clock.passed_s += 2 * INTERVAL_MS / 1000
    step()
    assert cycles(worker) == 1
    worker.commits.run()
    step()
    assert is_at_rest(worker)
    for _ in range(3):
        worker.clock.passed_s += 2 * INTERVAL_MS / 1000
        step()
    assert (cycles(worker), worker.core.is_at_rest) == (1, True), "nothing comes of empty micro-batches"


def test_a_worker_whose_partition_is_being_restored_is_not_at_rest(worker: SimulatedWorker) -> None:
    worker.core.ownership.reload(after_s=0.0)
    worker.core.step(worker._batch(None, {}))
    assert not is_at_rest(worker)
