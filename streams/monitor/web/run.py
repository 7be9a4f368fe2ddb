"""The monitor with the page of dead letters in it, run until it is stopped."""

import threading
from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest

from streams.deadletters.review.collector import DeadLetterCollector
from streams.deadletters.web.app import dead_letters_app
from streams.deadletters.web.steward import Steward
from streams.flow.declaration import Pipeline
from streams.flow.discover import declared_flows, select_pipelines
from streams.flow.graph import Graph, graph_of
from streams.monitor.clusters import further_clusters
from streams.monitor.web.app import Panel
from streams.monitor.web.cluster import ClusterMonitor
from streams.monitor.web.clusters import PREFIX
from streams.monitor.web.pages import of_clusters
from streams.monitor.web.server import MonitorProcess
from streams.settings import Settings

CLOSE_S: Final = 3.0


class Monitor:
    """The monitor of a cluster. Errors such as a port in use are raised by the constructor."""

    def __init__(
        self,
        settings: Settings,
        flows: Sequence[Pipeline],
        *,
        port: int,
        panels: Callable[[Steward], Sequence[Panel]] = lambda _: (),
    ) -> None:
        """`panels`: further pages, which may show dead letters."""
        self._steward = Steward(settings)
        metrics = CollectorRegistry()
        metrics.register(DeadLetterCollector(self._steward.figures))
        review = Panel(
            "/dead-letters",
            "Dead letters",
            dead_letters_app(settings, steward=self._steward),
            metrics=lambda: generate_latest(metrics),
        )
        further = panels(self._steward)
        others = further_clusters(settings)
        names = [settings.streams_cluster_name, *others]
        if others and not settings.streams_prometheus_labels:
            settings = settings.model_copy(update={"streams_prometheus_labels": f"cluster={names[0]}"})
        pages = of_clusters(names) if others else ()
        first = ClusterMonitor(
            settings,
            flows,
            _graphs(settings),
            panels=[*further, review],
            count_letters=self._steward.figures,
            clusters=pages,
        )
        clusters = {names[0]: first} | {
            name: ClusterMonitor(
                one,
                select_pipelines(None, prefix=one.streams_topic_prefix),
                _graphs(one),
                base=f"{PREFIX}{name}",
                clusters=pages,
            )
            for name, one in others.items()
        }
        self._process = MonitorProcess(settings, clusters, port=port)

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C."""
        try:
            self._process.run()
        finally:
            # A count may still wait for a broker that is away: it ends with the process.
            closing = threading.Thread(target=self._steward.close, daemon=True)
            closing.start()
            closing.join(CLOSE_S)


def _graphs(settings: Settings) -> list[Graph]:
    prefix = settings.streams_topic_prefix
    return [graph_of(one.flow, one.flow.pipeline.with_prefix(prefix)) for one in declared_flows()]
