"""Stores of owned partitions, and the restore of their tasks: waits out what passes, says aloud what does not."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import structlog
from confluent_kafka import KafkaException

from streams.engine.log import Changelog
from streams.engine.restore import RestoreFailed, restore_partition
from streams.engine.task import PartitionTask, TaskConfig
from streams.errors import StreamsError
from streams.limits import RESTORES_MAX
from streams.monitor.metrics import WorkerMetrics
from streams.retry import Backoff, Retrier
from streams.runtime.owner import DataDirectory
from streams.settings import Settings
from streams.state.rocks import RocksMemory, RocksStore, open_or_quarantine, quarantine
from streams.state.store import Store, StoreCorrupted, StoreUnavailable

log = structlog.get_logger(__name__)

_BACKOFF: Final = Backoff(first_s=0.5, pause_s_max=30.0)
_BYTES_PER_ID: Final = 120
_IDS_SHARE: Final = 0.2
"""Of a pipeline's memory, for ids while they are restored."""


class Restorer:
    """Opens, restores, flushes and releases the partitions of one pipeline."""

    def __init__(
        self,
        config: TaskConfig,
        directory: DataDirectory,
        memory: RocksMemory,
        settings: Settings,
        metrics: WorkerMetrics,
        *,
        retrier: Retrier,
        on_progress: Callable[[], object],
    ) -> None:
        self._config = config
        self._retrier = retrier
        self._on_progress = on_progress
        self._directory = directory
        self._memory = memory
        self._metrics = metrics
        self._ids_max = int(settings.streams_memory_mb_max * (1 << 20) * _IDS_SHARE / _BYTES_PER_ID / RESTORES_MAX)
        self._stores: dict[int, RocksStore] = {}
        self._thread = ThreadPoolExecutor(1, f"{config.pipeline.name}-restore")
        self.stuck: dict[int, str] = {}
        """Why partitions cannot be restored, by partition."""

    async def restore(self, partition: int, changelog: Changelog, wanted: Callable[[], bool]) -> PartitionTask | None:
        """Task that stands at the committed offset; None when it is no longer wanted. Tries until it can be had."""

        def passing(error: BaseException) -> bool:
            if not wanted() or not isinstance(error, (StreamsError, StoreUnavailable, KafkaException)):
                return False
            self.stuck[partition] = f"{self._config.pipeline.source}-{partition} is not restored: {error}"
            if isinstance(error, RestoreFailed):
                log.error("state cannot be restored", partition=partition, error=str(error))
            return True

        try:
            return await self._retrier.call_async(
                f"partition not restored: {self._config.pipeline.source}-{partition}",
                lambda: self._attempt(partition, changelog, wanted),
                passing=passing,
                backoff=_BACKOFF,
            )
        except (StreamsError, StoreUnavailable, KafkaException) as error:
            log.debug("restore is no longer wanted", partition=partition, error=str(error))
            return None
        finally:
            self.stuck.pop(partition, None)

    async def _attempt(self, partition: int, changelog: Changelog, wanted: Callable[[], bool]) -> PartitionTask | None:
        loop = asyncio.get_running_loop()
        while wanted():
            try:
                return await loop.run_in_executor(self._thread, self._restore, partition, changelog, wanted)
            except StoreCorrupted as error:
                await asyncio.to_thread(self._quarantine, partition, error)
        return None

    async def release(self, partition: int, task: PartitionTask | None) -> None:
        """Close the partition's store; with its task, everything in memory is moved there first."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._release, partition, task)

    def _release(self, partition: int, task: PartitionTask | None) -> None:
        self.stuck.pop(partition, None)
        store = self._stores.pop(partition, None)
        if store is None:
            return
        try:
            if task is not None:
                task.park()
            else:
                store.close()
        except StoreUnavailable as error:
            log.warning("state not saved; the journal has it", partition=partition, error=str(error))
            # Else it would keep its lock, and the partition could not be opened here again. A close that failed in its
            # flush has closed it already, and that is all that a second one can complain about.
            with contextlib.suppress(Exception):
                store.abandon()

    def flush(self, metrics: WorkerMetrics) -> None:
        """Checkpoint: bound what a crash would have to replay."""
        for store in self._stores.values():
            store.flush()
        metrics.state_bytes.labels("rocksdb").set(sum(store.bytes_used() for store in self._stores.values()))

    async def close(self) -> None:
        """Release whatever is still open."""
        for partition in list(self._stores):
            await self.release(partition, None)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _restore(self, partition: int, changelog: Changelog, wanted: Callable[[], bool]) -> PartitionTask:
        def on_rows(records: int, rows: int) -> None:
            self._metrics.restore_records.inc(records)
            self._metrics.restore_rows.inc(rows)
            self._on_progress()
            if not wanted():
                raise StreamsError("no longer ours")

        store: Store | None = self._stores.get(partition)
        if store is None:
            path = self._store_path(partition)
            store = self._stores[partition] = open_or_quarantine(path, self._memory)
        started = time.perf_counter()
        try:
            task = restore_partition(
                self._config, partition, store, changelog, ids_in_memory_max=self._ids_max, on_rows=on_rows
            )
        finally:
            self._metrics.restore_seconds.inc(time.perf_counter() - started)
        log.info(
            "restored", topic=self._config.pipeline.source, partition=partition, offset=task.offset_next,
            cycle=task.marker.cycle, ids=task.ids_in_memory, held=len(task.held),
        )  # fmt: skip
        return task

    def _store_path(self, partition: int) -> Path:
        pipeline = self._config.pipeline
        return self._directory.store_path(pipeline.prefix + pipeline.name, partition)

    def _quarantine(self, partition: int, error: StoreCorrupted) -> None:
        store = self._stores.pop(partition, None)
        if store is not None:
            store.close()
        quarantine(self._store_path(partition), str(error))
