"""A REST source on loopback: pages, times, tokens, and whatever goes wrong."""

import http.server
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

Handler = Callable[[str, dict[str, str], dict[str, str], bytes], tuple[int, dict[str, str], bytes]]
"""Path, parameters, headers (lower case) and body of a request; status, headers and body of the answer."""


@contextmanager
def serving(handle: Handler) -> Iterator[str]:
    """The address of a server that answers as `handle` says."""

    class One(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, given, content = handle(parts.path, dict(parse_qsl(parts.query)), headers, body)
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **given}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815 - the names of the base class

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as above
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), One)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


POSITIONS_SOURCE: Final = """
source = "{source}"
url = "{url}/positions"
records = "/items"
every = "100ms"
[cursor.page]
parameter = "page"
next = "/next"
[fields]
event_id = {{ at = "/event_id" }}
device_id = {{ at = "/device_id" }}
event_time = {{ at = "/event_time" }}
latitude = {{ at = "/latitude" }}
longitude = {{ at = "/longitude" }}
"""
"""Declaration of a source that pulls them; to be formatted with the topic and the address of the server."""


@dataclass
class Positions:
    """Records in pages, each page naming the next; a share of the requests fails."""

    records: list[dict[str, Any]]
    size: int = 50
    failing: float = 0.0
    seeded: random.Random = field(default_factory=lambda: random.Random(8123))
    asked: int = 0
    failed: int = 0

    def __call__(
        self, path: str, parameters: dict[str, str], headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        self.asked += 1
        if self.seeded.random() < self.failing:
            self.failed += 1
            kind = self.seeded.randrange(5)
            return [
                (500, {}, b"no"),
                (503, {"Retry-After": "0"}, b""),
                (200, {}, b"{"),
                (0, {}, b""),
                (200, {"Content-Encoding": "gzip"}, b"x"),
            ][kind]
        first = int(parameters.get("page", "0"))
        part = self.records[first : first + self.size]
        following = first + len(part)
        return 200, {}, json.dumps({"items": part, "next": str(following)}).encode()
