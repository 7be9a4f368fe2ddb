"""Snapshots in S3, by the commands of the product and against a real server."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import httpx2 as httpx
import obstore
import pytest
from typer.testing import CliRunner

from logistics.flows.gps import GPS
from streams.cli import app
from streams.errors import StreamsError
from streams.snapshots import objects
from streams.snapshots.manifest import Manifest
from streams.snapshots.objects import ObjectStore, ObjectStoreUnavailable
from streams.snapshots.shelf import Shelf, SnapshotDamaged
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Identity, Places
from streams.state.names import CHECKPOINT
from streams.state.rocks import RocksMemory, RocksStore
from streams.state.store import WriteBatch
from streams.worker.snapshot_restores import SnapshotRestores
from streams.worker.snapshots import SnapshotUploads
from tests.object_store.server import READER_KEY, SECRET_KEY, Bucket, S3Server

pytestmark = [pytest.mark.s3, pytest.mark.thorough]

TOPICS = {GPS.journal: "journal-1", GPS.source: "source-1", **{table.topic: "table-1" for table in GPS.tables}}
PLACES = Places("cluster-1", TOPICS, 3)
MEMORY = RocksMemory(cache_bytes=4 << 20, memtable_bytes=4 << 20)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging stays as it is, and requests are repeated once."""
    monkeypatch.setattr("structlog.configure", lambda **_: None)
    monkeypatch.setitem(objects._RETRIES, "max_retries", 1)


def ends(*arguments: str, url: str) -> tuple[int, str]:
    """How a command ends: its exit status, and what it has printed, or the reason."""
    result = CliRunner().invoke(app, ["snapshot", *arguments, "--pipeline", GPS.name, "--url", url])
    if isinstance(result.exception, StreamsError):
        return result.exception.exit_status, str(result.exception) or result.stdout
    assert result.exception is None, result.exception
    return result.exit_code, result.stdout


class State:
    """A partition's state on the local disk, and its snapshots in a bucket."""

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        self.data, self.url = folder / "data", f"{bucket.url}/streams"
        self.path = self.data / GPS.name / "0"
        self._folder = folder
        self.cycle = 0

    def work(self, rows: int) -> dict[bytes, bytes]:
        """One more cycle, its rows in a file of their own; returns all rows."""
        self.cycle += 1
        store = RocksStore(self.path, MEMORY)
        checkpoint = Checkpoint(
            cycle=self.cycle, offset_next=self.cycle * 10, watermark=0, journal_next=9, replay_from=9,
            identity=Identity(cluster="cluster-1", topics=TOPICS),
        )  # fmt: skip
        puts = [(b"o" + os.urandom(16), os.urandom(1_000)) for _ in range(rows)]
        store.write(WriteBatch(puts=[(CHECKPOINT, checkpoint.pack()), *puts]))
        store.flush()
        found = dict(store.scan(b""))
        store.close()
        return found

    def upload(self, failpoint: Callable[[str], None]) -> int:
        """Take a snapshot as a worker does; how many objects were written."""
        store, folder = RocksStore(self.path, MEMORY), self._folder / f"snapshot-{os.urandom(4).hex()}"
        store.checkpoint(folder)
        store.close()
        uploads = SnapshotUploads(ObjectStore(self.url), GPS, MEMORY, worker="a", keep=3, failpoint=failpoint)
        _, done = uploads.upload(0, folder)
        assert done is not None
        return done.written_objects

    def restored(self) -> dict[bytes, bytes] | None:
        """Rows of the newest snapshot that a worker would begin with."""
        path = self._folder / f"restored-{os.urandom(4).hex()}"
        found = SnapshotRestores(ObjectStore(self.url), GPS).bring(0, path, PLACES, lambda: None, must_answer=True)
        if found is None:
            return None
        store = RocksStore(path, MEMORY)
        try:
            return dict(store.scan(b""))
        finally:
            store.close()


@pytest.fixture
def state(tmp_path: Path, bucket: Bucket) -> State:
    return State(tmp_path, bucket)


def objects_of(bucket: Bucket) -> list[str]:
    return bucket.names(f"streams/cluster-1/{GPS.name}/0/objects")


def test_a_snapshot_is_taken_listed_verified_and_restored(state: State, bucket: Bucket) -> None:
    rows = state.work(6_000)  # more than one part of an upload
    status, printed = ends("create", "--data-dir", str(state.data), "--format", "json", url=state.url)
    (taken,) = json.loads(printed)
    assert (0, "taken", 1, 10) == (status, taken["verdict"], taken["cycle"], taken["offset_next"])
    assert taken["written_bytes"] == taken["bytes"] > 5 << 20
    status, printed = ends("list", "--offline", "--format", "json", url=state.url)
    assert (0, [(0, 1)]) == (status, [(one["partition"], one["cycle"]) for one in json.loads(printed)])
    status, printed = ends("verify", url=state.url)
    assert (0, True) == (status, "sound" in printed)
    assert rows == state.restored()

    state.work(100)
    _, printed = ends("create", "--data-dir", str(state.data), "--format", "json", url=state.url)
    (second,) = json.loads(printed)
    assert second["written_bytes"] < second["bytes"] // 10  # only what is new


@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
def test_a_damaged_object_is_found_and_the_older_snapshot_is_restored(
    state: State, bucket: Bucket, damage: str
) -> None:
    older = state.work(100)
    assert state.upload(lambda _: None)
    before = set(objects_of(bucket))
    state.work(100)
    assert state.upload(lambda _: None)
    name = max(set(objects_of(bucket)) - before, key=lambda one: obstore.head(bucket.store, one)["size"])
    content = bytes(obstore.get(bucket.store, name).bytes())
    if damage == "missing":
        obstore.delete(bucket.store, name)
    else:
        obstore.put(bucket.store, name, content[:-1] + (b"" if damage == "cut" else bytes([content[-1] ^ 1])))
    status, printed = ends("verify", "--format", "json", url=state.url)
    assert (100, ["damaged", "sound"]) == (status, [one["verdict"] for one in json.loads(printed)])
    assert name.rpartition("/")[2] in json.loads(printed)[0]["problems"][0]
    assert older == state.restored()


@pytest.mark.slow
def test_a_store_that_goes_down_in_an_upload_is_waited_out_and_what_was_uploaded_is_used(
    state: State, bucket: Bucket, s3: S3Server
) -> None:
    rows = state.work(100)

    def power_cut(step: str) -> None:
        if step == "snapshot_object":
            s3.kill()

    try:
        with pytest.raises(ObjectStoreUnavailable, match=r"writing .*: nothing answers at http://127.0.0.1"):
            state.upload(power_cut)
        status, said = ends("list", "--offline", url=state.url)
        assert (1, True) == (status, "AWS_ENDPOINT_URL, or the store is down" in said)
    finally:
        s3.kill()
        s3.start()
    assert state.restored() is None  # without a manifest nothing of it counts
    there = objects_of(bucket)
    assert there
    written = state.upload(lambda _: None)
    assert len(objects_of(bucket)) == written + len(there)
    assert rows == state.restored()


def test_a_bucket_that_was_emptied_costs_an_upload_and_nothing_else(state: State, bucket: Bucket) -> None:
    rows = state.work(100)
    first = state.upload(lambda _: None)
    bucket.empty()
    assert state.restored() is None
    assert (0, f"no snapshots in {state.url}\n") == ends("list", "--offline", url=state.url)
    assert (0, f"no snapshots in {state.url}\n") == ends("verify", url=state.url)
    assert first == state.upload(lambda _: None)
    assert rows == state.restored()


def test_objects_that_go_before_the_manifest_is_written_are_uploaded_again(state: State, bucket: Bucket) -> None:
    rows = state.work(100)
    state.upload(lambda step: bucket.empty() if step == "snapshot_uploaded" else None)
    assert rows == state.restored()


def test_a_bucket_that_is_deleted_in_an_upload_is_said_and_ends_nothing(
    state: State, bucket: Bucket, s3: S3Server
) -> None:
    state.work(100)

    def gone(step: str) -> None:
        if step == "snapshot_object":
            s3.delete(bucket)

    with pytest.raises(ObjectStoreUnavailable, match="there is no such bucket"):
        state.upload(gone)


def test_an_object_of_a_restore_that_goes_meanwhile_is_missing_but_a_bucket_is_no_damage(
    state: State, bucket: Bucket, s3: S3Server, tmp_path: Path
) -> None:
    state.work(100)
    state.upload(lambda _: None)
    shelf = Shelf(ObjectStore(state.url), "cluster-1", GPS.name, 0)
    (snapshot,) = shelf.snapshots()
    manifest = snapshot.manifest
    assert isinstance(manifest, Manifest)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    obstore.delete(bucket.store, objects_of(bucket))
    with pytest.raises(SnapshotDamaged, match="is missing"):
        shelf.fetch(manifest, tmp_path / "one")
    s3.delete(bucket)
    with pytest.raises(ObjectStoreUnavailable, match="there is no such bucket"):
        shelf.fetch(manifest, tmp_path / "two")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "AWS_ACCESS_KEY_ID (InvalidAccessKeyId)"),
        ({"AWS_SECRET_ACCESS_KEY": "an-0ther-s3cret"}, "AWS_SECRET_ACCESS_KEY (SignatureDoesNotMatch)"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ALLOW_HTTP": None}, "allow it by AWS_ALLOW_HTTP=true"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "nothing answers at http://127.0.0.1:9: see AWS_ENDPOINT_URL"),
        ({"AWS_ACCESS_KEY_ID": READER_KEY}, "lack the right to do this"),
    ],
)
def test_credentials_that_do_not_fit_are_said_with_the_setting_and_without_the_secret(
    state: State, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str | None], why: str
) -> None:
    state.work(1)
    for name, value in changed.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    status, said = ends("create", "--data-dir", str(state.data), url=state.url)
    assert (1, True) == (status, why in said), said
    assert "\n" not in said
    assert SECRET_KEY not in said
    assert "an-0ther-s3cret" not in said


def test_a_bucket_that_does_not_exist_is_said(state: State) -> None:
    state.work(1)
    for command in (["create", "--data-dir", str(state.data)], ["list", "--offline"], ["verify"]):
        status, said = ends(*command, url="s3://never-made/streams")
        assert (1, True) == (status, "there is no such bucket: create it" in said), said


def test_what_was_written_is_listed_at_once_and_an_object_is_created_once(bucket: Bucket) -> None:
    """What shelves and Delta tables rely on: consistent listings, and writes on condition."""
    for number in range(20):
        obstore.put(bucket.store, f"list/{number}", b"")
        assert f"list/{number}" in bucket.names("list")
        obstore.put(bucket.store, f"once/{number}", b"first", mode="create")
        with pytest.raises(obstore.exceptions.AlreadyExistsError):
            obstore.put(bucket.store, f"once/{number}", b"second", mode="create")
        assert bytes(obstore.get(bucket.store, f"once/{number}").bytes()) == b"first"
    assert httpx.get(f"{bucket.endpoint}/{bucket.name}?list-type=2").status_code == httpx.codes.FORBIDDEN
