"""The snapshots of one partition: `CLUSTER/FLOW/PARTITION/objects/SHA256` and `.../manifests/CYCLE-SHA256.json`."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from streams.engine.commit import Failpoint
from streams.limits import SNAPSHOT_AGE_MS_MAX, SNAPSHOT_MANIFEST_BYTES_MAX
from streams.snapshots.manifest import Manifest, ManifestUnreadable, SnapshotFile, name_of
from streams.snapshots.objects import Found, ObjectMissing, ObjectStore, OnBytes
from streams.snapshots.retention import Kept, expired_manifests, unused_objects
from streams.state.identity import Places
from streams.state.store import StoreUnavailable

log = structlog.get_logger(__name__)

STEPS: Final = ("snapshot_taken", "snapshot_object", "snapshot_uploaded", "snapshot_manifest", "snapshot_collected")
"""Steps of a snapshot, for failpoints: the checkpoint is on the local disk; an object is written; all are; the manifest
is; something old was deleted."""


class SnapshotDamaged(Exception):
    """An object of a snapshot is missing, or is not what was written."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that the object store has; its manifest may be unreadable."""

    name: str
    """Name of its manifest's object."""
    written_ms: int
    """By the clock of the object store."""
    manifest: Manifest | None
    problem: str = ""
    """Why the manifest cannot be read, where it is None."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What an upload has done."""

    manifest: Manifest
    written_bytes: int
    """Bytes of the objects that were uploaded: those that were not there before."""
    written_objects: int


class Shelf:
    """Snapshots of one partition. One upload at a time by each process; any thread."""

    def __init__(self, store: ObjectStore, cluster: str, flow: str, partition: int) -> None:
        """Use the snapshots of a flow (named with the prefix of its topics) in the cluster with the id `cluster`."""
        self._store = store
        self.where = f"{cluster}/{flow}/{partition}"
        self._objects, self._manifests = f"{self.where}/objects", f"{self.where}/manifests"

    # --- reading ----------------------------------------------------------------------------------------------------

    def snapshots(self) -> list[Snapshot]:
        """All that are there, the newest cycle first.

        Raises:
            ObjectStoreUnavailable: no answer.

        """
        found = [self._read(one) for one in self._store.below(self._manifests)]
        return sorted((one for one in found if one is not None), key=lambda one: one.name, reverse=True)

    def _read(self, found: Found) -> Snapshot | None:
        try:
            data = self._store.get(found.name, bytes_max=SNAPSHOT_MANIFEST_BYTES_MAX)
            return Snapshot(found.name, found.modified_ms, Manifest.unpack(found.name, data))
        except ObjectMissing:
            return None  # deleted since it was listed
        except ManifestUnreadable as error:
            return Snapshot(found.name, found.modified_ms, None, str(error))

    def usable(
        self, places: Places, changelogs: Collection[str], partition: int, *, now_ms: int, refused: Collection[str] = ()
    ) -> tuple[list[Snapshot], dict[str, str]]:
        """Those that a restore may try, newest first, without those `refused`; and why each other one may not.

        Raises:
            ObjectStoreUnavailable: no answer.

        """
        usable: list[Snapshot] = []
        unusable: dict[str, str] = {}
        for one in self.snapshots():
            if one.name in refused:
                continue
            why = one.problem if one.manifest is None else one.manifest.misfit(places, changelogs, partition)
            if not why and now_ms - one.written_ms > SNAPSHOT_AGE_MS_MAX:
                why = (
                    f"it is older than {SNAPSHOT_AGE_MS_MAX // 3_600_000} h: rows that were deleted since then may be "
                    "gone from the compacted topics without a trace"
                )
            if why:
                unusable[one.name] = why
            else:
                usable.append(one)
        return usable, unusable

    def fetch(self, manifest: Manifest, folder: Path, on_bytes: OnBytes = lambda _: None) -> None:
        """Write the files of a snapshot into `folder`, each compared with its checksum.

        Raises:
            SnapshotDamaged: an object is missing or is not what was written.
            ObjectStoreUnavailable: no answer.
            StoreUnavailable: the local disk refuses.

        """
        for file in manifest.files:
            try:
                out = (folder / file.name).open("xb")
            except OSError as error:
                raise StoreUnavailable(f"{folder} cannot be written: {error.strerror}") from error
            with out:
                self._check(file, _onto_disk(out.write, folder), on_bytes)

    def verify(self, manifest: Manifest, known: dict[str, str], on_bytes: OnBytes = lambda _: None) -> list[str]:
        """Read every byte of a snapshot; what is wrong with it, in words.

        `known` has what was found of objects so far (empty: it is sound) and is added to.

        Raises:
            ObjectStoreUnavailable: no answer.

        """
        for file in manifest.files:
            if file.sha256 not in known:
                try:
                    self._check(file, lambda _: None, on_bytes)
                    known[file.sha256] = ""
                except SnapshotDamaged as error:
                    known[file.sha256] = str(error)
        return [problem for file in manifest.files if (problem := known[file.sha256])]

    def _check(self, file: SnapshotFile, write: Callable[[bytes], object], on_bytes: OnBytes) -> None:
        name = f"{self._objects}/{file.sha256}"
        try:
            found = self._store.fetch(name, write, on_bytes)
        except ObjectMissing:
            raise SnapshotDamaged(f"{name} ({file.name}) is missing") from None
        if found.bytes != file.bytes or found.sha256 != file.sha256:
            raise SnapshotDamaged(
                f"{name} ({file.name}) is not what was written: {found.bytes:,} bytes of {file.bytes:,}, SHA-256 "
                f"{found.sha256[:12]}…"
            )

    # --- writing ----------------------------------------------------------------------------------------------------

    def upload(
        self,
        paths: Sequence[Path],
        manifest_of_files: Callable[[tuple[SnapshotFile, ...]], Manifest],
        digests: "Digests",
        failpoint: Failpoint,
        go_on: Callable[[], object] = lambda: None,
    ) -> Uploaded:
        """Upload the files of a checkpoint that are not there yet, then the manifest.

        `go_on` is called before each object; what it raises ends the upload: without a manifest nothing of it counts.

        Raises:
            ObjectStoreUnavailable: it is not complete; the next one goes on where it has stopped.

        """
        files = {digests.of(path): path for path in paths}
        written = self._put_missing(files, failpoint, go_on)
        failpoint("snapshot_uploaded")
        manifest = manifest_of_files(tuple(files))
        packed = manifest.pack()
        self._store.put(f"{self._manifests}/{name_of(manifest, packed)}", packed)
        failpoint("snapshot_manifest")
        # Another worker that had the partition may have deleted, meanwhile, what no manifest named until now.
        written += self._put_missing(files, failpoint, go_on)
        return Uploaded(manifest, sum(file.bytes for file in written), len(written))

    def _put_missing(
        self, files: Mapping[SnapshotFile, Path], failpoint: Failpoint, go_on: Callable[[], object]
    ) -> list[SnapshotFile]:
        """Upload those files of which no object of the same length is there; returns them."""
        there = {one.name.rpartition("/")[2]: one.bytes for one in self._store.below(self._objects)}
        written: list[SnapshotFile] = []
        for file, path in files.items():
            if there.get(file.sha256) == file.bytes:
                continue
            go_on()
            self._store.put(f"{self._objects}/{file.sha256}", path if file.bytes else b"")
            there[file.sha256] = file.bytes
            written.append(file)
            failpoint("snapshot_object")
        return written

    def collect(self, *, journal: str, keep: int, now_ms: int, failpoint: Failpoint) -> int:
        """Delete snapshots beyond the `keep` newest, and objects that none needs; returns how many objects.

        Raises:
            ObjectStoreUnavailable: some are there still; the next call deletes them.

        """
        objects = self._store.below(self._objects)  # before the manifests: `unused_objects` says why
        snapshots = self.snapshots()
        kept = [_kept(one, journal_of(one)) for one in snapshots]
        gone = set(expired_manifests(kept, journal=journal, keep=keep, now_ms=now_ms))
        for name in gone:
            self._store.delete(name)
            failpoint("snapshot_collected")
        used = {file.sha256 for one in snapshots if one.name not in gone for file in _files(one)}
        unused = unused_objects(objects, used, now_ms=now_ms)
        for name in unused:
            self._store.delete(name)
            failpoint("snapshot_collected")
        return len(unused)


class Digests:
    """Files with their SHA-256; those of tables (`.sst`), which never change, are kept by inode, size and time."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], str] = {}

    def of(self, path: Path) -> SnapshotFile:
        """The file at `path`."""
        stat = path.stat()
        key = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        digest = self._known.get(key)
        if digest is None:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if path.suffix == ".sst":
                self._known[key] = digest
        return SnapshotFile(path.name, stat.st_size, digest)

    def forget_but(self, files: Collection[Path]) -> None:
        """Forget all files but these."""
        inodes = {path.stat().st_ino for path in files}
        self._known = {key: digest for key, digest in self._known.items() if key[0] in inodes}


def journal_of(snapshot: Snapshot) -> str:
    """Id of the journal's topic that a snapshot belongs to; empty: not known."""
    manifest = snapshot.manifest
    return "" if manifest is None else manifest.journal_id


def _files(snapshot: Snapshot) -> Iterator[SnapshotFile]:
    yield from () if snapshot.manifest is None else snapshot.manifest.files


def _kept(snapshot: Snapshot, journal: str) -> Kept:
    cycle = -1 if snapshot.manifest is None else snapshot.manifest.cycle
    return Kept(snapshot.name, journal, cycle, snapshot.written_ms)


def _onto_disk(write: Callable[[bytes], object], folder: Path) -> Callable[[bytes], object]:
    def onto_disk(part: bytes) -> None:
        try:
            write(part)
        except OSError as error:
            raise StoreUnavailable(f"{folder} cannot be written: {error.strerror}") from error

    return onto_disk
