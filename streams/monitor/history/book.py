"""Keeps the history of every group, its partitions, and the events of all workers in bounded memory.

Rates are those of offsets, from look to look: what was committed, and what came, a second. Offsets count the markers of
transactions as well, one for each cycle and partition.
"""

import math
import threading
from dataclasses import dataclass
from typing import Final

import numpy as np

from streams.batch.columns import Float64, Int64
from streams.monitor.group_lag import GroupLag
from streams.monitor.history.annotations import Annotation, AnnotationLog
from streams.monitor.history.series import FINE_POINTS, Series, Shape, Span
from streams.monitor.lookups import Partition
from streams.monitor.snapshot import Snapshot
from streams.monitor.window import ABSENT

FIELDS: Final = ("lag", "lag_s", "consume", "arrive")
PEAKS: Final = (True, True, False, False)
"""For lag the maximum of several looks is kept, for rates their mean."""
OUTCOMES: Final = ("clean", "late", "duplicate", "rejected")
_EVENTS_PEAKS: Final = (False,) * len(OUTCOMES)
STEPS_MAX: Final = 360
"""Points of a chart."""
_ALL: Final = ""
"""The one row of a series that has no further ones."""


@dataclass(frozen=True, slots=True)
class Kept:
    """History on a grid of time."""

    span: Span
    values: Float64
    """Steps by fields; NaN: nothing is known."""
    annotations: tuple[Annotation, ...]
    oldest_ms: int | None
    """Time of the oldest point."""


@dataclass(slots=True)
class _Before:
    time_ms: int
    partitions: list[Partition]
    end: Int64
    offset: Int64


class HistoryBook:
    """Written by the watcher's thread, read by any."""

    def __init__(self, *, interval_s: float, hours: float, memory_mb_max: float) -> None:
        """`memory_mb_max`: bound on all values; partitions of groups that do not fit have no history."""
        self._shape = Shape.of(PEAKS, interval_s=interval_s, hours=hours)
        self._interval_s = interval_s
        self._span_ms = round(hours * 3_600_000)
        self.rows_max = max(1, int(memory_mb_max * (1 << 20)) // self._shape.row_bytes)
        self._events = Series([_ALL], Shape.of(_EVENTS_PEAKS, interval_s=interval_s, hours=hours))
        self._groups: dict[str, Series[str]] = {}
        self._partitions: dict[str, Series[Partition]] = {}
        self._before: dict[str, _Before] = {}
        self._gone: list[str] = []
        """Groups that no longer exist and still have history, in the order in which they will be forgotten."""
        self._log = AnnotationLog()
        self._lock = threading.Lock()

    def observe(self, snapshot: Snapshot) -> None:
        """Add a snapshot. One without newer offsets than the last adds only events."""
        with self._lock:
            self._log.observe(snapshot)
            self._log.forget_before(snapshot.time_ms - self._span_ms)
            if snapshot.rates:
                rates = [snapshot.rates.get(outcome, 0.0) for outcome in OUTCOMES]
                self._events.add(snapshot.time_ms, np.array([rates]))
            self._gone = sorted(
                (name for name in self._groups if name not in snapshot.groups),
                key=lambda name: self._groups[name].newest_ms,
            )
            while self._gone and self._groups[self._gone[0]].newest_ms < snapshot.time_ms - self._span_ms:
                self._forget(self._gone.pop(0))
            for group in sorted(snapshot.groups.values(), key=lambda one: (not one.is_flow, len(one.partitions))):
                self._observe_group(group)

    def events(self, span: Span) -> Kept:
        """Events a second by outcome (`OUTCOMES`), over all workers that answer."""
        with self._lock:
            values = self._events.on_grid(_ALL, span)
            return Kept(span, values, (), self._events.oldest_ms)

    def group(self, name: str, span: Span) -> Kept | None:
        """History of a group, `FIELDS`; None: there is none."""
        with self._lock:
            kept = self._groups.get(name)
            if kept is None:
                return None
            values = kept.on_grid(_ALL, span)
            return Kept(span, values, self._said(name, span), kept.oldest_ms)

    def partition(self, name: str, partition: Partition, span: Span) -> Kept | None:
        """History of one partition of a group, `FIELDS`; None: there is none."""
        with self._lock:
            kept = self._partitions.get(name)
            if kept is None or partition not in kept.rows:
                return None
            values = kept.on_grid(partition, span)
            return Kept(span, values, self._said(name, span), kept.oldest_ms)

    def annotations(self, name: str, span: Span) -> tuple[Annotation, ...]:
        """What happened to a group in that time."""
        with self._lock:
            return self._said(name, span)

    def span(self, seconds: float, now_ms: int) -> Span:
        """Equal steps of time up to now, at most `STEPS_MAX`, none shorter than the stored points."""
        step_ms = max(seconds * 1_000 / STEPS_MAX, 2_000 * self._interval_s)
        if seconds > FINE_POINTS * self._interval_s:
            step_ms = max(step_ms, self._shape.coarse_ms)
        whole_ms = math.ceil(step_ms / 1_000) * 1_000
        steps = max(1, math.ceil(seconds * 1_000 / whole_ms))
        end_ms = (now_ms // whole_ms + 1) * whole_ms
        return Span(end_ms - steps * whole_ms, whole_ms, steps)

    @property
    def rows_used(self) -> int:
        """Rows stored for groups and partitions."""
        return len(self._groups) + sum(len(one.rows) for one in self._partitions.values())

    def _said(self, name: str, span: Span) -> tuple[Annotation, ...]:
        return tuple(self._log.of(name, span.start_ms, span.end_ms))

    def _forget(self, name: str) -> None:
        del self._groups[name]
        self._partitions.pop(name, None)
        self._before.pop(name, None)

    def _observe_group(self, group: GroupLag) -> None:
        before = self._before.get(group.name)
        if before is not None and before.time_ms >= group.time_ms:
            return
        if group.name not in self._groups:
            if not self._has_room(1):
                return
            self._groups[group.name] = Series([_ALL], self._shape)
        values = _looked(group, before)
        self._before[group.name] = _Before(group.time_ms, group.partitions, group.end, group.offset)
        counted = group.counted
        sums = np.array([[group.lag_sum, group.lag_s_max, _sum(values[counted, 2]), _sum(values[counted, 3])]])
        self._groups[group.name].add(group.time_ms, sums)
        kept = self._partitions.get(group.name)
        more = len(group.partitions) - (0 if kept is None else len(kept.rows))
        if more > 0 and not self._has_room(more):
            self._partitions.pop(group.name, None)
            return
        if kept is None:
            kept = self._partitions[group.name] = Series(group.partitions, self._shape)
        kept.move_to(group.partitions)
        kept.add(group.time_ms, values)

    def _has_room(self, rows: int) -> bool:
        """Whether so many more rows fit within the bound; deletes history of groups that are gone to make room."""
        while self.rows_used + rows > self.rows_max and self._gone:
            self._forget(self._gone.pop(0))
        return self.rows_used + rows <= self.rows_max


def _sum(rates: Float64) -> float:
    known = rates[np.isfinite(rates)]
    return float(known.sum()) if len(known) else float("nan")


def _looked(group: GroupLag, before: _Before | None) -> Float64:
    """Lag, lag in seconds, and both rates since the look before; a position that went back has no rate."""
    rows = len(group.partitions)
    consume, arrive = np.full(rows, np.nan), np.full(rows, np.nan)
    if before is not None and before.time_ms < group.time_ms:
        seconds = (group.time_ms - before.time_ms) / 1_000.0
        if before.partitions == group.partitions:
            end, offset = before.end, before.offset
        else:
            place = {key: row for row, key in enumerate(before.partitions)}
            taken = np.array([place.get(key, -1) for key in group.partitions], dtype=np.int64)
            end, offset = (np.where(taken >= 0, one[taken], ABSENT) for one in (before.end, before.offset))
        consume = _rate(offset, group.offset, seconds)
        arrive = _rate(end, group.end, seconds)
    return np.column_stack([group.lag.astype(np.float64), group.window.lag_s, consume, arrive])


def _rate(was: Int64, now: Int64, seconds: float) -> Float64:
    known = (was >= 0) & (now >= was)
    return np.where(known, (now - was) / seconds, np.nan)
