"""`streams schemas check --locked`: what fails it, and what does not."""

import http.server
import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from streams.cli import main
from streams.schemas.catalog import schemas_dir
from streams.schemas.lock import LOCK_FILE


class Done(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Done]
UNREACHABLE = "http://127.0.0.1:1/apis"


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def check(*arguments: str, root: Path | None = None, url: str = UNREACHABLE) -> Done:
        monkeypatch.setenv("STREAMS_SCHEMAS_DIR", str(root or schemas_dir()))
        monkeypatch.setenv("SCHEMA_REGISTRY_URL", url)
        monkeypatch.setattr(sys, "argv", ["streams", "schemas", "check", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return check


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """Something that gives every request the same answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/apis"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, '{"error_code": 401, "message": "Unauthorized"}', "HTTP 401: Unauthorized"),
        (403, '{"error_code": 40301, "message": "not yours"}', "HTTP 403: not yours"),
        (500, '{"error_code": 50001, "message": "store is down"}', "HTTP 500: store is down"),
        (404, "<html>no such page</html>", "HTTP 404"),
        (200, "<html>welcome</html>", "something answers there, but not a schema registry"),
    ],
)
def test_a_registry_that_answers_with_an_error_fails_what_ci_runs(
    status: int, body: str, words: str, check: Run
) -> None:
    with answering(status, body) as url:
        done = check("--locked", url=url)
        assert (done.status, done.err.count("\n")) == (1, 1)
        assert f"no usable answer from the schema registry at {url}" in done.err
        assert words in done.err
        by_hand = check(url=url)
        assert (by_hand.status, by_hand.err) == (0, "")
        assert "not asked, it answers with an error" in by_hand.out


def test_a_registry_that_cannot_be_reached_fails_only_who_insists(check: Run) -> None:
    done = check("--locked")
    assert (done.status, done.err) == (0, "")
    assert "not asked, it does not answer" in done.out
    assert 1 == check("--locked", "--registry").status


def test_a_lock_that_is_not_utf8_is_said_in_a_line(check: Run, tmp_path: Path) -> None:
    root = tmp_path / "schemas"
    shutil.copytree(schemas_dir(), root)
    (root / LOCK_FILE).write_bytes("# Größe\n".encode("latin-1"))
    done = check("--locked", "--offline", root=root)
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert f"{LOCK_FILE}: cannot be read: 'utf-8' codec can't decode" in done.err


def test_a_locked_file_that_is_not_utf8_is_a_finding(check: Run, tmp_path: Path) -> None:
    root = tmp_path / "schemas"
    shutil.copytree(schemas_dir(), root)
    file = root / "gps.positions.v1-value" / "1.avsc"
    file.write_bytes(file.read_text(encoding="utf-8").encode("utf-16"))
    done = check("--locked", "--offline", root=root)
    assert done.status == 100
    assert "1.avsc:1: cannot be read: 'utf-8' codec can't decode" in done.out


def test_a_row_schema_that_does_not_fit_its_fold_is_found(check: Run, tmp_path: Path) -> None:
    root = tmp_path / "schemas"
    shutil.copytree(schemas_dir(), root)
    (root / LOCK_FILE).unlink()
    file = root / "vehicles.minutes.v1-value" / "1.avsc"
    text = file.read_text(encoding="utf-8").replace('"distance_km", "type": "double"', '"distance_km", "type": "long"')
    file.write_text(text, encoding="utf-8")
    done = check("--offline", "--format", "json", root=root)
    (finding,) = json.loads(done.out)["findings"]
    assert (done.status, finding["rule"], finding["field"]) == (100, "row_schema", "distance_km")
    assert finding["message"] == "the fold gives double, the schema says long"
