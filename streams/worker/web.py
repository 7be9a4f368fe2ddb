"""The worker's web server: metrics, liveness, readiness. Loopback unless told otherwise."""

from collections.abc import Callable
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from streams.listening import listening, url_of

log = structlog.get_logger(__name__)

DEFAULT_PORT: Final = 6066
_TRIES: Final = 50


class Web:
    """HTTP server of one worker."""

    def __init__(
        self,
        registry: CollectorRegistry,
        unready: Callable[[], str | None],
        remarks: Callable[[], list[str]] = list,
        *,
        host: str = "127.0.0.1",
        port: int | None,
    ) -> None:
        """Take the port of `host` (`streams.listening`). `port` None: the default one, or the next that is free.

        `/readyz` answers 503 with what `unready` returns, else 200; the lines after that are the `remarks`.

        Raises:
            StreamsError: the port is taken.
            UsageError: the host is no address of this machine.

        """
        self._registry = registry
        self._unready = unready
        self._remarks = remarks
        ports = range(DEFAULT_PORT, DEFAULT_PORT + _TRIES) if port is None else [port]
        self._socket = listening(host, ports)
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Answer."""
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()
        url = url_of(self._socket)
        log.info("web server", metrics=f"{url}/metrics", readiness=f"{url}/readyz")

    async def stop(self) -> None:
        """Close."""
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encoder(self._registry), headers={"Content-Type": content_type})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reason = self._unready()
        lines = [reason or "ok", *self._remarks()]
        return web.Response(text="".join(f"{line}\n" for line in lines), status=503 if reason else 200)
