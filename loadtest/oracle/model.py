"""Reference model of one source partition: one event at a time, plain Python, no state but dictionaries and a heap.

It shares no code with the engine (no columnar operators, no stores), so that an error would have to be made twice to
stay unseen. Feed it the records of a partition in log order; its results say which events must be in the clean, late
and dead-letter topics, in which order per key, and what the table and the windows must hold.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtest.oracle.events import (
    AnyEvent,
    Event,
    Late,
    Reject,
    classify,
    classify_undecodable,
    is_time,
    judged_by,
)
from loadtest.oracle.folds import Fold, VehicleFold, compare_rows, haversine_km
from loadtest.oracle.trips import TripModel
from loadtest.oracle.windows import NewestWindow, WindowKey, WindowSum
from streams.reconcile.model.judge import PartitionJudge

__all__ = [
    "Event",
    "Late",
    "PartitionModel",
    "Reject",
    "VehicleFold",
    "classify",
    "classify_undecodable",
    "compare_rows",
    "haversine_km",
    "is_time",
    "judged_by",
]


@dataclass(slots=True)
class PartitionModel(PartitionJudge[AnyEvent]):
    """What must become of the records of one source partition, in the order of its log.

    The rules are those of `streams reconcile` (`streams.reconcile.model`); folds, windows and trips are added here.
    `clean` is in release order; only its order within one key is defined. `idle` is how a partition whose log has
    ended lets go of the events it still holds; with it the results depend on when it is called, as they must.
    """

    fold: Callable[[str], Fold] = VehicleFold
    windows_ms: Mapping[str, int] = field(default_factory=dict)
    """Sizes of the windows of vehicles, by the topic of their rows."""
    clean: list[AnyEvent] = field(default_factory=list)
    late: list[Late] = field(default_factory=list)
    duplicates: list[AnyEvent] = field(default_factory=list)
    rejected: list[Reject] = field(default_factory=list)
    windows: defaultdict[WindowKey, WindowSum] = field(default_factory=lambda: defaultdict(WindowSum))
    """What the rows of each window must add up to."""
    trips: TripModel = field(default_factory=TripModel)
    newest: dict[tuple[str, str], NewestWindow] = field(default_factory=dict)
    """By topic and vehicle: what the rows of its newest window add up to after each of its events."""
    _folds: dict[str, Fold] = field(default_factory=dict)

    def why_rejected(self, event: AnyEvent) -> str | None:
        """Reason for which a decodable record is rejected."""
        return classify(event, skew_ms_max=self.skew_ms_max, record_bytes_max=self.record_bytes_max, now_ms=self.now_ms)

    def was_rejected(self, reject: Reject) -> None:
        """Keep the rejected record, without its timestamp."""
        self.rejected.append(reject._replace(timestamp_ms=0))

    def became_late(self, late: Late) -> None:
        """Keep the event as late."""
        self.late.append(late)

    def was_dropped(self, event: AnyEvent) -> None:
        """Keep the dropped event."""
        self.duplicates.append(event)

    @property
    def table(self) -> dict[str, dict[str, Any]]:
        """Row per device or order: the fold of its clean events so far."""
        return {entity: fold.row() for entity, fold in self._folds.items()}

    def became_clean(self, event: AnyEvent, watermark_before: float) -> None:
        """Keep it, and fold it."""
        entity = event.entity
        self.clean.append(event)
        fold = self._folds.get(entity)
        if fold is None:
            fold = self._folds[entity] = self.fold(entity)
        fold.add(event)
        if isinstance(fold, VehicleFold) and isinstance(event, Event):
            self.trips.add(event, watermark_before)
            for topic, size_ms in self.windows_ms.items():
                key = WindowKey(topic, entity, event.event_time_ms // size_ms * size_ms)
                window = self.windows[key]
                window.add_event(event.speed_kmh, fold.leg_km)
                window.watermark_before = max(window.watermark_before, watermark_before)
                newest = self.newest.get((topic, entity))
                if newest is None or key.start_ms > newest.start_ms:
                    newest = self.newest[topic, entity] = NewestWindow(key.start_ms)
                if key.start_ms == newest.start_ms:
                    newest.add(window)
