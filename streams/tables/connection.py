"""Connections of the web server: requests that can be answered directly are, all others are the framework's.

A request costs the framework some 300 µs, of which a row by key needs none. So the bytes of a connection are looked at
first; at the first request that is not one for a row, the connection is given to the framework, for good.
"""

import asyncio
from collections import deque
from typing import Any, Final, Protocol

from uvicorn.config import Config
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.server import ServerState

from streams.tables.heads import Head, head_in, is_complete, may_be_one

KEEP_ALIVE_S: Final = 5.0
"""A connection on which nothing has come, and nothing waits, for so long is closed, as the framework does it."""
WAITING_MAX: Final = 64
"""Requests of one connection that wait for their answers; no more are read meanwhile."""


class Answering:
    """A request that waits for its answer."""

    __slots__ = ("client", "connection", "head", "message")

    def __init__(self, connection: "Connection", head: Head, client: tuple[str, int]) -> None:
        self.connection = connection
        self.head = head
        self.client = client
        """Address of whoever asks."""
        self.message: bytes | None = None

    def answer(self, status_line: bytes, headers: bytes, body: bytes) -> None:
        """Give the answer; it is sent at the next `Connection.flush`. `headers` ends with an empty line."""
        self.message = b"".join((status_line, self.connection.default_headers, headers, body))


class Direct(Protocol):
    """Who answers requests directly."""

    def take(self, answering: Answering) -> bool:
        """Take a request, to be answered later; False: it is for the framework."""


class Connection(asyncio.Protocol):
    """One client's connection, made by the server. `bound_to` makes a class of it that knows who answers requests."""

    direct: Direct

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config, self._server, self._state = config, server_state, app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._client = ("", 0)
        self._received = b""
        self._waiting: deque[Answering] = deque()
        self._heard_s = self._loop.time()
        self._idle: asyncio.TimerHandle | None = None
        self._is_held_up = self._is_closing = self._is_for_framework = False

    @property
    def default_headers(self) -> bytes:
        """What each answer says: the date."""
        return b"".join(b"%s: %s\r\n" % pair for pair in self._server.default_headers)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; asyncio calls it once for each connection."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._client = (str(peer[0]), int(peer[1])) if isinstance(peer, tuple) else ("", 0)
        self._server.connections.add(self)  # type: ignore[arg-type]  # it asks them to shut down, and nothing else
        self._idle = self._loop.call_later(KEEP_ALIVE_S, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; what was not answered is answered into nothing."""
        del exc
        self._end()
        self._transport = None
        self._waiting.clear()

    def shutdown(self) -> None:
        """Close once what waits is answered; the server calls it when it stops."""
        self._is_closing = True
        if self._transport is not None and not self._waiting:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Look for requests in what has come."""
        self._heard_s = self._loop.time()
        self._received = self._received + data if self._received else data
        self._read()

    def pause_writing(self) -> None:
        """The client takes nothing: read nothing more from it."""
        self._is_held_up = True
        self._read_on()

    def resume_writing(self) -> None:
        """The client takes data again: read on."""
        self._is_held_up = False
        self._read_on()

    def flush(self) -> None:
        """Send the answers that are there, in the order of their requests."""
        if self._transport is None:
            return
        ready = []
        while self._waiting and (message := self._waiting[0].message) is not None:
            ready.append(message)
            self._waiting.popleft()
        if ready:
            self._server.total_requests += len(ready)
            self._heard_s = self._loop.time()
            self._transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
        if self._waiting:
            return
        if self._is_closing:
            self._transport.close()
        elif self._is_for_framework:
            self._give_away()
        elif self._received:
            self._read()
        self._read_on()

    def _read(self) -> None:
        """Take the requests that are complete, as long as they can be answered directly."""
        start, data = 0, self._received
        while start < len(data) and len(self._waiting) < WAITING_MAX and not self._is_for_framework:
            found = head_in(data, start)
            if found is None:
                rest = data[start:] if start else data
                self._is_for_framework = is_complete(rest) or not may_be_one(rest)
                break
            head, after = found
            answering = Answering(self, head, self._client)
            self._waiting.append(answering)
            if not self.direct.take(answering):
                self._waiting.pop()
                self._is_for_framework = True
                break
            start = after
        self._received = data[start:]
        if self._is_for_framework and not self._waiting:
            self._give_away()
        self._read_on()

    def _read_on(self) -> None:
        """Read from the client, or let it wait, whichever is right."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._is_held_up or self._is_for_framework or len(self._waiting) >= WAITING_MAX:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _give_away(self) -> None:
        """Let the framework have the connection, and what was not answered."""
        transport, received = self._transport, self._received
        if transport is None:
            return
        self._end()
        self._transport, self._received = None, b""
        # A server's configuration takes the class of its protocols with these arguments; uvicorn itself calls it so.
        make: Any = AutoHTTPProtocol
        theirs = make(config=self._config, server_state=self._server, app_state=self._state, _loop=self._loop)
        transport.set_protocol(theirs)
        theirs.connection_made(transport)
        transport.resume_reading()
        theirs.data_received(received)

    def _end(self) -> None:
        self._server.connections.discard(self)
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _close_if_idle(self) -> None:
        left_s = self._heard_s + KEEP_ALIVE_S - self._loop.time()
        if self._waiting or left_s > 0:
            self._idle = self._loop.call_later(max(left_s, 1.0), self._close_if_idle)
        elif self._transport is not None:
            self._transport.close()


def bound_to(direct: Direct) -> type[asyncio.Protocol]:
    """The class of connections whose requests are answered by `direct` where they can be."""
    return type("DirectConnection", (Connection,), {"direct": direct})
