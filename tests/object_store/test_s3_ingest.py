"""`streams ingest file` from S3 and by HTTP, from a real server."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.errors import StreamsError, UsageError
from streams.ingest import remote
from streams.ingest.inputs import inputs_of
from tests.object_store.server import SECRET_KEY, Bucket

pytestmark = [pytest.mark.s3, pytest.mark.thorough]

ROW = "van-{n},2026-01-02T03:04:0{n}Z,48.1,11.5\n"
HEADER = "device_id,event_time,latitude,longitude\n"


def dry_run(*addresses: str) -> tuple[int, str]:
    """How the command ends, and what it says."""
    result = CliRunner().invoke(app, ["ingest", "file", *addresses, "--topic", "gps.positions.v1", "--dry-run"])
    if isinstance(result.exception, StreamsError):
        return result.exception.exit_status, str(result.exception)
    return result.exit_code, result.stdout


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("structlog.configure", lambda **_: None)
    monkeypatch.setitem(remote._RETRIES, "max_retries", 1)


def test_files_of_a_pattern_are_read_and_one_by_http_too(bucket: Bucket) -> None:
    for day in (1, 2):
        obstore.put(bucket.store, f"2026/day-{day}.csv", (HEADER + ROW.format(n=day)).encode())
    obstore.put(bucket.store, "2026/other.csv", b"nothing of it")
    status, said = dry_run(f"{bucket.url}/2026/day-*.csv")
    assert (0, True) == (status, "2 files" in said), said
    url = obstore.sign(bucket.store, "GET", "2026/day-1.csv", expires_in=remote._RETRIES["retry_timeout"])
    status, said = dry_run(url)
    assert 0 == status, said
    assert "X-Amz" not in said
    assert "Signature" not in said


@pytest.mark.parametrize(
    ("path", "changed", "status", "why"),
    [
        ("none.csv", {}, 2, "no such object"),
        ("none-*.csv", {}, 2, "no object matches"),
        ("a.csv", {"AWS_ACCESS_KEY_ID": "nobody"}, 1, "see AWS_ACCESS_KEY_ID"),
        ("*.csv", {"AWS_SECRET_ACCESS_KEY": "an-0ther-s3cret"}, 1, "see AWS_SECRET_ACCESS_KEY"),
        ("a.csv", {"AWS_ALLOW_HTTP": "false"}, 1, "allow it by AWS_ALLOW_HTTP=true"),
        ("a.csv", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, 1, "nothing answers at http://127.0.0.1:9"),
    ],
)
def test_why_nothing_can_be_read_is_said_with_the_setting_and_without_the_secret(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, path: str, changed: dict[str, str], status: int, why: str
) -> None:
    obstore.put(bucket.store, "a.csv", HEADER.encode())
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    ended, said = dry_run(f"{bucket.url}/{path}")
    assert (status, True) == (ended, why in said), said
    assert SECRET_KEY not in said
    assert "an-0ther-s3cret" not in said


@pytest.mark.parametrize("path", ["a.csv", "*.csv"])
def test_a_bucket_that_does_not_exist_is_said(bucket: Bucket, path: str) -> None:
    _, said = dry_run(f"s3://never-made/{path}")
    assert "there is no such bucket: create it" in said


CONTENT = bytes(range(256)) * (14 << 12)
"""More than the buffers of a connection hold."""


def test_a_copy_that_takes_longer_than_a_request_may_is_whole(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    obstore.put(bucket.store, "large.csv", CONTENT)
    slow = _slow(monkeypatch, lambda: None)
    with inputs_of([f"{bucket.url}/large.csv"], fetching=slow) as (one,):
        assert one.path.read_bytes() == CONTENT


def test_an_object_that_is_replaced_while_it_is_copied_is_no_mixture(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    obstore.put(bucket.store, "large.csv", CONTENT)
    slow = _slow(monkeypatch, lambda: obstore.put(bucket.store, "large.csv", CONTENT[::-1]))
    with (
        pytest.raises(StreamsError, match="replaced while it was read"),
        inputs_of([f"{bucket.url}/large.csv"], fetching=slow),
    ):
        pass


def _slow(monkeypatch: pytest.MonkeyPatch, in_between: Any) -> Any:
    """A reader that takes longer than a request, and its retries, may: once, in the middle."""
    monkeypatch.setenv("AWS_TIMEOUT", "700ms")
    monkeypatch.setitem(remote._RETRIES, "retry_timeout", timedelta(seconds=0.7))
    waited: list[float] = []

    def told(share: float) -> None:
        if share > 0.1 and not waited:
            waited.append(share)
            in_between()
            time.sleep(1.5)

    return told


def test_no_rows_are_taken_for_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="BUCKET/PATH"), inputs_of(["s3://"]):
        pass
