"""Reference model of one source partition: one event at a time, plain Python, no state but dictionaries and a heap.

It shares no code with the engine (no columnar operators, no stores), so that an error would have to be made twice to
stay unseen. Feed it the records of a partition in log order; its results say which events must be in the clean, late
and dead-letter topics, in which order per key, and what the table and the windows must hold.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from loadtest.oracle.events import (
    AnyEvent,
    Event,
    Late,
    OrderKey,
    Reject,
    classify,
    classify_undecodable,
    is_time,
    judged_by,
)
from loadtest.oracle.folds import Fold, VehicleFold, compare_rows, haversine_km
from loadtest.oracle.trips import TripModel
from loadtest.oracle.windows import NewestWindow, WindowKey, WindowSum

__all__ = [
    "Event",
    "Late",
    "PartitionModel",
    "Reject",
    "VehicleFold",
    "classify",
    "compare_rows",
    "haversine_km",
]

LATE: Final = "late"
QUARANTINED: Final = "device_quarantined"
MINUTE_MS: Final = 60_000
BEYOND_HORIZON: Final = "beyond_horizon"


@dataclass(slots=True)
class PartitionModel:
    """What must become of the records of one source partition, in the order of its log.

    `clean` is in release order; only its order within one key is defined. `idle` is how a partition whose log has
    ended lets go of the events it still holds; with it the results depend on when it is called, as they must.
    """

    lateness_ms: int
    horizon_ms: int
    skew_ms_max: int
    record_bytes_max: int
    fold: Callable[[str], Fold] = VehicleFold
    windows_ms: Mapping[str, int] = field(default_factory=dict)
    """Sizes of the windows of vehicles, by the topic of their rows."""
    quarantine_rejects: int = 0
    """Rejects of a key within a minute, by their timestamps, beyond which it is quarantined; 0: never."""
    quarantine_cooldown_ms: int = 60_000
    now_ms: int | None = None
    """The time at which the worker has read the records, which stands in for timestamps that are no time; None: all
    timestamps are a time."""
    watermark: float = -math.inf
    """Event time up to which events are due, milliseconds; minus infinity before the first valid record."""
    clean: list[AnyEvent] = field(default_factory=list)
    late: list[Late] = field(default_factory=list)
    duplicates: list[AnyEvent] = field(default_factory=list)
    rejected: list[Reject] = field(default_factory=list)
    windows: defaultdict[WindowKey, WindowSum] = field(default_factory=lambda: defaultdict(WindowSum))
    """What the rows of each window must add up to."""
    trips: TripModel = field(default_factory=TripModel)
    newest: dict[tuple[str, str], NewestWindow] = field(default_factory=dict)
    """By topic and vehicle: what the rows of its newest window add up to after each of its events."""
    _seen: set[tuple[str, int]] = field(default_factory=set)
    _held: list[tuple[OrderKey, AnyEvent]] = field(default_factory=list)
    _last_due: dict[str, OrderKey] = field(default_factory=dict)
    _folds: dict[str, Fold] = field(default_factory=dict)
    _rejects_at: dict[bytes, list[int]] = field(default_factory=dict)
    _quarantined_at: dict[bytes, int] = field(default_factory=dict)

    def feed(self, record: AnyEvent | Reject, *, is_replayed: bool = False, is_wanted: bool = True) -> None:
        """Judge the next record of the log; a `Reject` is one that did not decode.

        A replayed dead letter that is rejected once more does not count against its key. One that is not wanted moves
        the watermark, and counts against its key, as any other; what becomes of it is not kept.
        """
        key, timestamp_ms, known = record.key, record.timestamp_ms, len(self.rejected)
        timed = is_time(timestamp_ms, now_ms=self.now_ms, skew_ms_max=self.skew_ms_max)
        if key is None or not self.quarantine_rejects:
            self._feed(record, is_wanted=is_wanted)
        elif timed and self._keeps_out(key, timestamp_ms):
            self.rejected.append(Reject(record.offset, key, record.raw, QUARANTINED))
        else:
            self._feed(record, is_wanted=is_wanted)
            was_rejected = len(self.rejected) > known
            if not (was_rejected and (is_replayed or not timed)):
                self._learn(key, timestamp_ms, was_rejected=was_rejected)
        if not is_wanted:
            del self.rejected[known:]

    def _keeps_out(self, key: bytes, timestamp_ms: int) -> bool:
        since = self._quarantined_at.get(key)
        return since is not None and abs(timestamp_ms - since) < self.quarantine_cooldown_ms

    def _learn(self, key: bytes, timestamp_ms: int, *, was_rejected: bool) -> None:
        """Quarantine a key with too many rejects, let one go whose probe is clean."""
        if not was_rejected:
            self._quarantined_at.pop(key, None)
            return
        rejects = self._rejects_at[key] = [*self._rejects_at.get(key, []), timestamp_ms][-self.quarantine_rejects - 1 :]
        recent = [at for at in rejects if abs(at - timestamp_ms) < MINUTE_MS]
        if key in self._quarantined_at or len(recent) > self.quarantine_rejects:
            self._quarantined_at[key] = timestamp_ms
            self._rejects_at[key] = []

    def _feed(self, record: AnyEvent | Reject, *, is_wanted: bool) -> None:
        if isinstance(record, Reject):
            reason = classify_undecodable(record.raw, record.reason, record_bytes_max=self.record_bytes_max)
            self.rejected.append(record._replace(reason=reason))
            return
        reason_or_none = classify(
            record, skew_ms_max=self.skew_ms_max, record_bytes_max=self.record_bytes_max, now_ms=self.now_ms
        )
        if reason_or_none is not None:
            self.rejected.append(Reject(record.offset, record.key, record.raw, reason_or_none))
            return
        stamp_ms = judged_by(record.timestamp_ms, now_ms=self.now_ms, skew_ms_max=self.skew_ms_max)
        self.idle(min(record.event_time_ms, stamp_ms) - self.lateness_ms)
        if is_wanted:
            self._judge(record)

    def idle(self, watermark: float) -> None:
        """Move the watermark to `watermark` unless it is there already, and release what is due by it."""
        if watermark <= self.watermark:
            return
        before, self.watermark = self.watermark, watermark
        while self._held and self._held[0][0][0] <= watermark:
            self._release(heapq.heappop(self._held)[1], before)

    @property
    def held(self) -> list[AnyEvent]:
        """Events that the watermark has not reached, in no particular order."""
        return [event for _, event in self._held]

    @property
    def table(self) -> dict[str, dict[str, Any]]:
        """Row per device or order: the fold of its clean events so far."""
        return {entity: fold.row() for entity, fold in self._folds.items()}

    def _judge(self, event: AnyEvent) -> None:
        oldest_ms = self.watermark - self.horizon_ms
        if event.event_time_ms < oldest_ms:
            self.late.append(Late(event, BEYOND_HORIZON, int(oldest_ms - event.event_time_ms)))
            return
        if event.identity in self._seen:
            self.duplicates.append(event)
            return
        self._seen.add(event.identity)
        if event.event_time_ms > self.watermark:
            heapq.heappush(self._held, (event.order_key, event))
            return
        last_due = self._last_due.get(event.entity)
        if last_due is None or event.order_key >= last_due:
            self._release(event, self.watermark)
        else:
            self.late.append(Late(event, LATE, last_due[0] - event.event_time_ms))

    def _release(self, event: AnyEvent, watermark_before: float) -> None:
        entity = event.entity
        self.clean.append(event)
        self._last_due[entity] = event.order_key
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
