"""`streams snapshot` over a folder, without Kafka: what it prints, and how it ends."""

import json
from pathlib import Path
from typing import Any

import pytest

from logistics.flows.gps import GPS
from streams.cli import app
from streams.cli.ending import run
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Identity
from streams.state.names import CHECKPOINT
from streams.state.rocks import RocksMemory, RocksStore
from streams.state.store import WriteBatch

TOPICS = {GPS.journal: "journal-1"}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A data directory with one partition's state, and the bucket."""
    store = RocksStore(tmp_path / "data" / GPS.name / "0", RocksMemory(cache_bytes=1 << 20, memtable_bytes=1 << 20))
    identity = Identity(cluster="cluster-1", topics=TOPICS)
    checkpoint = Checkpoint(cycle=4, offset_next=40, watermark=0, journal_next=9, replay_from=9, identity=identity)
    store.write(WriteBatch(puts=[(CHECKPOINT, checkpoint.pack()), (b"o", b"row")]))
    store.close()
    return tmp_path / "data", tmp_path / "bucket"


def ends(*arguments: str, bucket: Path) -> int:
    return run(app, ["snapshot", *arguments, "--pipeline", GPS.name, "--url", f"file://{bucket}"])


def test_a_snapshot_is_taken_listed_verified_and_found_damaged(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data, bucket = folders
    assert 0 == ends("create", "--data-dir", str(data), "--format", "json", bucket=bucket)
    (taken,) = _printed(capsys)
    assert ("taken", "cluster-1", 0, 4, 40) == tuple(
        taken[name] for name in ("verdict", "cluster", "partition", "cycle", "offset_next")
    )
    assert taken["written_bytes"] == taken["bytes"] > 0
    assert not (data / GPS.name / "0.snapshot").exists()

    assert 0 == ends("list", "--offline", "--format", "json", bucket=bucket)
    assert [(0, 4)] == [(one["partition"], one["cycle"]) for one in _printed(capsys)]

    assert 0 == ends("verify", bucket=bucket)
    assert "sound" in capsys.readouterr().out

    largest = max(bucket.rglob("objects/*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    assert 100 == ends("verify", "--format", "json", bucket=bucket)
    (found,) = _printed(capsys)
    assert "damaged" == found["verdict"]
    assert largest.name in found["problems"][0]
    assert 0 == ends("verify", "--partition", "7", bucket=bucket)  # there is nothing of it


def test_an_address_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == run(app, ["snapshot", "list", "--offline", "--url", "http://host/path"])
    assert "STREAMS_SNAPSHOT_URL" in capsys.readouterr().err
    assert 2 == run(app, ["snapshot", "list", "--offline"])
    assert "is not set" in capsys.readouterr().err


def _printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found
