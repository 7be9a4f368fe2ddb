"""What the tests ask tables with: nothing that is no answer of tables passes unnoticed."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.integration.tables import Asking


@dataclass(frozen=True, slots=True)
class Answering:
    port: int


@contextmanager
def answering(status: int, body: bytes) -> Iterator[Answering]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Answering(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [(500, b"Internal Server Error", "no JSON"), (200, b"<html>", "no JSON"), (503, b'{"error":""}', "it says why")],
)
def test_an_answer_that_is_none_fails_the_test(status: int, body: bytes, says: str) -> None:
    with (
        answering(status, body) as worker,
        pytest.raises(AssertionError, match=says),
        Asking([worker], ["a-key"], threads=1) as asking,
    ):
        asking.wait()


def fail_after(asking: Asking) -> None:
    asking.wait()
    raise ValueError("the block's own")


def test_other_failures_of_the_block_come_first() -> None:
    with (
        answering(500, b"Internal Server Error") as worker,
        pytest.raises(ValueError, match="the block's own"),
        Asking([worker], ["a-key"], threads=1) as asking,
    ):
        fail_after(asking)


def test_answers_are_kept() -> None:
    with answering(404, b'{"error":"no such key"}') as worker, Asking([worker], ["a-key"], threads=1) as asking:
        until_s = time.monotonic() + 5
        while not asking.answers and time.monotonic() < until_s:
            time.sleep(0.01)
    assert ("a-key", None) == asking.answers[0]
