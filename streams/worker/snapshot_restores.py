"""Puts a snapshot in place where a partition has no local state: the newest usable one, if there is any.

What is brought is a local store like any other: the restore that follows makes the same checks, and reads the rest from
the journal. Whatever is wrong with a snapshot, it is said, and an older one or the whole journal takes its place.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import structlog

from streams.clock import SystemTime
from streams.flow.declaration import Pipeline
from streams.snapshots.objects import ObjectStore, ObjectStoreUnavailable
from streams.snapshots.shelf import Shelf, Snapshot, SnapshotDamaged
from streams.state.complete import note_complete
from streams.state.identity import Places
from streams.state.store import StoreUnavailable
from streams.worker.metrics import WorkerMetrics
from streams.worker.ports import TimeSource

log = structlog.get_logger(__name__)


class SnapshotRestores:
    """Restores snapshots of one flow. For one partition, one call at a time."""

    def __init__(
        self, store: ObjectStore, flow: Pipeline, metrics: WorkerMetrics | None = None, clock: TimeSource | None = None
    ) -> None:
        """Use the snapshots in `store`."""
        self._store, self._flow = store, flow
        self._metrics = metrics
        self._clock = clock or SystemTime()
        self._brought: dict[int, Snapshot] = {}
        """By partition that is not restored yet, what its store was made from."""
        self._refused: set[str] = set()

    def bring(
        self, partition: int, path: Path, places: Places, go_on: Callable[[], object], *, must_answer: bool = False
    ) -> Snapshot | None:
        """Put a snapshot's store in the place of the empty, closed one at `path`; None: there is no snapshot.

        `go_on` is called on the way; what it raises is raised from here.

        Raises:
            StoreUnavailable: the local disk refuses.
            ObjectStoreUnavailable: no answer, where it `must_answer`; else the journal takes its place.

        """
        shelf = Shelf(self._store, places.cluster, self._flow.prefix + self._flow.name, partition)
        try:
            usable, unusable = shelf.usable(
                places, self._flow.changelogs, partition, now_ms=self._clock.wall_ms(), refused=self._refused
            )
            for name, why in unusable.items():
                self._refuse(name, why, "refused")
            for one in usable:
                if self._fetched(shelf, one, path, go_on):
                    self._brought[partition] = one
                    return one
        except ObjectStoreUnavailable as error:
            if must_answer:
                raise
            self._count("unavailable")
            log.warning(
                "the object store of snapshots cannot be used: restoring from the journal alone",
                partition=partition, error=str(error),
            )  # fmt: skip
            return None
        self._count("none")
        log.info("there is no snapshot to begin with: restoring from the journal alone", partition=partition)
        return None

    def _fetched(self, shelf: Shelf, snapshot: Snapshot, path: Path, go_on: Callable[[], object]) -> bool:
        """Whether its store is at `path` now; not when it is damaged."""
        if snapshot.manifest is None:
            return False
        partial = path.with_name(f"{path.name}.fetching")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            _require_room(partial, snapshot.manifest.size)
            shelf.fetch(snapshot.manifest, partial, lambda _: go_on())
            note_complete(partial, snapshot.written_ms)
            shutil.rmtree(path, ignore_errors=True)
            partial.replace(path)
        except SnapshotDamaged as error:
            self._refuse(snapshot.name, str(error), "damaged")
            return False
        except OSError as error:
            raise StoreUnavailable(f"the state directory {path.parent} cannot be written: {error.strerror}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        log.info(
            "a snapshot is here; the journal brings it forward", snapshot=snapshot.name, cycle=snapshot.manifest.cycle,
            bytes=snapshot.manifest.size,
        )  # fmt: skip
        return True

    def accepted(self, partition: int) -> None:
        """The partition is restored: what was brought is its local state now."""
        if self._brought.pop(partition, None) is not None:
            self._count("used")

    def refuse(self, partition: int, why: str) -> bool:
        """Use no more what was brought for a partition; False: nothing was, so it is not to blame."""
        brought = self._brought.pop(partition, None)
        if brought is None:
            return False
        self._refuse(brought.name, why, "refused")
        return True

    def _refuse(self, name: str, why: str, outcome: str) -> None:
        self._refused.add(name)
        self._count(outcome)
        log.warning("a snapshot is not used; an older one or the journal takes its place", snapshot=name, why=why)

    def _count(self, outcome: str) -> None:
        if self._metrics is not None:
            self._metrics.snapshot_restores.labels(self._flow.name, outcome).inc()


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise StoreUnavailable(f"a snapshot of {size:,} bytes has no room in {folder.parent} ({free:,} free)")
