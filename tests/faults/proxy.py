"""A TCP proxy that makes a network bad: slow, narrow, silent or broken, from one moment to the next.

Its own event loop in a thread of the test. Faults are values: assign `proxy.faults`, and open connections have them.
"""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from tests.faults.protocol import END_TXN, Answers, Requests

HOST: Final = "127.0.0.1"
_CHUNK_BYTES: Final = 65_536
_CHUNKS_IN_FLIGHT_MAX: Final = 256
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends RST."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with the network. The default is nothing."""

    latency_s: float = 0.0
    """Added to everything, in each direction."""
    bytes_per_s: float | None = None
    """Of each connection, in each direction."""
    silent: bool = False
    """Answers are swallowed; a connection that lost one is reset when the faults change."""
    lose_commit_answers: bool = False
    """From a request to end a transaction on, its connection's answers are swallowed, as above."""
    reset_commits: bool = False
    """A request to end a transaction is passed on and its connection reset before the answer comes back."""
    no_brokers: bool = False
    """Answers to metadata requests name no broker, as those of a broker that is going down may."""


class Proxy:
    """Listens on `port` and passes on to `target`; use as a context manager."""

    def __init__(self, target: int = 0) -> None:
        self.target = target
        """Port on this machine; connections made from now on go there."""
        self.on_request: Callable[[bytes], None] = lambda _: None
        """Shown every chunk that a client sends."""
        self.commits = 0
        """Requests to end a transaction that a fault befell."""
        self._faults = Faults()
        self._connections: set[_Connection] = set()
        self._socket = socket.create_server((HOST, 0))
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def faults(self) -> Faults:
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        async def change() -> None:
            self._faults = faults
            for connection in list(self._connections):
                if connection.is_spoilt:
                    connection.reset()

        self._call(change())

    def reset_all(self) -> int:
        """Reset every open connection; returns their number."""

        async def reset() -> int:
            connections = list(self._connections)
            for connection in connections:
                connection.reset()
            return len(connections)

        return int(self._call(reset()))

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=self._socket)

    async def _shut(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.reset()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others, timeout=5) if others else None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection(HOST, self.target)
        except OSError:
            _abort(writer)
            return
        connection = _Connection(self, (reader, writer), upstream)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Connection:
    """One client's connection and its counterpart to the target."""

    def __init__(self, proxy: Proxy, client: Stream, server: Stream) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self._requests = Requests()
        self._answers = Answers()
        self._mute = False
        self.is_spoilt = False
        """An answer was lost on it, or is to be."""

    async def run(self) -> None:
        pumps = [
            asyncio.ensure_future(self._pump(self._client[0], self._server[1], self._asked)),
            asyncio.ensure_future(self._pump(self._server[0], self._client[1], self._answered)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        self.reset()
        await asyncio.gather(*pumps, return_exceptions=True)

    def reset(self) -> None:
        _abort(self._client[1])
        _abort(self._server[1])

    def _asked(self, chunk: bytes) -> bytes:
        self._proxy.on_request(chunk)
        faults = self._proxy.faults
        requests = self._requests.feed(chunk)
        self._answers.expect(requests)
        if any(one.api_key == END_TXN for one in requests) and (faults.lose_commit_answers or faults.reset_commits):
            self._proxy.commits += 1
            self._mute = self.is_spoilt = True
        return chunk

    def _answered(self, chunk: bytes) -> bytes:
        """What of the answer is passed on."""
        faults = self._proxy.faults
        if self._mute and faults.reset_commits:  # the broker has carried the request out: it answers
            self.reset()
            return b""
        if faults.silent or self._mute:
            self.is_spoilt = True
            return b""
        return self._answers.feed(chunk, no_brokers=faults.no_brokers)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: Callable[[bytes], bytes]
    ) -> None:
        """Pass chunks on, each when it is due: latency must not limit the throughput."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_IN_FLIGHT_MAX)
        feeding = asyncio.ensure_future(self._feed(reader, queue, passes))
        try:
            while True:
                due, chunk = await queue.get()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if not chunk:
                    return
                writer.write(chunk)
                await writer.drain()
        except OSError:
            return
        finally:
            feeding.cancel()

    async def _feed(
        self,
        reader: asyncio.StreamReader,
        queue: asyncio.Queue[tuple[float, bytes]],
        passes: Callable[[bytes], bytes],
    ) -> None:
        chunk = b"?"
        while chunk:
            try:
                chunk = await reader.read(_CHUNK_BYTES)
            except OSError:
                chunk = b""
            if chunk and not (chunk := passes(chunk)):
                chunk = b"?"
                continue
            faults = self._proxy.faults
            await queue.put((time.monotonic() + faults.latency_s, chunk))
            if faults.bytes_per_s is not None:
                await asyncio.sleep(len(chunk) / faults.bytes_per_s)


def _abort(writer: asyncio.StreamWriter) -> None:
    own: socket.socket | None = writer.get_extra_info("socket")
    if own is not None and own.fileno() >= 0:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
