"""Metrics of a sink's process. Names are a contract with dashboards and alerts."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from streams.shared_metrics import SharedMetrics

_WRITE_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
OUTCOMES: Final = ("written", "deleted", "replaced", "rejected")
"""Outcomes of a record: its row is in the target; it deleted one; a later one of the batch has its key; it is a dead
letter of the sink.
"""


class SinkMetrics:
    """Metrics of one sink."""

    def __init__(self, sink: str) -> None:
        self.registry = registry = CollectorRegistry()
        self._records = Counter(
            "streams_sink_records",
            "Records by what became of them, when the target has them.",
            ("sink", "outcome"),
            registry=registry,
        )
        for outcome in OUTCOMES:
            self._records.labels(sink, outcome)
        self._sink = sink
        self.write_seconds = Histogram(
            "streams_sink_write_seconds",
            "Duration of a write that the target has accepted, decoding included.",
            ("sink",),
            registry=registry,
            buckets=_WRITE_SECONDS,
        ).labels(sink)
        self.unwritten_seconds = Gauge(
            "streams_sink_unwritten_seconds",
            "Age of the oldest record that was read and that the target does not have; 0 where there is none.",
            ("sink",),
            registry=registry,
        ).labels(sink)
        self.failures = Counter(
            "streams_sink_failures",
            "Attempts that failed because the target is unavailable.",
            ("sink",),
            registry=registry,
        ).labels(sink)
        shared = SharedMetrics.of(registry)
        self.fenced, self.breaker_state = shared.fenced, shared.breaker_state
        self.paused_partitions = shared.paused_partitions
        self.records_lost = Counter(
            "streams_records_lost",
            "Offsets of the topic that retention deleted before they were read; transaction markers count too.",
            ("topic",),
            registry=registry,
        )

    def took(self, outcome: str, count: int) -> None:
        """Count records by outcome."""
        if count:
            self._records.labels(self._sink, outcome).inc(count)
