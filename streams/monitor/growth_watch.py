"""Reads the growth topics of flows when their ends have moved, and reports the progress of growths."""

from collections.abc import Mapping, Sequence

import structlog

from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.growth.record import GrowthRecord
from streams.kafka.growth_topic import GrowthTopic
from streams.kafka.round import Round
from streams.monitor.topic_growth import GrowthTracker, GrowthView
from streams.settings import Settings

log = structlog.get_logger(__name__)


class GrowthWatch:
    """Watches the growths of some flows. One thread; `close` when done."""

    def __init__(self, settings: Settings, flows: Sequence[Pipeline]) -> None:
        self._tracker = GrowthTracker(flows)
        self._groups = {flow.growth: flow.group for flow in flows}
        self._topics = {flow.growth: GrowthTopic(settings, flow) for flow in flows}
        self._ends: dict[str, int] = {}
        """End up to which each topic was read last."""
        self._records: dict[str, Sequence[GrowthRecord]] = {}

    def look(self, found: Round, now_s: float) -> tuple[GrowthView, ...]:
        """The growths under way; `now_s` is monotonic. A topic that cannot be read now keeps its last state."""
        for name, topic in self._topics.items():
            if name not in found.base:
                self._records.pop(name, None)
                continue
            end = int(found.end[found.base[name]])
            if end <= 0 or self._ends.get(name) == end:
                continue
            try:
                self._records[name] = topic.read()
            except StreamsError as error:
                log.warning("how far a growth is cannot be read", topic=name, error=str(error))
                continue
            self._ends[name] = end
        return self._tracker.look(found, self._records, now_s)

    def records(self) -> Mapping[str, Sequence[GrowthRecord]]:
        """By group of a flow, the growths that it has had, as of the last look."""
        return {self._groups[name]: tuple(records) for name, records in self._records.items() if records}

    def close(self) -> None:
        """Close the connections."""
        for topic in self._topics.values():
            topic.close()
