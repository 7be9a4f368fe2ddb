"""A proxy before a web server, as a reverse proxy is: it passes everything on, or answers by itself."""

import socket
import threading
from types import TracebackType
from typing import Self


class Gateway:
    """Passes connections on to `port` of this machine; see what can be made of it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._held: set[socket.socket] = set()
        self._status: str | None = None
        self.refused = 0
        """Requests answered by the gateway itself."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._cut()

    def answer_only(self, status: str) -> None:
        """Break all connections, and answer requests on new ones with `status`, such as `502 Bad Gateway`."""
        self._status = status
        self._cut()

    def pass_on(self) -> None:
        """Pass on what comes from now on."""
        self._status = None

    def hold_open_connections(self) -> None:
        """Connections that are open stay so, and nothing comes on them any more."""
        self._held |= self._open

    def _cut(self) -> None:
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed meanwhile

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._status is not None:
            with client:
                client.recv(65_536)
                self.refused += 1
                client.sendall(f"HTTP/1.1 {self._status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return
        server = socket.create_connection(("127.0.0.1", self._target))
        self._open |= {client, server}
        sending = threading.Thread(target=self._pump, args=(client, server), daemon=True)
        sending.start()
        self._pump(server, client)
        sending.join()
        self._open -= {client, server}
        client.close()
        server.close()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while part := source.recv(65_536):
                if source not in self._held:
                    target.sendall(part)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return  # one of the two is gone
