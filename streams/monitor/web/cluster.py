"""What a monitor has per cluster: the watcher, the sender of messages, and the web application."""

import socket
from collections.abc import Callable, Sequence

from streams.deadletters.letter.figures import Figures
from streams.flow.declaration import Pipeline
from streams.flow.graph import Graph
from streams.hosts import Hosts
from streams.monitor.history.prometheus import PrometheusHistory
from streams.monitor.notify.notifier import Notifier
from streams.monitor.notify.problems import problems_of
from streams.monitor.notify.targets import targets_of
from streams.monitor.notify.words import Origin
from streams.monitor.scale import ScalePolicy
from streams.monitor.watcher import Watcher
from streams.monitor.web.app import MonitorWeb, Panel
from streams.monitor.web.pages import Page
from streams.settings import Settings


class ClusterMonitor:
    """The monitor of one cluster. Its watcher starts with the application."""

    def __init__(
        self,
        settings: Settings,
        flows: Sequence[Pipeline],
        graphs: Sequence[Graph],
        *,
        panels: Sequence[Panel] = (),
        count_letters: Callable[[], Sequence[Figures]] = tuple,
        base: str = "",
        clusters: Sequence[Page] = (),
    ) -> None:
        """`count_letters`: see `Watcher`; `base`, `clusters`: see `MonitorWeb`.

        Raises:
            UsageError: a setting is not usable.

        """
        self._watcher = Watcher(settings, flows, count_letters=count_letters)
        url = settings.streams_monitor_url.rstrip("/")
        self._notifier = Notifier(
            targets_of(settings),
            lambda: problems_of(self._watcher.latest, self._watcher.health()),
            Origin(settings.streams_cluster_name, f"{url}{base}" if url else ""),
            wait_s=settings.streams_notify_wait_s,
            repeat_s=settings.streams_notify_repeat_s,
            every_s=settings.streams_monitor_interval_s,
        )
        names = {name.strip().lower() for name in settings.streams_web_names.split(",")} - {""}
        self.web = MonitorWeb(
            self._watcher,
            bootstrap_servers=settings.kafka_bootstrap_servers,
            hosts=Hosts(settings.streams_web_host, frozenset({*names, socket.gethostname().lower()})),
            scale=ScalePolicy.of(settings),
            panels=panels,
            graphs=graphs,
            notified=self._notifier.counts,
            prometheus=PrometheusHistory(settings) if settings.streams_prometheus_url else None,
            base=base,
            clusters=clusters,
        )

    def start(self) -> None:
        """Start sending messages."""
        self._notifier.start()

    def stop(self) -> None:
        """Stop sending messages."""
        self._notifier.stop()
        self._watcher.stop()
