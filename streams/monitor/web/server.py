"""Runs the monitor: watchers in their threads, the web server on the event loop, until SIGTERM or Ctrl-C."""

import asyncio
import signal
import socket
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Final

import structlog
import uvicorn

from streams.listening import listening, url_of
from streams.monitor.web.app import MonitorWeb
from streams.monitor.web.cluster import ClusterMonitor
from streams.monitor.web.clusters import ClustersWeb
from streams.settings import Settings

log = structlog.get_logger(__name__)

_GRACE_S: Final = 3


class MonitorProcess:
    """Everything of the monitor; `run` blocks until it is stopped."""

    def __init__(self, settings: Settings, clusters: Mapping[str, ClusterMonitor], *, port: int) -> None:
        """Take the port. The brokers need not be there yet. `settings`: of the first cluster; where to listen.

        Raises:
            StreamsError: the port is taken.

        """
        self._socket = listening(settings.streams_web_host, [port])
        self._clusters = tuple(clusters.values())
        webs = {name: one.web for name, one in clusters.items()}
        app = ClustersWeb(webs).app if len(webs) > 1 else self._clusters[0].web.app
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
            ),
            [one.web for one in self._clusters],
        )

    @property
    def address(self) -> str:
        """Address of the page."""
        return f"{url_of(self._socket)}/"

    def run(self) -> None:
        """Watch and answer until SIGTERM or Ctrl-C; to be called in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        log.info("monitor", page=self.address, metrics=f"{self.address}metrics")
        for one in self._clusters:
            one.start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            for one in self._clusters:
                one.stop()

    def _end(self, _: int, __: FrameType | None) -> None:
        """Stop before the server has begun. It raises the signals again that ended it: they have been handled."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """Ends the event streams first, since they would never end by themselves."""

    def __init__(self, config: uvicorn.Config, webs: Sequence[MonitorWeb]) -> None:
        super().__init__(config)
        self._webs = webs

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End streams, then the rest."""
        for web in self._webs:
            await web.live.end()
            await asyncio.to_thread(web.stop_panels)
        await super().shutdown(sockets)
