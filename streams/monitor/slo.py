"""The service level objective: 99% of events are visible within 60 s of their arrival. Pure.

Measured from the workers' `streams_arrival_age_seconds`: from the record's timestamp to the commit. Dead letters are
never visible. Events that have waited for more than 60 s count as missed while they wait; otherwise a dead flow would
meet its objective. Delays before the arrival (a tracker without a network, a file of last week's events) do not count;
the age by event time is reported separately. *Burn rate*: how many times faster than allowed the error budget goes (1:
it is used up exactly at the end of the period). Prometheus keeps the long windows (deploy/prometheus); the monitor
reports only the
time since its start.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

OBJECTIVE: Final = 0.99
VISIBLE_S: Final = 60.0
"""Upper bound of a bucket of the workers' histogram."""
EVENTS_MIN: Final = 100
"""Fewer events than these are not judged: one bad event would already exceed the objective."""
WINDOWS_S: Final[Mapping[str, float]] = {"5m": 300.0, "1h": 3_600.0, "6h": 21_600.0}
POINTS_MAX: Final = 5_000


@dataclass(frozen=True, slots=True)
class Counts:
    """Events so far, with dead letters, and those that were visible in time. Cumulative, of one process."""

    total: float
    good: float
    """Number of events that were visible within `VISIBLE_S` of their arrival."""
    young: float = 0.0
    """Visible within `VISIBLE_S` of their event time."""


@dataclass(frozen=True, slots=True)
class SloWindow:
    """Events of a window. `burn_rate` None: there were fewer than `EVENTS_MIN`."""

    seconds: float
    events: float
    bad: float
    burn_rate: float | None


@dataclass(frozen=True, slots=True)
class Slo:
    """The objective since watching began. Shares None: no event yet; `budget_left` below 0: missed.

    With fewer than `EVENTS_MIN` events the whole budget is left.
    """

    good_share: float | None
    """Share of events that were visible within `VISIBLE_S` of their arrival."""
    young_share: float | None
    """Share of events that were visible within `VISIBLE_S` of their own time: an event that arrives later than that
    cannot be."""
    budget_left: float
    watched_s: float
    events: float
    bad: float
    windows: Mapping[str, SloWindow]


class SloTracker:
    """Adds up the counters of all workers, across their restarts. Time is an argument."""

    def __init__(self) -> None:
        self._last: dict[str, Counts] = {}
        self._points: deque[tuple[float, float, float]] = deque(maxlen=POINTS_MAX)
        """(time in s, events, bad ones) since watching began."""
        self._events = self._bad = self._young = 0.0
        self._waiting: float | None = None
        """Events that had waited too long before watching began: not counted."""

    def observe(self, now_s: float, workers: Mapping[str, Counts], waiting: float = 0.0) -> None:
        """Add the counters of the workers that answered; counts from before a worker was first seen are left out.

        `waiting`: events that have waited for more than `VISIBLE_S` and are not committed. Each is bad already; once it
        is committed, late, it is counted there and waits no more.
        """
        if self._waiting is None:
            self._waiting = waiting
        for worker, counts in workers.items():
            before = self._last.get(worker)
            if before is not None:
                if counts.total < before.total:  # the worker was restarted
                    before = Counts(0.0, 0.0)
                events = counts.total - before.total
                good = min(max(counts.good - before.good, 0.0), events)
                self._events += events
                self._bad += events - good
                self._young += min(max(counts.young - before.young, 0.0), events)
            self._last[worker] = counts
        overdue = waiting - self._waiting
        self._points.append((now_s, max(self._events + overdue, 0.0), max(self._bad + overdue, 0.0)))

    def judge(self) -> Slo:
        """State of the objective."""
        if not self._points:
            return Slo(None, None, 1.0, 0.0, 0.0, 0.0, {})
        now_s, events, bad = self._points[-1]
        allowed = events * (1.0 - OBJECTIVE)
        return Slo(
            good_share=1.0 - bad / events if events else None,
            young_share=self._young / events if events else None,
            budget_left=1.0 - bad / allowed if events >= EVENTS_MIN else 1.0,
            watched_s=now_s - self._points[0][0],
            events=events,
            bad=bad,
            windows={name: self._window(seconds) for name, seconds in WINDOWS_S.items()},
        )

    def _window(self, seconds: float) -> SloWindow:
        now_s, events, bad = self._points[-1]
        first = next(point for point in self._points if point[0] >= now_s - seconds)
        count, missed = events - first[1], max(bad - first[2], 0.0)
        burn = None if count < EVENTS_MIN else missed / count / (1.0 - OBJECTIVE)
        return SloWindow(min(seconds, now_s - first[0]), count, missed, burn)
