"""How the watermark moves over a micro-batch."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from streams.batch.columns import TIME_MIN, Bools, Int64

NEVER: Final = int(np.iinfo(np.int64).max)
"""An event time for things that never happen."""


def watermarks(event_time: Int64, timestamp_ms: Int64, *, start: int, lateness_ms: int) -> Int64:
    """Watermark at each record's place in the log, the record itself included.

    The running maximum of min(event time, record timestamp) - lateness: a device whose clock runs ahead of the broker's
    cannot drag it.
    """
    running = np.maximum.accumulate(np.minimum(event_time, timestamp_ms) - lateness_ms)
    return np.maximum(running, start)


def complete_below(watermark: int) -> int:
    """Up to where all due events are known at this smallest watermark: one may still be due at the watermark itself."""
    return watermark - 1 if watermark > TIME_MIN else TIME_MIN


@dataclass(frozen=True, slots=True)
class WatermarkTrace:
    """The watermark over all records of a partition's micro-batch, and where each passed event stands among them.

    An operator that decides by `at` and `prior`, not by `end`, gives the same result however the log was cut.
    """

    start: int
    """Watermark before the first record of the batch."""
    course: Int64
    """After each record of the batch, whether its event is still here or not; at least one."""
    place: Int64
    """For each event, the record with which it came; for one that was held, the record that made it due."""

    @staticmethod
    def of(start: int, course: Int64) -> "WatermarkTrace":
        """Make the trace of events of which each record has exactly one."""
        return WatermarkTrace(start, course, np.arange(len(course)))

    @staticmethod
    def idle(start: int, watermark: int) -> "WatermarkTrace":
        """Make the trace of a watermark that moves without a record."""
        return WatermarkTrace(start, np.array([watermark], dtype=np.int64), np.empty(0, dtype=np.int64))

    @property
    def end(self) -> int:
        """Watermark after the last record."""
        return int(self.course[-1])

    @property
    def at(self) -> Int64:
        """At each event, its own record included."""
        return self.course.take(self.place)

    @property
    def prior(self) -> Int64:
        """Watermark just before each event's record."""
        before = np.empty_like(self.course)
        before[0], before[1:] = self.start, self.course[:-1]
        return before.take(self.place)

    def passing(self, event_time: Int64) -> Int64:
        """The record at which the watermark passes each of these times; it must pass all of them."""
        found: Int64 = np.searchsorted(self.course, event_time, side="left")
        return found

    def take(self, rows: Int64 | Bools) -> "WatermarkTrace":
        """The trace of the events at `rows`."""
        return WatermarkTrace(self.start, self.course, self.place[rows])

    def moved(self, place: Int64) -> "WatermarkTrace":
        """The trace of other events, which stand at these records."""
        return WatermarkTrace(self.start, self.course, place)
