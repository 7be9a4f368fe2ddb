"""Snapshots in a folder: only new files are uploaded, nothing damaged or foreign is restored, nothing in use goes."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from logistics.flows.gps import GPS
from streams.errors import UsageError
from streams.limits import SNAPSHOT_AGE_MS_MAX, SNAPSHOT_GRACE_MS
from streams.snapshots.manifest import Manifest, ManifestUnreadable, SnapshotFile, name_of
from streams.snapshots.objects import Found, ObjectStore, ObjectStoreUnavailable
from streams.snapshots.retention import Kept, expired_manifests, unused_objects
from streams.snapshots.shelf import STEPS, Shelf, SnapshotDamaged
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Identity, Places
from streams.state.names import CHECKPOINT
from streams.state.rocks import RocksMemory, RocksStore
from streams.state.store import WriteBatch
from streams.worker.snapshots import NoSnapshot, SnapshotUploads

TOPICS = {GPS.journal: "journal-1", GPS.source: "source-1", **{table.topic: "table-1" for table in GPS.tables}}
PLACES = Places("cluster-1", TOPICS, 3)
MEMORY = RocksMemory(cache_bytes=4 << 20, memtable_bytes=4 << 20)


class Killed(BaseException):
    """The process dies at a step."""


class World:
    """A store that grows by cycles, its snapshots, and what becomes of the process that takes them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bucket = directory / "bucket"
        self.objects = ObjectStore(f"file://{self.bucket}")
        self.shelf = Shelf(self.objects, "cluster-1", GPS.name, 0)
        self.store = RocksStore(directory / "state" / "0", MEMORY)
        self.dies_at: tuple[str, int] | None = None
        self.cycle = 0
        self.keep = 3

    def work(self, rows: int, topics: dict[str, str] = TOPICS) -> None:
        """One cycle that writes so many new rows."""
        self.cycle += 1
        checkpoint = Checkpoint(
            cycle=self.cycle, offset_next=self.cycle, watermark=0, journal_next=self.cycle, replay_from=self.cycle,
            identity=Identity(cluster="cluster-1", topics=topics),
        )  # fmt: skip
        puts = [(b"o" + os.urandom(16), os.urandom(100)) for _ in range(rows)]
        self.store.write(WriteBatch(puts=[(CHECKPOINT, checkpoint.pack()), *puts]))

    def snapshot(self, *, known_cycle: int = -1) -> int | None:
        """Take one; how many bytes were written; None: nothing had changed."""
        folder = self.directory / "state" / "0.snapshot"
        shutil.rmtree(folder, ignore_errors=True)
        self.store.checkpoint(folder)
        uploads = SnapshotUploads(self.objects, GPS, MEMORY, worker="a", keep=self.keep, failpoint=self._failpoint)
        _, done = uploads.upload(0, folder, known_cycle=known_cycle)
        return None if done is None else done.written_bytes

    def _failpoint(self, step: str) -> None:
        assert step in STEPS
        if self.dies_at is not None and self.dies_at[0] == step:
            self.dies_at = (step, self.dies_at[1] - 1)
            if not self.dies_at[1]:
                raise Killed

    def rows(self) -> dict[bytes, bytes]:
        return dict(self.store.scan(b""))

    def restored(self, manifest: Manifest) -> dict[bytes, bytes]:
        """What a snapshot holds."""
        folder = self.directory / "restored"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.shelf.fetch(manifest, folder)
        store = RocksStore(folder, MEMORY)
        try:
            return dict(store.scan(b""))
        finally:
            store.close()

    def usable(self, places: Places = PLACES, *, later_ms: int = 0) -> list[Manifest]:
        now_ms = max((one.written_ms for one in self.shelf.snapshots()), default=0) + later_ms
        found, _ = self.shelf.usable(places, GPS.changelogs, 0, now_ms=now_ms)
        return [one.manifest for one in found if one.manifest is not None]

    def why_not(self, places: Places = PLACES, *, later_ms: int = 0) -> str:
        now_ms = max((one.written_ms for one in self.shelf.snapshots()), default=0) + later_ms
        return "; ".join(self.shelf.usable(places, GPS.changelogs, 0, now_ms=now_ms)[1].values())

    def files(self, kind: str) -> list[Path]:
        return sorted((self.bucket / "cluster-1" / GPS.name / "0" / kind).glob("*"))

    def age(self, paths: list[Path], by_ms: int) -> None:
        for path in paths:
            stat = path.stat()
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - by_ms * 1_000_000))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_is_restored_is_the_store_as_of_its_cycle(world: World) -> None:
    world.work(2_000)
    before = world.rows()
    world.snapshot()
    world.work(2_000)
    (manifest,) = world.usable()
    assert (1, 1, "journal-1") == (manifest.cycle, manifest.offset_next, manifest.journal_id)
    assert before == world.restored(manifest)


def test_only_new_tables_are_uploaded(world: World) -> None:
    world.work(20_000)
    full = world.snapshot()
    world.work(200)
    again = world.snapshot()
    assert full is not None
    assert again is not None
    assert again < full / 10
    newest, oldest = world.usable()
    assert newest.size > oldest.size
    assert world.rows() == world.restored(newest)


def test_a_store_that_has_not_changed_is_not_uploaded_again(world: World) -> None:
    world.work(10)
    assert world.snapshot() is not None
    assert world.snapshot(known_cycle=world.cycle) is None
    assert len(world.usable()) == 1


def test_a_store_without_state_or_of_an_unknown_cluster_is_not_taken(world: World) -> None:
    with pytest.raises(NoSnapshot, match="no state"):
        world.snapshot()
    nameless = Checkpoint(cycle=1, offset_next=1, watermark=0, journal_next=1, replay_from=1)
    world.store.write(WriteBatch(puts=[(CHECKPOINT, nameless.pack())]))
    with pytest.raises(NoSnapshot, match="cluster"):
        world.snapshot()


@pytest.mark.parametrize(
    ("step", "number"), [*((step, 1) for step in STEPS), ("snapshot_object", 3), ("snapshot_collected", 3)]
)
def test_a_process_that_dies_in_a_snapshot_leaves_whole_ones_only(world: World, step: str, number: int) -> None:
    """Every earlier snapshot is whole, a later one is too, and what the dead process left is used or deleted."""
    expected: dict[int, dict[bytes, bytes]] = {}
    world.keep = 1
    for _ in range(2):
        world.work(500)
        expected[world.cycle] = world.rows()
        world.snapshot()
        world.age(world.files("manifests") + world.files("objects"), SNAPSHOT_GRACE_MS + 60_000)
    world.work(500)
    expected[world.cycle] = world.rows()
    world.dies_at = (step, number)
    try:
        world.snapshot()
    except Killed:
        assert world.dies_at == (step, 0)
    world.dies_at = None
    found = world.usable(later_ms=-1)
    assert found
    for manifest in found:
        assert expected[manifest.cycle] == world.restored(manifest)
    world.work(500)
    expected[world.cycle] = world.rows()
    world.snapshot()
    assert expected[world.cycle] == world.restored(world.usable()[0])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_or_missing_object_is_never_restored(world: World, damage: Callable[[Path], None]) -> None:
    world.work(2_000)
    world.snapshot()
    damage(max(world.files("objects"), key=lambda path: path.stat().st_size))
    (manifest,) = world.usable()
    with pytest.raises(SnapshotDamaged):
        world.restored(manifest)
    assert len(world.shelf.verify(manifest, {})) == 1


def test_what_is_missing_is_uploaded_again_with_the_next_snapshot(world: World) -> None:
    world.work(2_000)
    world.snapshot()
    for path in world.files("objects"):
        path.unlink()
    world.work(10)
    world.snapshot()
    newest = world.usable()[0]
    assert world.rows() == world.restored(newest)
    assert world.shelf.verify(newest, {}) == []


def test_a_manifest_that_was_changed_or_is_of_something_else_is_not_used(world: World) -> None:
    world.work(10)
    world.snapshot()
    (path,) = world.files("manifests")
    path.write_bytes(path.read_bytes().replace(b'"cycle": 1', b'"cycle": 9'))
    assert world.usable() == []
    assert "not what was written" in world.why_not()


@pytest.mark.parametrize(
    ("places", "why"),
    [
        (replace(PLACES, cluster="cluster-2"), "of the cluster cluster-1"),
        (replace(PLACES, topics={**TOPICS, GPS.journal: "journal-2"}), f"an earlier topic {GPS.journal}"),
        (replace(PLACES, topics={**TOPICS, GPS.tables[0].topic: "table-2"}), f"an earlier topic {GPS.tables[0].topic}"),
        (replace(PLACES, topics={}), "an earlier topic"),
    ],
)
def test_a_snapshot_of_another_place_is_refused_in_words(world: World, places: Places, why: str) -> None:
    world.work(10)
    world.snapshot()
    assert world.usable(places) == []
    assert why in world.why_not(places)


def test_a_snapshot_that_is_older_than_deletions_are_kept_is_refused(world: World) -> None:
    world.work(10)
    world.snapshot()
    assert len(world.usable(later_ms=SNAPSHOT_AGE_MS_MAX)) == 1
    assert world.usable(later_ms=SNAPSHOT_AGE_MS_MAX + 1) == []
    assert "deleted since" in world.why_not(later_ms=SNAPSHOT_AGE_MS_MAX + 1)


@pytest.mark.parametrize("name", ["../../outside", "a/b", "..", ""])
def test_a_manifest_cannot_name_a_file_elsewhere(world: World, name: str) -> None:
    world.work(10)
    world.snapshot()
    (manifest,) = world.usable()
    packed = replace(manifest, files=(SnapshotFile(name, 1, "0" * 64),)).pack()
    with pytest.raises(ManifestUnreadable, match="no name of a file"):
        Manifest.unpack(name_of(manifest, packed), packed)


def test_two_workers_of_one_partition_leave_snapshots_of_which_the_newer_cycle_counts(world: World) -> None:
    world.work(1_000)
    late = world.directory / "late"
    world.store.checkpoint(late)  # of a worker that the group has forgotten, and that uploads only now
    world.work(1_000)
    world.snapshot()
    uploads = SnapshotUploads(world.objects, GPS, MEMORY, worker="b", keep=3, failpoint=lambda _: None)
    uploads.upload(0, late)
    newest, older = world.usable()
    assert (2, 1) == (newest.cycle, older.cycle)
    assert world.rows() == world.restored(newest)


def test_old_snapshots_go_and_what_the_others_need_stays(world: World) -> None:
    for _ in range(6):
        world.work(500)
        world.snapshot()
        world.age(world.files("manifests") + world.files("objects"), SNAPSHOT_GRACE_MS + 60_000)
    world.work(500)
    world.snapshot()
    cycles = [manifest.cycle for manifest in world.usable()]
    assert cycles[:3] == [7, 6, 5]
    for manifest in world.usable():
        assert world.shelf.verify(manifest, {}) == []
    needed = {file.sha256 for manifest in world.usable() for file in manifest.files}
    assert {path.name for path in world.files("objects")} == needed


def test_a_bucket_that_was_emptied_is_filled_again(world: World) -> None:
    world.work(1_000)
    world.snapshot()
    shutil.rmtree(world.bucket)
    assert world.usable() == []
    world.bucket.mkdir()
    world.work(10)
    world.snapshot()
    assert world.rows() == world.restored(world.usable()[0])


def test_a_store_that_cannot_be_reached_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    objects = ObjectStore(f"file://{tmp_path}/file/below")
    with pytest.raises(ObjectStoreUnavailable, match="below"):
        objects.below("anything")


@pytest.mark.parametrize(
    "address",
    [
        "file://relative",
        "s3:///path",
        "http://host/path",
        "s3://user:secret@bucket",
        "s3://bucket?key=secret",
        "folder",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="STREAMS_SNAPSHOT_URL"):
        ObjectStore(address)


# --- retention --------------------------------------------------------------------------------------------------------

HOUR = SNAPSHOT_GRACE_MS


def kept(cycle: int, written_h: int, journal: str = "j") -> Kept:
    return Kept(f"{journal}{cycle}", journal, cycle, written_h * HOUR)


@pytest.mark.parametrize(
    ("now_h", "gone"),
    [
        (4, []),  # the third has replaced the first an hour ago at most
        (5, ["j1"]),
        (6, ["j1"]),
    ],
)
def test_a_snapshot_goes_when_it_has_not_been_among_the_newest_for_the_length_of_the_grace(
    now_h: int, gone: list[str]
) -> None:
    manifests = [kept(1, 1), kept(2, 2), kept(3, 3)]
    assert gone == expired_manifests(manifests, journal="j", keep=2, now_ms=now_h * HOUR)


def test_snapshots_of_another_journal_count_apart_and_go_after_the_grace() -> None:
    manifests = [kept(900, 1, "old"), kept(1, 3), kept(2, 4)]
    assert ["old900"] == expired_manifests(manifests, journal="j", keep=2, now_ms=5 * HOUR)
    assert [] == expired_manifests(manifests, journal="j", keep=2, now_ms=2 * HOUR)


def test_an_object_that_nobody_names_stays_as_long_as_an_upload_may_take() -> None:
    objects = [Found("p/objects/used", 1, 0), Found("p/objects/old", 1, 0), Found("p/objects/new", 1, HOUR)]
    assert ["p/objects/old"] == unused_objects(objects, {"used"}, now_ms=HOUR + 1)
