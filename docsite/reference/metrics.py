"""The reference of metrics: what each process registers, read from its registry or its typed list."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from docsite.reference.tables import code, table
from streams.bridge.metrics import BridgeMetrics
from streams.deadletters.review.collector import families
from streams.gateway.metrics import GatewayMetrics
from streams.monitor.exposition import GROUPS_LEFT_OUT, HEALTH_METRICS, SNAPSHOT_METRICS, MonitorMetric
from streams.sink.metrics import SinkMetrics
from streams.tables.metrics import TableMetrics
from streams.worker.metrics import WorkerMetrics

Row = tuple[str, str, str, str]
"""Name as it is scraped, type, labels, meaning."""


def page() -> str:
    """The page as Markdown."""
    lines = [
        "# Metrics",
        "",
        "Every metric that a process serves at `/metrics`, for Prometheus. Names are a contract with dashboards and",
        "alerts.",
        "",
    ]
    for title, rows in processes().items():
        lines += [f"## {title}", "", *table(("metric", "type", "labels", "meaning"), rows)]
    return "\n".join(lines)


def processes() -> dict[str, Sequence[Row]]:
    """Metrics by the process that serves them."""
    return {
        "Worker": list(_registered(WorkerMetrics().registry)),
        "Tables (worker)": list(_registered(_tables())),
        "Monitor": [*_listed(SNAPSHOT_METRICS), *_listed([GROUPS_LEFT_OUT]), *_listed(HEALTH_METRICS)],
        "Dead letters (monitor)": [
            (code(one.name), one.type, _labels(one._labelnames), one.documentation)  # noqa: SLF001 - has no public name
            for one in families((), 0.0)
        ],
        "Sink": list(_registered(SinkMetrics("positions").registry)),
        "Gateway": list(_registered(GatewayMetrics().registry)),
        "MQTT bridge": list(_registered(_bridge())),
    }


def _listed(metrics: Iterable[MonitorMetric[Any]]) -> Iterator[Row]:
    for one in metrics:
        yield code(one.name), one.kind, "", one.documentation


def _bridge() -> CollectorRegistry:
    registry = CollectorRegistry()
    BridgeMetrics(registry)
    return registry


def _tables() -> CollectorRegistry:
    registry = CollectorRegistry()
    TableMetrics(registry)
    return registry


def _registered(registry: CollectorRegistry) -> Iterator[Row]:
    for collector in registry._collector_to_names:  # noqa: SLF001 - metrics without samples have no public list
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield code(name), family.type, _labels(getattr(collector, "_labelnames", ())), family.documentation


def _labels(names: Iterable[str]) -> str:
    return ", ".join(code(name) for name in names)
