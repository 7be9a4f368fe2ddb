"""Metrics of several processes as one exposition: each sample has the label `process`."""

from collections.abc import Iterable, Mapping

from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

LABEL = "process"


def merged(texts: Mapping[int, str]) -> list[Metric]:
    """Families of all processes, by name. `texts`: what each one's `/metrics` has answered, as OpenMetrics.

    Nothing is added up: counters of a process start at 0 when it is started again, which `rate` knows how to take only
    as long as each has a series of its own.

    Raises:
        ValueError: a text is not OpenMetrics.

    """
    families: dict[str, Metric] = {}
    for number, text in texts.items():
        for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
            whole = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type, unit=family.unit)
            )
            whole.samples += [
                sample._replace(labels={**sample.labels, LABEL: str(number)}) for sample in family.samples
            ]
    return list(families.values())


class Families(Collector):
    """Families that are there already, to be encoded."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self._families
