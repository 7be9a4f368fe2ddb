"""Everything the monitor knows at one moment, for the page, the metrics and the API. Immutable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from streams.growth.record import GrowthRecord
from streams.kafka.round import Round
from streams.monitor.freshness import Freshness
from streams.monitor.group_lag import GroupLag
from streams.monitor.missing import MissingTopic
from streams.monitor.sinks import SinkState
from streams.monitor.slo import Slo
from streams.monitor.topic_growth import GrowthView
from streams.monitor.workers import WorkerState


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """A dead-letter topic, counted by letters: several attempts of one letter count once."""

    topic: str
    letters: int
    open: int
    """Letters that nothing was done about yet."""
    grown: int
    """Letters added since the oldest count in the window."""
    grown_s: float


@dataclass(frozen=True, slots=True)
class Point:
    """A group at a time, for its history."""

    time_ms: int
    lag_sum: int
    lag_s_max: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state as of `round`; `time_ms` may be later, when no newer round could be had."""

    time_ms: int
    cluster: str
    interval_s: float
    round: Round
    groups: Mapping[str, GroupLag]
    history: Mapping[str, tuple[Point, ...]]
    freshness: tuple[Freshness, ...]
    slo: Slo
    workers: tuple[WorkerState, ...]
    rates: Mapping[str, float]
    """Events a second by outcome, over all workers."""
    dead_letters: tuple[DeadLetters, ...]
    failure: str | None
    """Why there is no newer round; None: the round is current."""
    missing: tuple[MissingTopic, ...] = ()
    """Missing topics of flows."""
    sinks: tuple[SinkState, ...] = ()
    """Processes of sinks."""
    growths: tuple[GrowthView, ...] = ()
    """Growths in place that are under way."""
    growth_records: Mapping[str, Sequence[GrowthRecord]] = field(default_factory=dict)
    """By group of a flow, all its growths on record."""
    flow_rates: Mapping[str, float] = field(default_factory=dict)
    """Events a second by flow and outcome (`workers.FLOW_OUTCOME`), over all workers."""
    topic_rates: Mapping[str, float] = field(default_factory=dict)
    """Offsets a second by topic."""

    @property
    def age_s(self) -> float:
        """Age of the newest round."""
        return max(0.0, (self.time_ms - self.round.time_ms) / 1000.0)
