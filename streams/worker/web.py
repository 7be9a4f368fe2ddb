"""The worker's web server: metrics, liveness, readiness. Loopback unless told otherwise."""

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from streams.listening import listening, url_of

log = structlog.get_logger(__name__)

DEFAULT_PORT: Final = 6066
_TRIES: Final = 50
_GRACE_S: Final = 1


class HttpServer:
    """An HTTP server on a socket that listens, in the event loop of the process."""

    def __init__(
        self, routes: Sequence[Route], listener: socket.socket, connections: type[asyncio.Protocol] | None = None
    ) -> None:
        """Use this socket; `stop` closes it. `connections`: the class of connections, in place of the server's own."""
        self._listener = listener
        self._server = _Server(
            uvicorn.Config(
                Starlette(routes=routes), log_config=None, log_level="warning", access_log=False, server_header=False,
                lifespan="off", timeout_graceful_shutdown=_GRACE_S, http=connections or "auto",
            )
        )  # fmt: skip
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start serving."""
        self._serving = asyncio.create_task(self._server.serve([self._listener]))
        is_up = asyncio.create_task(self._server.is_up.wait())
        done, _ = await asyncio.wait({self._serving, is_up}, return_when=asyncio.FIRST_COMPLETED)
        if is_up not in done:
            is_up.cancel()
            await self._serving
        url = url_of(self._listener)
        log.info("web server", metrics=f"{url}/metrics", readiness=f"{url}/readyz")

    async def stop(self) -> None:
        """Stop serving, and close the socket."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        self._listener.close()


def take_port(host: str, port: int | None) -> socket.socket:
    """A socket that listens at a port of `host` (`streams.listening`); None: the default port, or the next free one.

    Raises:
        StreamsError: the port is taken.
        UsageError: the host is no address of this machine.

    """
    return listening(host, range(DEFAULT_PORT, DEFAULT_PORT + _TRIES) if port is None else [port])


class Web:
    """HTTP server of one worker."""

    def __init__(
        self,
        registry: CollectorRegistry,
        unready: Callable[[], str | None],
        remarks: Callable[[], list[str]] = list,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        listener: socket.socket | None = None,
        further: Sequence[Route] = (),
        connections: type[asyncio.Protocol] | None = None,
    ) -> None:
        """Take the port (`take_port`), unless there is a `listener` already: the socket that a supervisor has made.

        `/readyz` answers 503 with what `unready` returns, else 200; the lines after that are the `remarks`. `further`
        routes are served as well. `connections`: see `HttpServer`.

        Raises:
            StreamsError: the port is taken.
            UsageError: the host is no address of this machine.

        """
        self._registry = registry
        self._unready = unready
        self._remarks = remarks
        self._socket = take_port(host, port) if listener is None else listener
        self._server = HttpServer(
            [
                *further,  # first: of all that is asked, they may be asked most often
                Route("/metrics", self._metrics),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
            ],
            self._socket,
            connections,
        )

    async def start(self) -> None:
        """Start serving."""
        await self._server.start()

    async def stop(self) -> None:
        """Stop serving."""
        await self._server.stop()

    async def _metrics(self, request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encoder(self._registry), headers={"Content-Type": content_type})

    async def _healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        reason = self._unready()
        lines = [reason or "ok", *self._remarks()]
        return PlainTextResponse("".join(f"{line}\n" for line in lines), 503 if reason else 200)


class _Server(uvicorn.Server):
    """A server that reports when it is started, and leaves the signals of the process to the worker."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and report it."""
        await super().startup(sockets)
        self.is_up.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signal handling to the worker."""
        yield
