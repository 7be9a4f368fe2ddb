"""The monitor with the page of dead letters in it, run until it is told to stop."""

import threading
from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest

from streams.deadletters.review.collector import DeadLetterCollector
from streams.deadletters.web.app import dead_letters_app
from streams.deadletters.web.steward import Steward
from streams.flow.declaration import Pipeline
from streams.flow.discover import declared_flows
from streams.flow.graph import graph_of
from streams.monitor.web.app import Panel
from streams.monitor.web.server import MonitorProcess
from streams.settings import Settings

CLOSE_S: Final = 3.0


class Monitor:
    """The monitor of a cluster; what is wrong from the start, such as a port in use, is raised when it is made."""

    def __init__(
        self,
        settings: Settings,
        flows: Sequence[Pipeline],
        *,
        port: int,
        panels: Callable[[Steward], Sequence[Panel]] = lambda _: (),
    ) -> None:
        """`panels`: further pages, which may ask about dead letters."""
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
        prefix = settings.streams_topic_prefix
        self._process = MonitorProcess(
            settings,
            flows,
            port=port,
            panels=[*further, review],
            count_letters=self._steward.figures,
            graphs=[graph_of(one.flow, one.flow.pipeline.with_prefix(prefix)) for one in declared_flows()],
        )

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C."""
        try:
            self._process.run()
        finally:
            # A count may still wait for a broker that is away: it ends with the process.
            closing = threading.Thread(target=self._steward.close, daemon=True)
            closing.start()
            closing.join(CLOSE_S)
