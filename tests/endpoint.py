"""An HTTP endpoint that takes rows of a sink, on this machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Endpoint:
    """Answers each request by `status`; notes what was taken."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], list[dict[str, Any]]]] = []
        self.taken: list[dict[str, Any]] = []
        self.refused: set[str] = set()
        self.status = 200
        self.headers: dict[str, str] = {}
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["rows"]
                endpoint.requests.append((dict(self.headers), rows))
                bad = [row["id"] for row in rows if endpoint.refused & {*map(str, row["row"].values())}]
                status = 400 if bad and endpoint.status == 200 else endpoint.status
                if status == 200:
                    endpoint.taken += rows
                self.send_response(status)
                for name, value in endpoint.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(f"no: {' '.join(bad)}".encode())

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?secret=1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
