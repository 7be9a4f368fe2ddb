"""Metrics that worker and sink share. Names are a contract with dashboards and alerts."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge


@dataclass(frozen=True, slots=True)
class SharedMetrics:
    """Metrics of every process that consumes a topic and may lose its place to another process."""

    fenced: Counter
    breaker_state: Gauge
    paused_partitions: Gauge

    @staticmethod
    def of(registry: CollectorRegistry) -> "SharedMetrics":
        """Made and registered."""
        return SharedMetrics(
            fenced=Counter("streams_fenced", "Times another process took over.", registry=registry),
            breaker_state=Gauge(
                "streams_breaker_state",
                "Circuit breaker: 0 closed, 1 half-open (one call probes), 2 open (left alone).",
                ("downstream",),
                registry=registry,
            ),
            paused_partitions=Gauge(
                "streams_paused_partitions",
                "Partitions that are not consumed, by reason.",
                ("reason",),
                registry=registry,
            ),
        )
