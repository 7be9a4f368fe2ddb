"""Partitions that go and come back while the worker is busy; stores that cannot be saved. Without Kafka."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from streams.breaker import Guard
from streams.monitor.metrics import WorkerMetrics
from streams.pipelines.gps import GPS
from streams.retry import Retrier
from streams.runtime.budget import MemoryBudget
from streams.runtime.failpoint import no_failpoint
from streams.runtime.owner import DataDirectory
from streams.runtime.restorer import Restorer
from streams.runtime.runner import PipelineRunner
from streams.settings import Settings
from streams.state.rocks import RocksMemory, RocksStore
from streams.state.store import StoreUnavailable, WriteBatch


class _Runner(PipelineRunner):
    """A runner whose restores are only noted: there is no Kafka here."""

    def __init__(self, directory: Path) -> None:
        self.restores: list[int] = []
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
            on_failure=lambda _: None,
        )

    def _restore(self, partitions: Iterable[int]) -> None:
        self.restores += partitions


def test_a_partition_that_comes_back_while_its_release_still_waits_stays_ours(tmp_path: Path) -> None:
    async def story() -> None:
        runner = _Runner(tmp_path)
        runner._loop = asyncio.get_running_loop()
        await runner._take([0, 1])
        async with runner._turn:  # a batch is being processed, and takes longer than a revocation may
            leaving = asyncio.create_task(runner._give([0], None))
            await asyncio.sleep(0)
            coming = asyncio.create_task(runner._take([0]))
            await asyncio.sleep(0)
            assert not leaving.done()
            assert not coming.done(), "what it is to restore is still in use"
        await asyncio.gather(leaving, coming)
        assert {0, 1} == runner._owned
        assert [0, 1, 0] == runner.restores

    asyncio.run(story())


class _Unsaved:
    """A task whose disk is full."""

    def park(self) -> None:
        raise StoreUnavailable("No space left on device")


def test_a_store_that_cannot_be_saved_is_closed_all_the_same(tmp_path: Path) -> None:
    memory = RocksMemory(cache_bytes=1 << 20, memtable_bytes=1 << 20)
    directory = DataDirectory(tmp_path)
    config: Any = _Runner(tmp_path / "other").engine._config
    restorer = Restorer(
        config, directory, memory, Settings(), WorkerMetrics(), retrier=Retrier(), on_progress=lambda: None
    )
    path = directory.store_path(GPS.name, 0)
    path.parent.mkdir(parents=True)
    restorer._stores[0] = RocksStore(path, memory)
    task: Any = _Unsaved()
    restorer._release(0, task)
    again = RocksStore(path, memory)  # its lock is free
    again.write(WriteBatch())
    again.close()
