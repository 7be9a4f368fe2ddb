"""Runs the monitor: the watcher in its thread, the web server on the event loop, until SIGTERM or Ctrl-C."""

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

import structlog
import uvicorn

from streams.deadletters.letter.figures import Figures
from streams.flow.declaration import Pipeline
from streams.flow.graph import Graph
from streams.hosts import Hosts
from streams.listening import listening, url_of
from streams.monitor.history.prometheus import PrometheusHistory
from streams.monitor.notify.notifier import Notifier
from streams.monitor.notify.problems import problems_of
from streams.monitor.notify.targets import targets_of
from streams.monitor.notify.words import Origin
from streams.monitor.scale import ScalePolicy
from streams.monitor.watcher import Watcher
from streams.monitor.web.app import MonitorWeb, Panel
from streams.settings import Settings

log = structlog.get_logger(__name__)

_GRACE_S: Final = 3


class MonitorProcess:
    """Everything of the monitor; `run` blocks until it is stopped."""

    def __init__(
        self,
        settings: Settings,
        flows: Sequence[Pipeline],
        *,
        port: int,
        panels: Sequence[Panel] = (),
        count_letters: Callable[[], Sequence[Figures]] = tuple,
        graphs: Sequence[Graph] = (),
    ) -> None:
        """Take the port. The broker need not be there yet. `count_letters`: see `Watcher`.

        `graphs`: the flows, for their page.

        Raises:
            StreamsError: the port is taken.
            UsageError: a setting is not usable.

        """
        self._socket = listening(settings.streams_web_host, [port])
        self._watcher = Watcher(settings, flows, count_letters=count_letters)
        self._notifier = Notifier(
            targets_of(settings),
            lambda: problems_of(self._watcher.latest, self._watcher.health()),
            Origin(settings.streams_cluster_name, settings.streams_monitor_url.rstrip("/")),
            wait_s=settings.streams_notify_wait_s,
            repeat_s=settings.streams_notify_repeat_s,
            every_s=settings.streams_monitor_interval_s,
        )
        names = {name.strip().lower() for name in settings.streams_web_names.split(",")} - {""}
        self._web = MonitorWeb(
            self._watcher,
            bootstrap_servers=settings.kafka_bootstrap_servers,
            hosts=Hosts(settings.streams_web_host, frozenset({*names, socket.gethostname().lower()})),
            scale=ScalePolicy.of(settings),
            panels=panels,
            graphs=graphs,
            notified=self._notifier.counts,
            prometheus=PrometheusHistory(settings) if settings.streams_prometheus_url else None,
        )
        self._server = _Server(
            uvicorn.Config(
                self._web.app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
            ),
            self._web,
        )

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"{url_of(self._socket)}/"

    def run(self) -> None:
        """Watch and answer until SIGTERM or Ctrl-C; to be called in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        log.info("monitor", page=self.address, metrics=f"{self.address}metrics")
        self._notifier.start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._notifier.stop()
            self._watcher.stop()

    def _end(self, _: int, __: FrameType | None) -> None:
        """Before the server has begun. It raises the signals again that ended it: they have been obeyed."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """Ends the streams of events first: they would never end by themselves."""

    def __init__(self, config: uvicorn.Config, web: MonitorWeb) -> None:
        super().__init__(config)
        self._web = web

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End streams, then the rest."""
        await self._web.live.end()
        await asyncio.to_thread(self._web.stop_panels)
        await super().shutdown(sockets)
