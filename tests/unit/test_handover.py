"""Partitions that go and come back while the worker is busy; stores that cannot be saved. Without Kafka."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from logistics.flows.gps import GPS
from streams.kafka.changelog import ChangelogReaders
from streams.resilience.breaker import Guard
from streams.resilience.retry import Retrier
from streams.settings import Settings
from streams.sinks.base import CycleAborted
from streams.state.identity import Identity, Places
from streams.state.rocks import RocksMemory, RocksStore
from streams.state.store import StoreUnavailable, WriteBatch
from streams.worker import pipeline as module
from streams.worker.budget import MemoryBudget
from streams.worker.failpoint import no_failpoint
from streams.worker.metrics import WorkerMetrics
from streams.worker.owner import DataDirectory
from streams.worker.pipeline import PipelineRunner
from streams.worker.restorer import Restorer


class _Runner(PipelineRunner):
    """A runner whose restores are only noted: there is no Kafka here."""

    def __init__(self, directory: Path) -> None:
        self.restores: list[int] = []
        self.failures: list[BaseException] = []
        super().__init__(
            GPS,
            Settings(kafka_bootstrap_servers="127.0.0.1:1"),
            DataDirectory(directory),
            RocksMemory(cache_bytes=1 << 20, memtable_bytes=1 << 20),
            WorkerMetrics(),
            partitions=3,
            budget=MemoryBudget(1 << 20, pipelines=1),
            pipelines=1,
            registry_guard=Guard("schema_registry"),
            failpoint=no_failpoint,
            on_failure=self.failures.append,
        )

    def _restore(self, partitions: Iterable[int]) -> None:
        self.restores += partitions


def test_a_partition_that_comes_back_while_its_release_still_waits_stays_ours(tmp_path: Path) -> None:
    async def story() -> None:
        runner = _Runner(tmp_path)
        runner._loop = asyncio.get_running_loop()
        await runner._take(runner._ownership.begin([0, 1]))
        async with runner._turn:  # a batch is being processed, and takes longer than a revocation may
            leaving = asyncio.create_task(runner._give([0]))
            await asyncio.sleep(0)
            coming = asyncio.create_task(runner._take(runner._ownership.begin([0])))
            await asyncio.sleep(0)
            assert not leaving.done()
            assert not coming.done(), "what it is to restore is still in use"
        await asyncio.gather(leaving, coming)
        assert {0, 1} == runner._owned.keys()
        assert all(map(runner._ownership.runs, runner._owned.values()))
        assert [0, 1, 0] == runner.restores

    asyncio.run(story())


def restorer_of(config: Any, directory: DataDirectory, memory: RocksMemory) -> Restorer:
    settings, retrier = Settings(kafka_bootstrap_servers="127.0.0.1:1"), Retrier()
    readers = ChangelogReaders(settings, group=GPS.group, source=GPS.source, retrier=retrier)
    return Restorer(
        config,
        directory,
        memory,
        settings,
        WorkerMetrics(),
        places=Places,
        retrier=retrier,
        readers=readers,
        on_progress=lambda: None,
    )


def test_what_a_partition_contributed_is_claimed_by_the_term_it_was_restored_in(tmp_path: Path) -> None:
    """The release times out, the partition comes back at once, and the effects of before are still to be committed."""

    async def story() -> None:
        runner = _Runner(tmp_path)
        runner._loop = asyncio.get_running_loop()
        runner._ownership.note("generation 1")
        await runner._take(runner._ownership.begin([0]))
        runner._terms[0] = runner._owned[0]
        runner._cycle.terms.add(runner._terms[0])
        async with runner._turn:
            await asyncio.to_thread(_in_time, runner, [0])
            runner.noted("generation 2")
            runner.assigned([0])
            await asyncio.sleep(0)
            with pytest.raises(CycleAborted, match="given away"):
                runner._ownership.claim(runner._cycle.terms)

    asyncio.run(story())


def _in_time(runner: _Runner, partitions: list[int]) -> None:
    """A revocation that ends because its time is up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "REVOKE_TIMEOUT_MS", 100)
        runner.revoked(partitions)


def test_a_lost_partition_cannot_be_claimed_although_its_release_has_to_wait(tmp_path: Path) -> None:
    async def story() -> None:
        runner = _Runner(tmp_path)
        runner._loop = asyncio.get_running_loop()
        runner._ownership.note("generation 1")
        await runner._take(runner._ownership.begin([0]))
        terms = set(runner._owned.values())
        async with runner._turn:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, "REVOKE_TIMEOUT_MS", 100)
                await asyncio.to_thread(runner.lost, [0])
            with pytest.raises(CycleAborted, match="given away"):
                runner._ownership.claim(terms)

    asyncio.run(story())


class _FullDisk:
    """A task whose store takes nothing: what `_maintain` asks of it."""

    partition = 0
    breakers = SimpleNamespace(open_keys=())
    identity = Identity()

    def bytes_used(self) -> int:
        return 0

    def close_cycle(self) -> None:
        return None

    def truncate_journal_before(self) -> int:
        raise StoreUnavailable("No space left on device")


def test_a_disk_that_refuses_the_truncation_aborts_the_cycle_and_not_the_worker(tmp_path: Path) -> None:
    async def story() -> None:
        runner = _Runner(tmp_path)
        runner._loop = asyncio.get_running_loop()
        task: Any = _FullDisk()
        runner.engine.install(task)
        runner._truncated_at -= 3600
        with pytest.raises(CycleAborted, match="No space left") as aborted:
            await runner._maintain()
        assert "state_disk" == aborted.value.reason

    asyncio.run(story())


def test_an_unexpected_error_of_a_schema_look_up_ends_the_worker(tmp_path: Path) -> None:
    async def story() -> None:
        runner = _Runner(tmp_path)
        runner._loop = asyncio.get_running_loop()

        async def resolve(*_: object) -> None:
            raise ZeroDivisionError("a bug")

        lookup: Any = runner._lookup
        lookup.resolve = resolve
        with pytest.raises(ZeroDivisionError):
            await runner._look_up(frozenset({1}))
        assert [ZeroDivisionError] == [type(error) for error in runner.failures]

    asyncio.run(story())


class _Unsaved:
    """A task whose disk is full."""

    def park(self) -> None:
        raise StoreUnavailable("No space left on device")


def test_a_store_that_cannot_be_saved_is_closed_all_the_same(tmp_path: Path) -> None:
    memory = RocksMemory(cache_bytes=1 << 20, memtable_bytes=1 << 20)
    directory = DataDirectory(tmp_path)
    config: Any = _Runner(tmp_path / "other").engine._config
    restorer = restorer_of(config, directory, memory)
    path = directory.store_path(GPS.name, 0)
    path.parent.mkdir(parents=True)
    restorer._stores[0] = RocksStore(path, memory)
    task: Any = _Unsaved()
    restorer._release(0, task)
    again = RocksStore(path, memory)  # its lock is free
    again.write(WriteBatch())
    again.close()
