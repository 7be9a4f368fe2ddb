"""When a record came, by its offset: from log ends seen at a time, and from records' own timestamps. Pure.

Two kinds of knowledge about one partition:

- *Seen*: at time t the log ended at offset e. So what is before e came before t, and what is not came after it.
- *Told*: the broker's timestamp of the record at offset o. It is believed as far as what was seen allows: a tracker's
  clock, or a file of yesterday's events, does not make lag out of a record that came a second ago.

Between two such points the time is interpolated. Before the first one it is not known: whoever asks gets the first
point's time, which is then a lower bound of the age.
"""

from typing import Final

import numpy as np

from streams.monitor.verdict import Float64, Int64

POINTS_MAX: Final = 256
"""Points kept per partition and kind; the oldest half is thinned when there are more."""


class Timeline:
    """Times of the records of one partition."""

    __slots__ = ("_seen", "_told", "empty_from", "empty_to")

    def __init__(self) -> None:
        self._seen: list[tuple[int, int]] = []
        self._told: list[tuple[int, int]] = []
        self.empty_from = self.empty_to = 0
        """There is no record at these offsets (the latter excluded): transaction markers, or compacted away."""

    def see(self, end: int, time_ms: int) -> None:
        """At `time_ms` the log ended at `end`. An end before an earlier one means another log: all is forgotten."""
        seen = self._seen
        if seen and end < seen[-1][0]:
            self._seen, self._told, self.empty_from, self.empty_to = [(end, time_ms)], [], 0, 0
            return
        if seen and seen[-1][0] == end:
            # The last time at which it still ended here: the record at `end` came after that.
            seen[-1] = (end, max(seen[-1][1], time_ms))
        else:
            seen.append((end, time_ms))
        if len(seen) > POINTS_MAX:
            self._seen = seen[: POINTS_MAX // 2 : 2] + seen[POINTS_MAX // 2 :]

    def tell(self, offset: int, timestamp_ms: int) -> None:
        """Timestamp of the record at `offset`."""
        if (offset, timestamp_ms) in self._told:
            return
        self._told.append((offset, timestamp_ms))
        if len(self._told) > POINTS_MAX:
            self._told = sorted(self._told)[1::2]

    def skip(self, first: int, until: int) -> None:
        """There is no record from offset `first` to (excluding) `until`."""
        if until <= first:
            return
        if self.empty_from <= first <= self.empty_to:
            self.empty_to = max(self.empty_to, until)
        else:
            self.empty_from, self.empty_to = first, until

    def position(self, offset: int) -> int:
        """The offset of the next record that may be there at or behind `offset`."""
        return self.empty_to if self.empty_from <= offset < self.empty_to else offset

    def knows(self, offset: int) -> bool:
        """Whether the record at `offset` itself was read for its timestamp."""
        return any(told == offset for told, _ in self._told)

    def reaches(self, offset: int) -> bool:
        """Whether the time at `offset` is between two points, and not before all of them."""
        firsts = [points[0][0] for points in (self._seen, sorted(self._told)) if points]
        return bool(firsts) and min(firsts) <= offset

    def times_ms(self, offsets: Int64) -> tuple[Float64, Int64, Int64]:
        """Times of the records at `offsets`, and of the points between which each lies.

        The width between the points is how far the time may be off. NaN and zeros when nothing is known.
        """
        points = self._points()
        if not points:
            zeros = np.zeros(len(offsets), dtype=np.int64)
            return np.full(len(offsets), np.nan), zeros, zeros
        place = np.array([offset for offset, _ in points], dtype=np.int64)
        time = np.array([time for _, time in points], dtype=np.int64)
        before = np.clip(np.searchsorted(place, offsets, side="right") - 1, 0, len(place) - 1)
        exact = place[before] == offsets
        after = np.where(exact, before, np.minimum(before + 1, len(place) - 1))
        return np.interp(offsets, place, time), time[before], time[after]

    def _points(self) -> list[tuple[int, int]]:
        """Both kinds by offset, times never falling, told ones kept within what was seen."""
        if not self._told:
            return self._seen
        told = sorted(self._told)
        merged: list[tuple[int, int]] = []
        floor, i = min(told[0][1], self._seen[0][1] if self._seen else told[0][1]), 0
        for offset, time in self._seen:
            while i < len(told) and told[i][0] < offset:
                floor = min(max(told[i][1], floor), time)
                merged.append((told[i][0], floor))
                i += 1
            floor = max(floor, time)
            if i == len(told) or told[i][0] != offset:  # else: the record at `offset` came later, and tells when
                merged.append((offset, floor))
        for offset, stamp in told[i:]:
            floor = max(stamp, floor)
            merged.append((offset, floor))
        return merged
