"""The worker's web server: metrics, liveness, readiness. Loopback unless told otherwise."""

import os
from collections.abc import Callable
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from streams.errors import StreamsError

log = structlog.get_logger(__name__)

DEFAULT_PORT: Final = 6066
HOST_VARIABLE: Final = "STREAMS_WEB_HOST"
_TRIES: Final = 50


class Web:
    """HTTP server of one worker."""

    def __init__(self, registry: CollectorRegistry, unready: Callable[[], str | None], *, port: int | None) -> None:
        """`port` None: the default one, or the next that is free."""
        self._registry = registry
        self._unready = unready
        self._port = port
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Listen.

        Raises:
            StreamsError: the port is taken.

        """
        await self._runner.setup()
        host = os.environ.get(HOST_VARIABLE, "127.0.0.1")
        ports = [self._port] if self._port is not None else list(range(DEFAULT_PORT, DEFAULT_PORT + _TRIES))
        for port in ports:
            try:
                await web.TCPSite(self._runner, host, port).start()
            except OSError as error:
                reason = error.strerror
                continue
            log.info("web server", metrics=f"http://{host}:{port}/metrics", readiness=f"http://{host}:{port}/readyz")
            return
        raise StreamsError(f"port {ports[0]} cannot be used ({reason}): choose another with --web-port")

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
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)
