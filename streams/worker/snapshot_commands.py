"""Implements `streams snapshot`: create, list, verify and restore snapshots outside of a worker."""

import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.kafka.admin import wait_for_broker
from streams.kafka.places import KafkaPlaces
from streams.settings import Settings
from streams.snapshots.objects import ObjectStore
from streams.snapshots.shelf import Shelf, Snapshot
from streams.state.identity import Places
from streams.state.rocks import RocksMemory, RocksStore
from streams.state.store import StoreCorrupted, StoreUnavailable
from streams.text import counted
from streams.worker.owner import DataDirectory
from streams.worker.snapshot_restores import SnapshotRestores
from streams.worker.snapshots import NoSnapshot, SnapshotUploads

Say = Callable[[str], None]

_MEMORY_BYTES: Final = 16 << 20


@dataclass(slots=True)
class SnapshotReport:
    """A snapshot and what was found of it, or a partition without one."""

    pipeline: str
    partition: int
    cluster: str = ""
    name: str = ""
    cycle: int | None = None
    offset_next: int | None = None
    created_ms: int | None = None
    bytes: int = 0
    files: int = 0
    written_bytes: int | None = None
    """Bytes of objects written for it; only for a snapshot that was just made."""
    verdict: str = ""
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


def object_store(settings: Settings) -> ObjectStore:
    """The object store of the settings.

    Raises:
        UsageError: none is set, or it cannot be used.

    """
    if not settings.streams_snapshot_url:
        raise UsageError("STREAMS_SNAPSHOT_URL is not set: file:///FOLDER, s3://BUCKET/PATH, gs://… or az://…")
    return ObjectStore(settings.streams_snapshot_url)


def create(settings: Settings, pipelines: Sequence[Pipeline], say: Say) -> list[SnapshotReport]:
    """Snapshots of all stores in the data directory, of which no worker may be running.

    Raises:
        StreamsError: a worker runs there, a store cannot be read, or the object store does not answer.

    """
    objects = object_store(settings)
    directory = DataDirectory(settings.streams_data_dir)
    memory = RocksMemory(cache_bytes=_MEMORY_BYTES, memtable_bytes=_MEMORY_BYTES)
    try:
        return [
            _created(objects, pipeline, partition, path, memory, settings, directory.worker_id, say)
            for pipeline in pipelines
            for partition, path in _stores(settings.streams_data_dir / f"{pipeline.prefix}{pipeline.name}")
        ]
    finally:
        directory.release()


def _created(
    objects: ObjectStore,
    pipeline: Pipeline,
    partition: int,
    path: Path,
    memory: RocksMemory,
    settings: Settings,
    worker: str,
    say: Say,
) -> SnapshotReport:
    report = SnapshotReport(pipeline.name, partition)
    uploads = SnapshotUploads(
        objects, pipeline, memory, worker=worker, keep=settings.streams_snapshot_keep, failpoint=lambda _: None
    )
    folder = path.with_name(f"{path.name}.snapshot")
    shutil.rmtree(folder, ignore_errors=True)
    say(f"{pipeline.name} partition {partition}")
    try:
        store = RocksStore(path, memory)
        try:
            store.checkpoint(folder)
        finally:
            store.close()
        _, done = uploads.upload(partition, folder)
    except NoSnapshot as why:
        report.verdict = f"not taken: {why}"
        return report
    except (StoreCorrupted, StoreUnavailable) as error:
        raise StreamsError(f"{path} cannot be read: {error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if done is not None:
        manifest = done.manifest
        report.cluster, report.cycle, report.offset_next = manifest.cluster, manifest.cycle, manifest.offset_next
        report.created_ms, report.bytes, report.files = manifest.created_ms, manifest.size, len(manifest.files)
        report.written_bytes, report.verdict = done.written_bytes, "taken"
    return report


def _stores(folder: Path) -> list[tuple[int, Path]]:
    return sorted((int(path.name), path) for path in folder.glob("*") if path.name.isdigit())


def listed(settings: Settings, pipelines: Sequence[Pipeline], *, offline: bool) -> list[SnapshotReport]:
    """All snapshots of these flows, the newest of each partition first, and whether a restore would try them.

    Raises:
        StreamsError: the object store or, unless `offline`, the broker does not answer.

    """
    objects = object_store(settings)
    if not offline:
        wait_for_broker(settings)
    reports: list[SnapshotReport] = []
    for pipeline in pipelines:
        places = None if offline else KafkaPlaces(settings, pipeline).find()
        for shelf, cluster, partition in _shelves(objects, pipeline):
            if places is None:
                verdicts: dict[str, str] = {}
            else:
                usable, verdicts = shelf.usable(places, pipeline.changelogs, partition, now_ms=_now_ms())
                verdicts |= {one.name: "fits" for one in usable}
            for one in shelf.snapshots():
                report = _report(pipeline, cluster, partition, one)
                report.verdict = verdicts.get(one.name, "not compared with Kafka")
                reports.append(report)
    return reports


def verify(
    settings: Settings, pipelines: Sequence[Pipeline], partitions: Collection[int], say: Say
) -> list[SnapshotReport]:
    """Every snapshot of these partitions (empty: of all), each of its bytes read and compared with its checksum.

    Raises:
        StreamsError: the object store does not answer.

    """
    objects = object_store(settings)
    reports: list[SnapshotReport] = []
    for pipeline in pipelines:
        for shelf, cluster, partition in _shelves(objects, pipeline):
            if partitions and partition not in partitions:
                continue
            known: dict[str, str] = {}
            for one in shelf.snapshots():
                report = _report(pipeline, cluster, partition, one)
                say(f"{pipeline.name} partition {partition}, cycle {report.cycle}: {report.bytes:,} bytes")
                if one.manifest is not None:
                    report.problems += shelf.verify(one.manifest, known)
                report.verdict = "damaged" if report.problems else "sound"
                reports.append(report)
    return reports


def restore(settings: Settings, pipeline: Pipeline, partitions: Collection[int], say: Say) -> list[SnapshotReport]:
    """Put the newest usable snapshots where the data directory has no state of these partitions (empty: of all).

    Raises:
        StreamsError: a worker runs there, or object store, broker or disk do not answer.

    """
    objects = object_store(settings)
    wait_for_broker(settings)
    places = KafkaPlaces(settings, pipeline).find()
    wanted = sorted(partitions) or range(places.partitions)
    if beyond := [partition for partition in wanted if partition >= places.partitions]:
        raise UsageError(
            f"{pipeline.journal} has {counted(places.partitions, 'partition')}: there is no partition {beyond[0]}"
        )
    directory = DataDirectory(settings.streams_data_dir)
    restores = SnapshotRestores(objects, pipeline)
    try:
        return [_restored(restores, pipeline, partition, directory, places, say) for partition in wanted]
    finally:
        directory.release()


def _restored(
    restores: SnapshotRestores, pipeline: Pipeline, partition: int, directory: DataDirectory, places: Places, say: Say
) -> SnapshotReport:
    path = directory.store_path(pipeline.prefix + pipeline.name, partition)
    if path.exists():
        return SnapshotReport(pipeline.name, partition, verdict=f"left as it is: {path} is there")
    say(f"{pipeline.name} partition {partition}")
    try:
        found = restores.bring(partition, path, places, lambda: None, must_answer=True)
    except StoreUnavailable as error:
        raise StreamsError(str(error)) from None
    if found is None:
        return SnapshotReport(
            pipeline.name, partition, verdict="no usable snapshot: a worker restores from the journal"
        )
    report = _report(pipeline, places.cluster, partition, found)
    report.verdict = "restored"
    return report


def _shelves(objects: ObjectStore, pipeline: Pipeline) -> Iterator[tuple[Shelf, str, int]]:
    """Snapshots of a flow by cluster and partition."""
    flow = pipeline.prefix + pipeline.name
    for cluster in objects.folders(""):
        if flow not in objects.folders(cluster):
            continue
        found = sorted(int(name) for name in objects.folders(f"{cluster}/{flow}") if name.isdigit())
        for partition in found:
            yield Shelf(objects, cluster, flow, partition), cluster, partition


def _report(pipeline: Pipeline, cluster: str, partition: int, snapshot: Snapshot) -> SnapshotReport:
    report = SnapshotReport(pipeline.name, partition, cluster, snapshot.name)
    if snapshot.manifest is None:
        report.problems.append(f"{snapshot.name}: {snapshot.problem}")
    else:
        manifest = snapshot.manifest
        report.cycle, report.offset_next, report.created_ms = manifest.cycle, manifest.offset_next, manifest.created_ms
        report.bytes, report.files = manifest.size, len(manifest.files)
    return report


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
