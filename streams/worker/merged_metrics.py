"""Metrics of several processes as one exposition: each sample has the label `process`."""

from collections.abc import Iterable, Mapping

from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

LABEL = "process"


def merged(texts: Mapping[int, str]) -> list[Metric]:
    """Families of all processes, by name. `texts`: what each one's `/metrics` has answered, as OpenMetrics.

    Nothing is added up: a restarted process counts from 0, and `rate` handles such resets only in a series of its own
    for each process.

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
    """Metric families that are parsed already, to be encoded again."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """All families."""
        return self._families
