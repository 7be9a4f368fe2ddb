"""Opens stores of owned partitions and restores their tasks; retries transient errors and reports the others."""

import asyncio
import contextlib
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import structlog
from confluent_kafka import KafkaException

from streams.clock import SystemTime
from streams.engine.config import TaskConfig
from streams.engine.journal_chain import RestoreFailed
from streams.engine.restore import read_checkpoint, restore_partition
from streams.engine.task import PartitionTask
from streams.errors import StreamsError
from streams.growth.layouts import Layouts
from streams.kafka.changelog import ChangelogReaders, Unsettled
from streams.limits import RESTORE_WAIT_MS_MAX, RESTORES_MAX, STORE_NOTE_MS_MAX
from streams.resilience.retry import Backoff, Retrier
from streams.settings import Settings
from streams.state.complete import age_ms, note_complete
from streams.state.disk import require_room
from streams.state.identity import Places
from streams.state.rocks import RocksMemory, RocksStore, open_compared, open_or_quarantine, quarantine, set_aside
from streams.state.store import StoreCorrupted, StoreOutdated, StoreUnavailable
from streams.state.write_behind import WriteBehindStore
from streams.worker.busy_time import BusyTime
from streams.worker.metrics import WorkerMetrics
from streams.worker.owner import DataDirectory
from streams.worker.ports import Restored, TimeSource
from streams.worker.snapshot_restores import SnapshotRestores

log = structlog.get_logger(__name__)

T = TypeVar("T")
Wanted = Callable[[], bool]

_BACKOFF: Final = Backoff(first_s=0.5, pause_s_max=30.0)
_BYTES_PER_ID: Final = 120
_IDS_SHARE: Final = 0.2
"""Share of the memory setting for ids during restores, over all restores that run at once."""
_HELD_SHARE: Final = 0.1
"""Share of the memory setting for held events during restores, over all restores that run at once."""


class Restorer:
    """Opens, restores, flushes and releases the partitions of one flow.

    Up to `RESTORES_MAX` are restored side by side. One that has to wait, or fails, pauses without a place among them.
    """

    def __init__(
        self,
        config: TaskConfig,
        directory: DataDirectory,
        memory: RocksMemory,
        settings: Settings,
        metrics: WorkerMetrics,
        *,
        places: Callable[[], Places],
        retrier: Retrier,
        readers: ChangelogReaders,
        layouts: Callable[[], Layouts | None],
        on_progress: Callable[[], object],
        snapshots: SnapshotRestores | None = None,
        clock: TimeSource | None = None,
    ) -> None:
        """`places` says where the flow's topics are now, and `layouts` how it was grown (None: it was not).

        They may ask the broker, and raise StreamsError. A partition without local state begins with one of `snapshots`.
        """
        self._snapshots = snapshots
        self._wall_ms = (clock or SystemTime()).wall_ms
        self._find_layouts = layouts
        self._config = config
        self._find_places = places
        self._retrier = retrier
        self._on_progress = on_progress
        self._directory = directory
        self._memory = memory
        self._metrics = metrics
        self._busy = BusyTime(metrics.restore_seconds.inc)
        self._readers = readers
        bytes_each = (settings.streams_memory_mb_max << 20) / RESTORES_MAX
        self._ids_max = int(bytes_each * _IDS_SHARE / _BYTES_PER_ID)
        self._held_bytes_max = int(bytes_each * _HELD_SHARE)
        self._stores: dict[int, WriteBehindStore] = {}
        self._locks: dict[int, threading.Lock] = {}
        self._places = ThreadPoolExecutor(RESTORES_MAX, f"{config.pipeline.name}-restore")
        self._closing_thread = ThreadPoolExecutor(1, f"{config.pipeline.name}-closing")
        self._under_way = 0
        self._restored: dict[int, int] = {}
        """Partitions whose stores are open and were restored to the group's committed offset, and when they were known
        to have all that is committed."""
        self.stuck: dict[int, str] = {}
        """Why the restore of a partition fails, by partition."""

    @property
    def restored(self) -> frozenset[int]:
        """Partitions whose stores are open, and stand where the group has committed or follow it. Any thread."""
        return frozenset(list(self._restored))

    async def restore(self, partition: int, wanted: Wanted) -> Restored | None:
        """Restore a partition's task to the committed offset; None when it is no longer wanted.

        Retries until it succeeds.

        That includes a leader of the source partition: without one nothing could be consumed.
        """
        where = f"{self._config.pipeline.source}-{partition}"
        since = time.monotonic()
        task: PartitionTask | None = None

        async def attempt() -> Restored | None:
            nonlocal task
            task = task or await self._attempt(partition, wanted)
            if task is None:
                return None
            first, *further = await self._in_place(self._bounds, partition, wanted)
            return Restored(task, first, tuple(further))

        def passing(error: BaseException) -> bool:
            if not wanted() or not isinstance(error, (StreamsError, StoreUnavailable, KafkaException)):
                return False
            self.stuck[partition] = f"{where} is not restored: {error}"
            is_stuck = isinstance(error, RestoreFailed)
            if isinstance(error, Unsettled) and (time.monotonic() - since) * 1000 > RESTORE_WAIT_MS_MAX:
                error.retry_in_s = None
                is_stuck = True
            if is_stuck:
                log.error("state cannot be restored", partition=partition, error=str(error))
            return True

        self._under_way += 1
        try:
            return await self._retrier.call_async(
                f"partition not restored: {where}", attempt, passing=passing, backoff=_BACKOFF
            )
        except (StreamsError, StoreUnavailable, KafkaException) as error:
            log.debug("restore is no longer wanted", partition=partition, error=str(error))
            return None
        finally:
            self.stuck.pop(partition, None)
            self._under_way -= 1
            if not self._under_way:
                self._closing_thread.submit(self._readers.close_idle)

    async def _attempt(self, partition: int, wanted: Wanted) -> PartitionTask | None:
        while wanted():
            try:
                return await self._in_place(self._restore, partition, wanted)
            except StoreCorrupted as error:
                await asyncio.to_thread(self._quarantine, partition, error)
            except RestoreFailed as error:
                if not await asyncio.to_thread(self._gives_up_snapshot, partition, error):
                    raise
        return None

    async def _in_place(self, work: Callable[[int, Wanted], T], partition: int, wanted: Wanted) -> T:
        """Run a restore's work in one of the places; waits for a free place."""
        return await asyncio.get_running_loop().run_in_executor(self._places, work, partition, wanted)

    def release(self, partition: int, task: PartitionTask | None) -> None:
        """Close the partition's store; with its task, everything in memory is moved there first.

        Waits for a restore of this partition to end, which should be no longer wanted; for no other one.
        """
        with self._lock_of(partition):  # a restore that is no longer wanted ends soon
            self.stuck.pop(partition, None)
            self._restored.pop(partition, None)
            store = self._stores.pop(partition, None)
            if store is None:
                return
            try:
                if task is not None:
                    task.maintenance.park()
                else:
                    store.close()
            except StoreUnavailable as error:
                log.warning("state not saved; the journal has it", partition=partition, error=str(error))
                # Otherwise it would keep its lock, and the partition could not be opened here again. A close whose
                # flush failed has closed the store all the same; closing it a second time can only report that.
                with contextlib.suppress(Exception):
                    store.abandon()

    def flush(self) -> None:
        """Flush the stores: bounds what a crash would have to replay. Stores that are being restored are left out."""
        bytes_used = 0
        for partition in list(self._stores):
            lock = self._lock_of(partition)
            if lock.acquire(blocking=False):
                try:
                    store = self._stores.get(partition)
                    if store is not None:
                        known_ms = self._known_complete_ms(partition)
                        store.flush()
                        if known_ms is not None:
                            note_complete(store.path, known_ms)
                        bytes_used += store.bytes_used()
                finally:
                    lock.release()
        self._metrics.state_bytes.labels("rocksdb").set(bytes_used)

    def _known_complete_ms(self, partition: int) -> int | None:
        """When an owned store had all that was committed: now, but for a worker that was held up for long.

        That one may not know yet that others have had its partitions meanwhile.
        """
        known_ms, now_ms = self._restored.get(partition), self._wall_ms()
        if known_ms is not None and now_ms - known_ms <= STORE_NOTE_MS_MAX:
            known_ms = self._restored[partition] = now_ms
        return known_ms

    def _lock_of(self, partition: int) -> threading.Lock:
        """The lock to hold while opening, restoring or closing the store of a partition."""
        return self._locks.setdefault(partition, threading.Lock())

    def close(self) -> None:
        """Close all open stores."""
        for partition in list(self._stores):
            self.release(partition, None)
        self._closing_thread.submit(self._readers.close_idle)
        self._places.shutdown(wait=False, cancel_futures=True)
        self._closing_thread.shutdown(wait=False)

    def _restore(self, partition: int, wanted: Wanted) -> PartitionTask:
        def go_on() -> None:
            self._on_progress()
            if not wanted():
                raise StreamsError("the partition belongs to another worker now")

        def on_rows(records: int, rows: int) -> None:
            self._metrics.restore_records.inc(records)
            self._metrics.restore_rows.inc(rows)
            go_on()

        with self._lock_of(partition), self._readers.reader(wanted) as changelog:
            go_on()
            require_room(self.store_path(partition).parent)
            layouts, places = self._find_layouts(), self._find_places()
            changelog.require_settled(list(self._config.pipeline.changelogs), partition)
            store = self._stores.get(partition)
            if store is None:
                store = WriteBehindStore(self._opened(partition, places, go_on), self._memory.gathered)
                self._stores[partition] = store
            now_ms = self._wall_ms()
            if read_checkpoint(store) is None:
                note_complete(store.path, now_ms)  # it will have nothing that was read before
            store.on_scanned = go_on
            try:
                with self._busy.counted():
                    task = restore_partition(
                        self._config,
                        partition,
                        store,
                        changelog,
                        places=places,
                        ids_in_memory_max=self._ids_max,
                        held_bytes_max=self._held_bytes_max,
                        on_rows=on_rows,
                        layouts=layouts,
                        age_ms=age_ms(store.path, now_ms),
                    )
            finally:
                store.on_scanned = _nothing
            self._restored[partition] = self._wall_ms()
            if self._snapshots is not None:
                self._snapshots.accepted(partition)
        log.info(
            "restored", topic=self._config.pipeline.source, partition=partition, offset=task.offset_next,
            cycle=task.checkpoint.cycle, **task.in_memory(),
        )  # fmt: skip
        return task

    def _opened(self, partition: int, places: Places, go_on: Callable[[], object]) -> RocksStore:
        """The partition's store: the local one, else the newest usable snapshot, else an empty one."""
        path = self.store_path(partition)
        store = open_or_quarantine(path, self._memory, go_on)
        while self._snapshots is not None and not _has_state(store):
            store.close()
            is_brought = self._snapshots.bring(partition, path, places, go_on)
            open_brought = open_compared if is_brought else open_or_quarantine
            store = open_brought(path, self._memory, go_on)
            if not is_brought:
                break
            if not _has_state(store):
                self._snapshots.refuse(partition, "its store cannot be opened, or is empty")
        return store

    def checkpoint(self, partition: int, folder: Path) -> bool:
        """Make `folder` a copy of a restored partition's store by hard links; False: not now, others work on it.

        Raises:
            StoreUnavailable: the disk refuses.

        """
        lock = self._lock_of(partition)
        if not lock.acquire(blocking=False):
            return False
        try:
            store = self._stores.get(partition)
            if store is None or partition not in self._restored:
                return False
            store.checkpoint(folder)
            return True
        finally:
            lock.release()

    def _bounds(self, partition: int, wanted: Wanted) -> list[tuple[int, int]]:
        """First offset and end of the partition in each input.

        Raises:
            StreamsError: no answer; it may have no leader.

        """
        with self._readers.reader(wanted) as reader:
            return [reader.bounds(one.topic, partition) for one in self._config.inputs]

    def _gives_up_snapshot(self, partition: int, error: RestoreFailed) -> bool:
        """Delete a store that was made from a snapshot, which may be damaged; False: it was not made from one."""
        with self._lock_of(partition):
            if self._snapshots is None or not self._snapshots.refuse(partition, str(error)):
                return False
            store = self._stores.pop(partition, None)
            if store is not None:
                store.abandon()
            shutil.rmtree(self.store_path(partition))
            return True

    def store_path(self, partition: int) -> Path:
        """Path of a partition's store."""
        pipeline = self._config.pipeline
        return self._directory.store_path(pipeline.prefix + pipeline.name, partition)

    def _quarantine(self, partition: int, error: StoreCorrupted) -> None:
        with self._lock_of(partition):
            self._restored.pop(partition, None)
            store = self._stores.pop(partition, None)
            if store is not None:
                store.close()
            move = set_aside if isinstance(error, StoreOutdated) else quarantine
            move(self.store_path(partition), str(error))
            if self._snapshots is not None:
                self._snapshots.refuse(partition, str(error))


def _has_state(store: RocksStore) -> bool:
    """Whether a store has a checkpoint; one that raises is closed first.

    Raises:
        StoreCorrupted: it has one that is none of ours.

    """
    try:
        return read_checkpoint(store) is not None
    except BaseException:
        store.abandon()
        raise


def _nothing() -> None:
    """Do nothing: scans of a store in use need no progress reports."""
