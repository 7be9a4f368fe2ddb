"""A Delta table in S3 as the target of a sink: each row once, whatever is killed or cannot be reached."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import polars as pl
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError
from typer.testing import CliRunner

from streams.cli import app
from streams.sinks.delta.maintenance import compact, vacuum
from streams.sinks.target import TakenOver, TargetUnavailable
from tests.object_store.delta_writer import ROWS_OF_A_BATCH, batch_of, target_of, write_all
from tests.object_store.server import READER_KEY, SECRET_KEY, Bucket, S3Server

pytestmark = [pytest.mark.s3, pytest.mark.thorough]

ROOT = Path(__file__).parents[2]


def rows_in(url: str) -> list[tuple[int, int]]:
    """(partition, id), by DuckDB."""
    minutes = DeltaTable(url).to_pyarrow_dataset()
    found = duckdb.execute("select streams_partition, id from minutes order by 1, 2").fetchall()
    assert len(found) == minutes.count_rows()
    return found


def each_once(*partitions: int, rows: int) -> list[tuple[int, int]]:
    return [(partition, number) for partition in partitions for number in range(rows)]


def at_once(*works: Callable[[], object]) -> None:
    """Run these in threads that begin at the same moment."""
    together = threading.Barrier(len(works))
    failed: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        together.wait()
        try:
            work()
        except BaseException as error:  # noqa: BLE001  it is raised by the test
            failed.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def test_rows_are_appended_and_read_by_duckdb_and_polars_and_upkeep_goes_beside(bucket: Bucket) -> None:
    url = f"{bucket.url}/lake/minutes"
    write_all(url, 50)
    assert rows_in(url) == each_once(0, rows=50)
    assert sorted(pl.read_delta(url)["id"].to_list()) == list(range(50))
    done = compact(url)
    assert done.files_after < done.files_before
    assert vacuum(url, retention_hours=1, dry_run=True) == []
    target = target_of(url)
    target.prepare()
    assert target.open([0]) == {0: 50}
    target.write(batch_of(0, 50))
    assert rows_in(url) == each_once(0, rows=60)


def commit(table: DeltaTable, number: int, won: list[int]) -> None:
    """Commit after the version that was read; `won` has those that have."""
    mark = CommitProperties(app_transactions=[Transaction("epoch", number)])
    rows = batch_of(0, number).rows
    try:
        write_deltalake(table, rows, mode="append", schema_mode="merge", commit_properties=mark)
    except CommitFailedError:
        return
    won.append(number)


def test_two_writers_at_once_never_commit_the_same_version(bucket: Bucket) -> None:
    """The store writes an object on condition that there is none: no other option is needed, and no lock."""
    url = f"{bucket.url}/lake/raced"
    write_all(url, ROWS_OF_A_BATCH)
    for number in range(10):
        version = DeltaTable(url).version()
        won: list[int] = []

        at_once(partial(commit, DeltaTable(url), number, won), partial(commit, DeltaTable(url), number, won))
        assert won == [number]
        assert DeltaTable(url).version() == version + 1


def test_sinks_of_other_partitions_write_at_the_same_time(bucket: Bucket) -> None:
    url = f"{bucket.url}/lake/shared"
    target_of(url).prepare()

    def sink(partition: int) -> None:
        target = target_of(url)
        target.prepare()
        target.open([partition])
        for first in range(0, 80, ROWS_OF_A_BATCH):
            target.write(batch_of(partition, first))

    at_once(lambda: sink(0), lambda: sink(1))
    assert rows_in(url) == each_once(0, 1, rows=80)


def test_a_process_that_was_taken_over_writes_nothing(bucket: Bucket) -> None:
    url = f"{bucket.url}/lake/taken"
    old, new = target_of(url), target_of(url)
    old.prepare()
    old.open([0])
    old.write(batch_of(0, 0))
    assert new.open([0]) == {0: 10}
    with pytest.raises(TakenOver):
        old.write(batch_of(0, 10))
    new.write(batch_of(0, 10))
    assert rows_in(url) == each_once(0, rows=20)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_sink_that_is_killed_again_and_again_writes_each_row_once(bucket: Bucket, kills: int) -> None:
    url, chance = f"{bucket.url}/lake/killed", random.Random(kills)
    arguments = [sys.executable, "-m", "tests.object_store.delta_writer", url]
    target_of(url).prepare()
    for _ in range(kills):
        before = DeltaTable(url).version()
        with subprocess.Popen([*arguments, "1000000"], cwd=ROOT) as writer:
            deadline = time.monotonic() + 60
            while DeltaTable(url).version() < before + 3:
                assert writer.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(chance.random() / 10)
            writer.kill()
    there = len(rows_in(url))
    assert there >= kills * ROWS_OF_A_BATCH
    write_all(url, there + 20)
    assert rows_in(url) == each_once(0, rows=there + 20)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "does not know the access key: see AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": "an-0ther-s3cret"}, "see AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ALLOW_HTTP": None}, "allow it by AWS_ALLOW_HTTP=true"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "nothing answers at http://127.0.0.1:9: see AWS_ENDPOINT_URL"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": READER_KEY}, "lack the right to do this"),
    ],
)
def test_why_a_table_cannot_be_had_is_said_with_the_setting_and_without_the_secret(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str | None], why: str
) -> None:
    for name, value in changed.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(TargetUnavailable) as raised:
        target_of(f"{bucket.url}/lake/minutes").prepare()
    said = str(raised.value)
    assert why in said
    assert SECRET_KEY not in said
    assert "an-0ther-s3cret" not in said


def test_a_bucket_that_does_not_exist_is_said(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetUnavailable, match="there is no such bucket: create it"):
        target_of("s3://never-made/lake/minutes").prepare()
    monkeypatch.setenv("STREAMS_APP", "logistics.lakehouse")
    monkeypatch.setenv("STREAMS_DELTA_URL", "s3://never-made/lake")
    result = CliRunner().invoke(app, ["delta", "compact", "delta-minutes"])
    assert "there is no such bucket: create it" in str(result.exception)


@pytest.mark.slow
def test_a_store_that_is_down_is_waited_out(bucket: Bucket, s3: S3Server) -> None:
    url = f"{bucket.url}/lake/waited"
    target = target_of(url)
    target.prepare()
    target.open([0])
    target.write(batch_of(0, 0))
    s3.kill()
    try:
        with pytest.raises(TargetUnavailable, match="or the store is down"):
            target.write(batch_of(0, 10))
    finally:
        s3.start()
    assert target.positions([0]) == {0: 10}
    target.write(batch_of(0, 10))
    assert rows_in(url) == each_once(0, rows=20)


@pytest.mark.slow
def test_a_store_that_hangs_is_given_up_within_a_minute(bucket: Bucket, s3: S3Server) -> None:
    url = f"{bucket.url}/lake/frozen"
    target = target_of(url)
    target.prepare()
    target.open([0])
    began = time.monotonic()
    with s3.frozen(), pytest.raises(TargetUnavailable):
        target.write(batch_of(0, 0))
    assert time.monotonic() - began < 60
    done = max(0, target.positions([0])[0])
    target.write(batch_of(0, done))
    assert rows_in(url) == each_once(0, rows=done + 10)
