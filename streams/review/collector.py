"""Dead letters as Prometheus metrics, for whoever serves them: what is counted is asked for at each scrape."""

import time
from collections.abc import Callable, Iterable, Sequence

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.deadletters.index import Figures
from streams.errors import StreamsError

log = structlog.get_logger(__name__)


def families(figures: Sequence[Figures], now_s: float) -> list[GaugeMetricFamily]:
    """The metrics that `figures` come to; a topic without open letters has no oldest one, and its age is 0."""
    letters = GaugeMetricFamily(
        "streams_dead_letters", "Dead letters in the topic, open or not, by reason.", labels=("topic", "reason")
    )
    still = GaugeMetricFamily(
        "streams_dead_letters_open", "Dead letters that nothing was done about, by reason.", labels=("topic", "reason")
    )
    age = GaugeMetricFamily(
        "streams_dead_letters_oldest_open_seconds",
        "Since when the oldest open dead letter has failed for the first time; 0: none is open.",
        labels=("topic",),
    )
    for each in figures:
        for reason in sorted(each.by_reason):
            letters.add_metric((each.topic, reason), each.by_reason[reason])
            still.add_metric((each.topic, reason), each.open_by_reason.get(reason, 0))
        oldest = each.oldest_open_at_ms
        age.add_metric((each.topic,), 0.0 if oldest is None else max(0.0, now_s - oldest / 1000))
    return [letters, still, age]


class DeadLetterCollector(Collector):
    """Figures as metrics. `figures` is asked at each scrape, such as `Steward.figures`."""

    def __init__(self, figures: Callable[[], Sequence[Figures]], clock_s: Callable[[], float] = time.time) -> None:
        self._figures = figures
        self._clock_s = clock_s

    def collect(self) -> Iterable[Metric]:
        """The metrics as of now; none when the broker does not answer, rather than old ones."""
        try:
            figures = self._figures()
        except StreamsError as error:
            log.warning("dead letters cannot be counted", error=str(error))
            return families([], self._clock_s())
        return families(figures, self._clock_s())

    def describe(self) -> Iterable[Metric]:
        """Names only: registering asks nothing of Kafka."""
        return families([], 0.0)
