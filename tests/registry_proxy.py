"""A reverse proxy in front of a registry: TLS, and whoever it lets in. Real HTTP on both sides."""

import base64
import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

_TIMEOUT_S: Final = 30.0
_HOP_BY_HOP: Final = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive"})


@dataclass
class Door:
    """Who is let in. All of it may be changed while the proxy runs."""

    basic: str | None = None
    """`user:password`."""
    bearer: str | None = None
    forbidden: bool = False
    """Whether who is known may do nothing."""
    seen: list[str] = field(default_factory=list)
    """Method and path of every request that was let in."""

    def status(self, authorization: str | None) -> int | None:
        """The status with which a request is refused; None: it is let in."""
        if self.basic is not None:
            wanted = f"Basic {base64.b64encode(self.basic.encode()).decode()}"
        elif self.bearer is not None:
            wanted = f"Bearer {self.bearer}"
        else:
            return 403 if self.forbidden else None
        if authorization != wanted:
            return 401
        return 403 if self.forbidden else None


@contextmanager
def registry_proxy(
    target: str, door: Door, *, certificate: Path | None = None, client_ca: Path | None = None
) -> Iterator[str]:
    """The URL of a proxy to the registry at `target`.

    `certificate`: PEM file with key and certificate, for TLS. `client_ca`: clients must have a certificate of this CA.
    """
    parts = urlsplit(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            refused = door.status(self.headers.get("Authorization"))
            if refused is not None:
                self._answer(refused, b'{"error_code": %d, "message": "not you"}' % refused, {})
                return
            door.seen.append(f"{self.command} {self.path}")
            upstream = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=_TIMEOUT_S)
            try:
                headers = {name: value for name, value in self.headers.items() if name.lower() != "authorization"}
                upstream.request(self.command, self.path, body or None, headers)
                answer = upstream.getresponse()
                self._answer(answer.status, answer.read(), dict(answer.getheaders()))
            finally:
                upstream.close()

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = _pass_on  # noqa: N815 - names of the base class

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Quiet: handshakes that fail are what tests are about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            if client_ca is not None:
                context.load_verify_locations(client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            scheme = "https"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"{scheme}://127.0.0.1:{server.server_port}{parts.path}"
        finally:
            server.shutdown()
            thread.join()
