"""Takes snapshots of a flow's owned partitions while they are processed, in a thread of its own.

A store is as of a commit cycle at any moment, since a cycle's rows and its checkpoint are one write. So a snapshot asks
nothing of the engine: RocksDB's checkpoint (hard links) is made beside it, and uploaded from there.
"""

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from streams import __version__
from streams.engine.commit import Failpoint
from streams.engine.restore import read_checkpoint
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.resilience.retry import Backoff
from streams.settings import Settings
from streams.snapshots.manifest import manifest_of
from streams.snapshots.objects import ObjectStore, ObjectStoreUnavailable
from streams.snapshots.shelf import Digests, Shelf, Uploaded
from streams.state.checkpoint import Checkpoint
from streams.state.rocks import RocksMemory, RocksStore
from streams.state.store import StoreCorrupted, StoreUnavailable
from streams.worker.metrics import WorkerMetrics
from streams.worker.restorer import Restorer

log = structlog.get_logger(__name__)

_LOOK_S: Final = 0.5
_BACKOFF: Final = Backoff(first_s=1.0, pause_s_max=60.0)
_STOP_WAIT_S: Final = 10.0
_SPREAD: Final = 8
"""Number of different moments in an interval at which partitions are taken."""


class NoSnapshot(Exception):
    """There is nothing to snapshot: the store has no state, or does not name its cluster."""


@dataclass(slots=True)
class _Turn:
    """When a partition is due."""

    due_s: float
    failures: int = 0
    cycle: int = -1
    """Cycle of the newest snapshot that this process has taken of the partition."""


class SnapshotUploads:
    """Uploads checkpoints of stores of one flow. One thread."""

    def __init__(
        self, store: ObjectStore, flow: Pipeline, memory: RocksMemory, *, worker: str, keep: int, failpoint: Failpoint
    ) -> None:
        """`keep`: how many snapshots of a partition stay. `worker`: who takes them, for people."""
        self._store, self._flow, self._memory = store, flow, memory
        self._worker, self._keep, self._failpoint = worker, keep, failpoint
        self._digests: dict[int, Digests] = {}

    def upload(
        self, partition: int, folder: Path, *, known_cycle: int = -1, go_on: Callable[[], object] = lambda: None
    ) -> tuple[Checkpoint, Uploaded | None]:
        """Upload the checkpoint of a store in `folder`, and delete what is old; None: it ends with `known_cycle`.

        Raises:
            NoSnapshot: there is nothing to take.
            StoreCorrupted, StoreUnavailable: the folder cannot be read.
            ObjectStoreUnavailable: it is not complete.

        """
        self._failpoint("snapshot_taken")
        paths = sorted(folder.iterdir())  # before it is opened, which adds files
        checkpoint = self._checkpoint(folder)
        if checkpoint.cycle == known_cycle:
            return checkpoint, None
        name = self._flow.prefix + self._flow.name
        shelf = Shelf(self._store, checkpoint.identity.cluster, name, partition)
        digests = self._digests.setdefault(partition, Digests())
        done = shelf.upload(
            paths,
            lambda files: manifest_of(
                checkpoint,
                files,
                flow=name,
                journal=self._flow.journal,
                partition=partition,
                created_ms=time.time_ns() // 1_000_000,
                worker=self._worker,
                version=__version__,
            ),
            digests,
            self._failpoint,
            go_on,
        )
        digests.forget_but(paths)
        shelf.collect(
            journal=done.manifest.journal_id,
            keep=self._keep,
            now_ms=time.time_ns() // 1_000_000,
            failpoint=self._failpoint,
        )
        return checkpoint, done

    def _checkpoint(self, folder: Path) -> Checkpoint:
        store = RocksStore(folder, self._memory, read_only=True)
        try:
            found = read_checkpoint(store)
        finally:
            store.abandon()
        if found is None:
            raise NoSnapshot("it has no state yet")
        if not found.identity.cluster:
            raise NoSnapshot("its state does not say which cluster it is of")
        return found

    def forget(self, partition: int) -> None:
        """Forget the partition: it is no longer taken."""
        self._digests.pop(partition, None)


class SnapshotThread:
    """Takes a snapshot of each restored partition of a flow when it is due."""

    def __init__(
        self,
        store: ObjectStore,
        restorer: Restorer,
        flow: Pipeline,
        memory: RocksMemory,
        settings: Settings,
        metrics: WorkerMetrics,
        *,
        worker: str,
        failpoint: Failpoint,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """`on_failure` is called with an error that retrying cannot cure."""
        self._restorer, self._flow, self._metrics = restorer, flow, metrics
        self._interval_s = settings.streams_snapshot_interval_s
        self._on_failure = on_failure
        self._uploads = SnapshotUploads(
            store, flow, memory, worker=worker, keep=settings.streams_snapshot_keep, failpoint=failpoint
        )
        self._turns: dict[int, _Turn] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{flow.name}-snapshots", daemon=True)

    def start(self) -> None:
        """Begin; copies that a killed process has left are deleted."""
        for left in self._restorer.store_path(0).parent.glob("*.snapshot"):
            shutil.rmtree(left, ignore_errors=True)
        self._thread.start()

    def stop(self) -> None:
        """End between two objects; an upload that takes longer is left to end with the process."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_WAIT_S)

    def _run(self) -> None:
        try:
            while not self._stop.wait(_LOOK_S):
                self.look()
        except Exception as error:
            if not self._stop.is_set():
                self._on_failure(error)
                raise

    def look(self) -> None:
        """Take the snapshots that are due, one partition after the other."""
        owned = self._restorer.restored
        for partition in self._turns.keys() - owned:
            self._drop(partition)
        for partition in sorted(owned):
            turn = self._turns.get(partition) or self._begin(partition)
            if not self._stop.is_set() and time.monotonic() >= turn.due_s:
                self._take(partition, turn)

    def _begin(self, partition: int) -> _Turn:
        """Spread over the interval: all partitions of a worker come at the same time."""
        share = (partition % _SPREAD + 1) / _SPREAD
        self._turns[partition] = turn = _Turn(time.monotonic() + self._interval_s * share)
        self._timestamp(partition)
        return turn

    def _drop(self, partition: int) -> None:
        del self._turns[partition]
        self._uploads.forget(partition)
        self._metrics.snapshot_timestamp.remove(self._flow.name, str(partition))

    def _timestamp(self, partition: int) -> None:
        self._metrics.snapshot_timestamp.labels(self._flow.name, str(partition)).set(time.time())

    def _take(self, partition: int, turn: _Turn) -> None:
        folder = self._restorer.store_path(partition).with_name(f"{partition}.snapshot")
        shutil.rmtree(folder, ignore_errors=True)
        started_s = time.monotonic()
        try:
            if not self._restorer.checkpoint(partition, folder):
                turn.due_s = started_s + _LOOK_S
                return
            checkpoint, done = self._uploads.upload(
                partition, folder, known_cycle=turn.cycle, go_on=self._require_running
            )
        except NoSnapshot as why:
            log.debug("no snapshot", partition=partition, why=str(why))
            turn.due_s = started_s + self._interval_s
        except (ObjectStoreUnavailable, StoreUnavailable, StoreCorrupted, OSError) as error:
            self._failed(partition, turn, error)
        except _Stopping:
            return
        else:
            turn.failures, turn.cycle, turn.due_s = 0, checkpoint.cycle, started_s + self._interval_s
            self._timestamp(partition)
            if done is not None:
                self._metrics.snapshots.labels(self._flow.name).inc()
                self._metrics.snapshot_bytes.labels(self._flow.name).inc(done.written_bytes)
                log.info(
                    "snapshot", topic=self._flow.source, partition=partition, cycle=checkpoint.cycle,
                    bytes=done.manifest.size, written=done.written_bytes,
                    seconds=round(time.monotonic() - started_s, 2),
                )  # fmt: skip
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _failed(self, partition: int, turn: _Turn, error: Exception) -> None:
        turn.failures += 1
        pause_s = min(_BACKOFF.jittered_s(turn.failures), self._interval_s)
        turn.due_s = time.monotonic() + pause_s
        reason = "object_store" if isinstance(error, ObjectStoreUnavailable) else "disk"
        self._metrics.snapshot_failures.labels(self._flow.name, reason).inc()
        log.warning(
            "no snapshot could be taken; events are processed as before", topic=self._flow.source, partition=partition,
            error=str(error), failures=turn.failures, retry_in_s=round(pause_s, 2),
        )  # fmt: skip

    def _require_running(self) -> None:
        if self._stop.is_set():
            raise _Stopping


class _Stopping(StreamsError):
    """Raised when the worker stops: what was uploaded so far is reused by the next snapshot."""
