"""Files elsewhere: copied whole or not at all, by a real HTTP server and by the library of object stores."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore

from streams.errors import StreamsError, UsageError
from streams.ingest import remote
from streams.ingest.inputs import inputs_of
from streams.resilience.retry import Backoff

pytestmark = pytest.mark.thorough

CONTENT = bytes(range(256)) * 5_000


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at /file.csv as it is told to."""

    breaks = 0
    """So many answers end in the middle."""
    busy = 0
    """So many answers are 503."""
    tag: str | None = '"one"'
    ranges: bool = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if self.path.partition("?")[0] != "/file.csv":
            self.send_error(404 if self.path != "/secret.csv" else 403)
            return
        if server.busy:
            server.busy -= 1
            self.send_error(503)
            return
        start = 0
        if wanted is not None and server.ranges and self.headers.get("If-Range") == server.tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if server.tag is not None:
            self.send_header("ETag", server.tag)
        self.end_headers()
        body = CONTENT[start:]
        if server.breaks:
            server.breaks -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote, "_BACKOFF", Backoff(first_s=0.001, pause_s_max=0.001))
    with Server() as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def test_a_file_by_http_is_copied_and_removed_at_the_end(server: Server) -> None:
    seen: list[float] = []
    with inputs_of([f"{server.url}/file.csv?signature=s3cret"], fetching=seen.append) as (one,):
        assert one.path.read_bytes() == CONTENT
        assert one.path.name == "file.csv"
        assert one.name == f"{server.url}/file.csv"
    assert not one.path.exists()
    assert seen[-1] == 1.0


@pytest.mark.parametrize(("tag", "ranges"), [('"one"', True), ('"one"', False), (None, True), ('W/"one"', True)])
def test_a_copy_that_breaks_off_goes_on_or_begins_again(server: Server, tag: str | None, *, ranges: bool) -> None:
    server.breaks, server.busy, server.tag, server.ranges = 3, 2, tag, ranges
    with inputs_of([f"{server.url}/file.csv"]) as (one,):
        assert one.path.read_bytes() == CONTENT
    has_gone_on = any(server.asked)
    assert has_gone_on == (tag == '"one"')


def test_a_server_that_gives_nothing_is_given_up(server: Server) -> None:
    server.busy = 100
    with pytest.raises(StreamsError, match="503"), inputs_of([f"{server.url}/file.csv"]):
        pass


@pytest.mark.parametrize(("path", "error"), [("/none.csv", UsageError), ("/secret.csv", StreamsError)])
def test_what_is_not_there_or_refused_is_said(server: Server, path: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=path), inputs_of([f"http://me:s3cret@127.0.0.1:{server.server_port}{path}"]):
        pass


def test_a_file_that_has_no_room_is_refused_before_it_is_copied(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_ROOM_LEFT_BYTES", 1 << 60)
    with pytest.raises(StreamsError, match="no room"), inputs_of([f"{server.url}/file.csv"]):
        pass


def test_a_pattern_names_objects_in_their_order(tmp_path: Path) -> None:
    store = MemoryStore()
    for name in ("2026/day-2.csv", "2026/day-1.csv", "2026/other.txt", "2025/day-1.csv"):
        obstore.put(store, name, name.encode() * 1_000)
    names = remote._names(obstore, store, "2026/day-*.csv", "s3://b/2026/day-*.csv")
    assert names == ["2026/day-1.csv", "2026/day-2.csv"]
    seen: list[float] = []
    remote._copy_object(obstore, store, names[0], tmp_path / "copy", "s3://b/x", seen.append)
    assert (tmp_path / "copy").read_bytes() == b"2026/day-1.csv" * 1_000
    assert seen[-1] == 1.0
    with pytest.raises(UsageError, match="no object matches"):
        remote._names(obstore, store, "2024/*", "s3://b/2024/*")


def test_an_object_store_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("AWS_ALLOW_HTTP", "true"), ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "me"), ("AWS_SECRET_ACCESS_KEY", "s3cret"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "_RETRIES", {"max_retries": 0})
    with (
        pytest.raises(StreamsError, match="cannot be read") as raised,
        inputs_of(["s3://fleet/a.csv"]),
    ):
        pass
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("address", ["s3://", "s3://me:word@bucket/x.csv", "gs://bucket/x?y=1"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="BUCKET/PATH"), inputs_of([address]):
        pass
