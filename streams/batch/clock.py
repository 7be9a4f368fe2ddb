"""The time that an event is judged by: the record's timestamp, or the reader's clock if that is unusable (ADR 16).

A record's timestamp says when the event can have happened at the latest: an event time beyond it is a device's clock
that runs ahead. Producers also send records without one (-1 or 0), with seconds for milliseconds (1970), or with a
clock of their own that is years ahead. Such a timestamp is useless. The reader's clock replaces it, so that a valid
event is not refused and no record can move the watermark into the future.
"""

from dataclasses import dataclass

import numpy as np

from streams.batch.columns import Bools, Int64
from streams.limits import RECORD_TIMESTAMP_MS_MIN


@dataclass(frozen=True, slots=True)
class Clock:
    """The time at which a micro-batch was read, and how far clocks may be apart, in milliseconds."""

    now_ms: int
    skew_ms_max: int

    def is_time(self, timestamp_ms: Int64) -> Bools:
        """Which record timestamps are usable: 2001-09-09 or later, and not beyond the clock by more than the skew."""
        known: Bools = (timestamp_ms >= RECORD_TIMESTAMP_MS_MIN) & (timestamp_ms <= self.now_ms + self.skew_ms_max)
        return known

    def judged_by(self, timestamp_ms: Int64) -> Int64:
        """The time by which each record is judged: its timestamp, or the clock's where that is unusable."""
        known = self.is_time(timestamp_ms)
        return timestamp_ms if known.all() else np.where(known, timestamp_ms, self.now_ms)

    def complaint(self, timestamp_ms: int) -> str:
        """Why a timestamp is unusable, as the second half of a sentence."""
        if timestamp_ms <= 0:
            return "the record has no timestamp"
        if timestamp_ms < RECORD_TIMESTAMP_MS_MIN:
            return f"the record's timestamp, {timestamp_ms} ms, is before 2001-09-09"
        return f"the record's timestamp is itself {timestamp_ms - self.now_ms} ms ahead of that clock"
