"""Partitions that go and come back while the worker is busy; stores that cannot be saved. Without Kafka."""

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from logistics.flows.gps import GPS
from streams.engine.config import TaskConfig
from streams.flow.bounds import Bounds
from streams.kafka.changelog import ChangelogReaders
from streams.kafka.memory import MemoryKafka
from streams.kafka.partitioner import partitions_of
from streams.resilience.retry import Retrier
from streams.settings import Settings
from streams.sources.base import Idle
from streams.state.identity import Places
from streams.state.rocks import RocksMemory, RocksStore
from streams.state.store import StoreUnavailable, WriteBatch
from streams.state.write_behind import WriteBehindStore
from streams.worker import core_thread as module
from streams.worker.background import BackgroundRestores, SchemaLookups
from streams.worker.core_thread import CoreThread
from streams.worker.metrics import WorkerMetrics
from streams.worker.owner import DataDirectory
from streams.worker.ports import Attempt
from streams.worker.restorer import Restorer
from tests.simulation.traffic import fill
from tests.simulation.worker import SimulatedWorker


def worker_of(kafka: MemoryKafka, *, batch_records_max: int = 10) -> SimulatedWorker:
    """The core of a worker over twins of what surrounds it; nothing goes wrong by chance."""
    return SimulatedWorker(
        "w",
        kafka,
        random.Random(5),
        lateness_ms=0,
        horizon_ms=20_000,
        batch_records_max=batch_records_max,
        faults=False,
    )


def kafka_with(events: int) -> MemoryKafka:
    kafka = MemoryKafka(1)
    fill(kafka, GPS.source, random.Random(1), events=events, devices=3, lateness_ms=0)
    return kafka


def aborts(worker: SimulatedWorker, reason: str) -> float:
    return worker._metrics.registry.get_sample_value("streams_aborts_total", {"reason": reason}) or 0.0


def carry_out(worker: SimulatedWorker) -> None:
    worker.between_steps.run()
    worker.stores.go_on(to_the_end=True)


def worker_with(kafka: MemoryKafka) -> SimulatedWorker:
    """A worker that consumes partition 0."""
    worker = worker_of(kafka)
    worker.assign(0)
    carry_out(worker)
    return worker


def worker_in_a_cycle(kafka: MemoryKafka) -> SimulatedWorker:
    """A worker with an open cycle that has effects of partition 0."""
    worker = worker_with(kafka)
    worker.poll()
    worker.process()
    return worker


@contextmanager
def during_a_step(worker: SimulatedWorker) -> Iterator[None]:
    """What happens meanwhile happens while a step is under way that takes longer than a revocation may."""
    worker._is_busy = True
    yield
    worker._is_busy = False


def assert_caught_up(worker: SimulatedWorker, kafka: MemoryKafka) -> None:
    worker.catch_up()
    assert len(kafka.log(GPS.source, 0)) == kafka.group[0].offset_next


def test_a_partition_that_comes_back_while_its_release_still_waits_stays_ours() -> None:
    worker = worker_of(kafka_with(20))
    worker.assign(0)
    with during_a_step(worker):
        worker.core.listener.revoked([0])
        worker.core.listener.assigned([0])
        assert frozenset() == worker.core.ownership.owned, "what it is to restore is still in use"
    carry_out(worker)
    assert {0} == worker.core.ownership.owned
    assert {0} == worker.engine.tasks.keys()


@pytest.mark.parametrize("how", ["revoked", "lost"])
def test_what_a_partition_contributed_is_not_committed_after_its_term(how: str) -> None:
    """The release has no time, the partition comes back at once, and a cycle with effects of before is open."""
    kafka = kafka_with(20)
    worker = worker_in_a_cycle(kafka)
    with during_a_step(worker):
        getattr(worker.core.listener, how)([0])
        kafka.generation += 1
        worker.note()
        worker.core.listener.assigned([0])
    worker.clock.passed_s += 1
    worker.core.step(worker._batch(None, {}))  # it was about to begin
    worker.commits.run()
    carry_out(worker)
    assert {} == kafka.group
    assert 1 <= aborts(worker, "partitions_lost")
    assert_caught_up(worker, kafka)


def test_a_release_that_is_too_slow_commits_nothing_of_what_others_have_by_then() -> None:
    kafka = kafka_with(20)
    worker = worker_in_a_cycle(kafka)
    with during_a_step(worker):
        worker.core.listener.revoked([0])  # its time is up
    kafka.give(0, "other")
    worker.note()
    worker.between_steps.run()
    assert {} == kafka.group
    assert 1 == aborts(worker, "partitions_lost")


def test_batches_that_were_polled_before_a_partition_went_are_void_when_it_comes_back() -> None:
    """The first of them is dropped while the partition is away: those after it must not be processed either."""
    kafka = kafka_with(30)
    worker = worker_with(kafka)
    for _ in range(3):
        worker.intake._batch_records_max = 5
        worker.poll(dict.fromkeys(worker.position, Idle(0, 10**12)))
    before = [worker.channel.get() for _ in range(3)]
    assert all(polled.batch.records is not None for polled in before)
    worker.revoke(0)
    worker.assign(0)
    worker.core.step(before[0])
    carry_out(worker)
    for polled in before[1:]:
        worker.core.step(polled)
    assert -1 == worker.engine.tasks[0].offset_next
    assert_caught_up(worker, kafka)


def test_a_disk_that_refuses_the_truncation_aborts_the_cycle_and_not_the_worker(monkeypatch: Any) -> None:
    worker = worker_of(kafka_with(20))
    worker.assign(0)
    worker.catch_up()

    def refuse() -> int:
        raise StoreUnavailable("No space left on device")

    monkeypatch.setattr(worker.engine.tasks[0].maintenance, "truncate_journal_before", refuse, raising=False)
    worker.clock.passed_s += 3600
    worker.process()
    assert 1 == aborts(worker, "state_disk")
    worker.catch_up()
    assert {0} == worker.engine.tasks.keys()


def test_a_restore_that_was_voided_is_not_installed() -> None:
    worker = worker_of(kafka_with(20))
    worker.assign(0)
    worker.between_steps.run()
    [attempt] = worker.stores._begun
    restored = worker.stores._restored(0)
    worker.core.ownership.reload(after_s=0.0)
    assert not attempt.is_wanted()
    attempt.install(restored)
    assert {} == worker.engine.tasks
    worker.stores.go_on(to_the_end=True)
    assert {0} == worker.engine.tasks.keys()


def test_calls_of_a_core_are_made_one_at_a_time_in_the_order_in_which_they_came(monkeypatch: Any) -> None:
    """From the event loop and from another thread; one that is bounded is waited for no longer than that."""
    monkeypatch.setattr(module, "REVOKE_TIMEOUT_MS", 100)
    made: list[str] = []
    go_on = threading.Event()

    async def story() -> None:
        failures: list[BaseException] = []
        thread = CoreThread("test", on_failure=failures.append)

        def step() -> None:
            go_on.wait(10)
            made.append("step")

        def fails() -> None:
            raise IndexError("a bug")

        stepping = asyncio.create_task(thread.run(step))
        await asyncio.sleep(0)
        await asyncio.to_thread(thread.bounded, lambda: made.append("release"), "release")
        assert thread.step_lock.locked()
        await asyncio.to_thread(thread.later, lambda: made.append("take"))
        await asyncio.sleep(0)
        following = asyncio.create_task(thread.run(lambda: made.append("next step")))
        await asyncio.sleep(0)
        assert [] == made
        go_on.set()
        await asyncio.gather(stepping, following)
        assert ["step", "release", "take", "next step"] == made
        thread.later(fails)
        await thread.run(lambda: None)
        await asyncio.sleep(0.05)
        assert [IndexError] == [type(error) for error in failures]
        thread.close()

    asyncio.run(story())


def test_a_step_whose_agent_was_cancelled_is_over_before_the_next_call_begins() -> None:
    made: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        go_on.wait(10)
        made.append("step")

    async def story() -> None:
        thread = CoreThread("test", on_failure=lambda _: None)
        stepping = asyncio.create_task(thread.run(step))
        await asyncio.to_thread(begun.wait)
        stepping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stepping
        release = asyncio.create_task(thread.run(lambda: made.append("release")))
        await asyncio.sleep(0.05)
        assert [] == made
        go_on.set()
        await release
        assert ["step", "release"] == made
        thread.close()

    asyncio.run(story())


def test_an_unexpected_error_of_a_schema_look_up_or_a_restore_ends_the_worker() -> None:
    async def story() -> None:
        failures: list[BaseException] = []

        async def fails(*_: object) -> None:
            raise ZeroDivisionError("a bug")

        thread = CoreThread("test", on_failure=failures.append)
        stub: Any = SimpleNamespace(resolve=fails, restore=fails, missing_of=lambda _: frozenset({1}))
        with pytest.raises(ZeroDivisionError):
            await SchemaLookups(stub, stub, thread, on_failure=failures.append).look_up(frozenset({1}))
        restores = BackgroundRestores(stub, thread, on_failure=failures.append)
        with pytest.raises(ZeroDivisionError):
            await restores._restore(Attempt(0, lambda: True, lambda _: None), 0.0)
        assert [ZeroDivisionError] * 2 == [type(error) for error in failures]
        thread.close()

    asyncio.run(story())


class _Unsaved:
    """A task whose disk is full."""

    @property
    def maintenance(self) -> "_Unsaved":
        return self

    def park(self) -> None:
        raise StoreUnavailable("No space left on device")


def test_a_store_that_cannot_be_saved_is_closed_all_the_same(tmp_path: Path) -> None:
    memory = RocksMemory(cache_bytes=1 << 20, memtable_bytes=1 << 20)
    directory = DataDirectory(tmp_path)
    config = TaskConfig(
        replace(GPS, bounds=Bounds(0, 1_000, quarantine_rejects=0)),
        lambda _: nullcontext(),
        partial(partitions_of, partitions=1),
    )
    settings, retrier = Settings(kafka_bootstrap_servers="127.0.0.1:1"), Retrier()
    readers = ChangelogReaders(settings, group=GPS.group, source=GPS.source, retrier=retrier)
    restorer = Restorer(
        config,
        directory,
        memory,
        settings,
        WorkerMetrics(),
        places=Places,
        layouts=lambda: None,
        retrier=retrier,
        readers=readers,
        on_progress=lambda: None,
    )
    path = directory.store_path(GPS.name, 0)
    path.parent.mkdir(parents=True)
    restorer._stores[0] = WriteBehindStore(RocksStore(path, memory), memory.gathered)
    task: Any = _Unsaved()
    restorer.release(0, task)
    again = RocksStore(path, memory)  # its lock is free
    again.write(WriteBatch())
    again.close()
