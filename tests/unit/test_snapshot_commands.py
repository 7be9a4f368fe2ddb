"""`streams snapshot` over a folder, without Kafka: what it prints, and how it ends."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from logistics.flows.gps import GPS
from streams.cli import app
from streams.errors import StreamsError
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Identity
from streams.state.names import CHECKPOINT
from streams.state.rocks import RocksMemory, RocksStore
from streams.state.store import WriteBatch

TOPICS = {GPS.journal: "journal-1"}


@pytest.fixture(autouse=True)
def _no_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command would set up logging for all tests of this process."""
    monkeypatch.setattr("structlog.configure", lambda **_: None)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A data directory with one partition's state, and the bucket."""
    store = RocksStore(tmp_path / "data" / GPS.name / "0", RocksMemory(cache_bytes=1 << 20, memtable_bytes=1 << 20))
    identity = Identity(cluster="cluster-1", topics=TOPICS)
    checkpoint = Checkpoint(cycle=4, offset_next=40, watermark=0, journal_next=9, replay_from=9, identity=identity)
    store.write(WriteBatch(puts=[(CHECKPOINT, checkpoint.pack()), (b"o", b"row")]))
    store.close()
    return tmp_path / "data", tmp_path / "bucket"


def ends(*arguments: str, bucket: Path | None = None) -> tuple[int, str]:
    """How a command ends: its exit status, and what it has printed, or the reason."""
    where = [] if bucket is None else ["--url", f"file://{bucket}"]
    result = CliRunner().invoke(app, ["snapshot", *arguments, "--pipeline", GPS.name, *where])
    if isinstance(result.exception, StreamsError):
        return result.exception.exit_status, str(result.exception) or result.stdout
    assert result.exception is None, result.exception
    return result.exit_code, result.stdout


def test_a_snapshot_is_taken_listed_verified_and_found_damaged(folders: tuple[Path, Path]) -> None:
    data, bucket = folders
    status, printed = ends("create", "--data-dir", str(data), "--format", "json", bucket=bucket)
    (taken,) = json.loads(printed)
    assert (0, "taken", "cluster-1") == (status, taken["verdict"], taken["cluster"])
    assert (0, 4, 40) == (taken["partition"], taken["cycle"], taken["offset_next"])
    assert taken["written_bytes"] == taken["bytes"] > 0
    assert not (data / GPS.name / "0.snapshot").exists()

    status, printed = ends("list", "--offline", "--format", "json", bucket=bucket)
    assert (0, [(0, 4)]) == (status, [(one["partition"], one["cycle"]) for one in json.loads(printed)])

    status, printed = ends("verify", bucket=bucket)
    assert 0 == status
    assert "sound" in printed

    largest = max(bucket.rglob("objects/*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    status, printed = ends("verify", "--format", "json", bucket=bucket)
    (found,) = json.loads(printed)
    assert (100, "damaged") == (status, found["verdict"])
    assert largest.name in found["problems"][0]
    assert 0 == ends("verify", "--partition", "7", bucket=bucket)[0]  # there is nothing of it


@pytest.mark.parametrize(
    ("url", "why"), [(("--url", "http://host/path"), "file:///FOLDER, s3://BUCKET"), ((), "is not set")]
)
def test_an_address_that_is_none_is_wrong_usage(url: tuple[str, ...], why: str) -> None:
    status, said = ends("list", "--offline", *url)
    assert 2 == status
    assert why in said
