"""Dead letters as Prometheus metrics, to be served by any process.

A letter's reason comes from its envelope, which anybody may have written: unknown reasons are counted together as
`other`, so that the number of series is bounded.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.batch.rejects import Reason
from streams.deadletters.letter.figures import Figures

OTHER: Final = "other"
_KNOWN: Final = frozenset(Reason)


def families(figures: Sequence[Figures], now_s: float) -> list[GaugeMetricFamily]:
    """The metrics for `figures`; a topic without open letters has the age 0."""
    letters = GaugeMetricFamily(
        "streams_dead_letters", "Dead letters in the topic, open or not, by reason.", labels=("topic", "reason")
    )
    still = GaugeMetricFamily(
        "streams_dead_letters_open", "Dead letters that nothing was done about, by reason.", labels=("topic", "reason")
    )
    age = GaugeMetricFamily(
        "streams_dead_letters_oldest_open_seconds",
        "Time since the oldest open dead letter failed for the first time; 0: none is open.",
        labels=("topic",),
    )
    for each in figures:
        counts, open_counts = _bounded(each.by_reason), _bounded(each.open_by_reason)
        for reason in sorted(counts):
            letters.add_metric((each.topic, reason), counts[reason])
            still.add_metric((each.topic, reason), open_counts.get(reason, 0))
        oldest = each.oldest_open_at_ms
        age.add_metric((each.topic,), 0.0 if oldest is None else max(0.0, now_s - oldest / 1000))
    return [letters, still, age]


def _bounded(by_reason: Mapping[str, int]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason, count in by_reason.items():
        name = reason if reason in _KNOWN else OTHER
        counts[name] = counts.get(name, 0) + count
    return counts


class DeadLetterCollector(Collector):
    """Figures as metrics. `figures` is asked at each scrape, such as `Steward.figures`."""

    def __init__(self, figures: Callable[[], Sequence[Figures]], clock_s: Callable[[], float] = time.time) -> None:
        self._figures = figures
        self._clock_s = clock_s

    def collect(self) -> Iterable[Metric]:
        """The metrics as of now.

        Raises:
            StreamsError: the broker does not answer.

        """
        return families(self._figures(), self._clock_s())

    def describe(self) -> Iterable[Metric]:
        """Names only: registering asks nothing of Kafka."""
        return families([], 0.0)
