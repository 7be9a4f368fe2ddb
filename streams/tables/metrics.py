"""Metrics of queries."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0)


class TableMetrics:
    """Metrics of queries in one worker process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queries = Counter(
            "streams_table_queries",
            "Requests for rows of tables (kind: key, range, changes, list) by status of the answer.",
            ("kind", "status"),
            registry=registry,
        )
        self.query_seconds = Histogram(
            "streams_table_query_seconds",
            "From a request for rows to its answer, of a worker that is asked by its user; without change streams.",
            ("kind",),
            registry=registry,
            buckets=_SECONDS,
        )
        self.routed = Counter(
            "streams_table_queries_routed",
            "Questions to other workers, which have the partitions (result: answered, elsewhere, failed).",
            ("result",),
            registry=registry,
        )
        self.readers = Gauge("streams_table_change_readers", "Open streams of changes.", registry=registry)
        self.cut_off = Counter(
            "streams_table_change_readers_cut_off",
            "Readers of changes that were cut off since they did not keep up.",
            registry=registry,
        )
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def answered(self, kind: str, status: int, seconds: float | None) -> None:
        """Count a request, and the time that it took where that counts."""
        children = self._children.get((kind, status))
        if children is None:
            children = (self.queries.labels(kind, status), self.query_seconds.labels(kind))
            self._children[kind, status] = children
        children[0].inc()
        if seconds is not None:
            children[1].observe(seconds)
