"""When a record came, by its offset: from log ends seen at a time, and from records' own timestamps. Pure.

Two kinds of knowledge about one partition:

- *Seen*: at time t the log ended at offset e. So what is before e came before t, and what is not came after it.
- *Told*: the broker's timestamp of the record at offset o. It is believed as far as what was seen allows: a tracker's
  clock, or a file of yesterday's events, does not make lag out of a record that came a second ago.

The timestamp of a transaction marker is as good for times. It says nothing about records: see `hint`.

Between two such points the time is interpolated. Before the first one it is not known: whoever asks gets the first
point's time, which is then a lower bound of the age.
"""

import bisect
from typing import Final

import numpy as np

from streams.batch.columns import Float64, Int64

POINTS_MAX: Final = 256
"""Points kept per partition and kind; the oldest half is thinned when there are more."""
EMPTY_RANGES_MAX: Final = 16
"""Ranges of offsets without a record that are remembered per partition; the first of them is forgotten for another."""
_NOWHERE: Final = 1 << 62


class Timeline:
    """Times of the records of one partition."""

    __slots__ = ("_empty", "_hint", "_seen", "_told")

    def __init__(self) -> None:
        self._seen: list[tuple[int, int, int]] = []
        """(End of the log, when it was first and when it was last seen to be there)."""
        self._told: list[tuple[int, int]] = []
        self._hint: tuple[int, int] | None = None
        """Offset and timestamp of the newest entry of the log, which may be a transaction marker."""
        self._empty: list[tuple[int, int]] = []
        """There is no record at these offsets (the latter excluded): transaction markers, aborted, compacted away. In
        order, none of them touching another."""

    def see(self, end: int, time_ms: int) -> None:
        """At `time_ms` the log ended at `end`. An end before an earlier one means another log: all is forgotten."""
        seen = self._seen
        if seen and end < seen[-1][0]:
            self._seen, self._told, self._hint, self._empty = [(end, time_ms, time_ms)], [], None, []
            return
        if seen and seen[-1][0] == end:
            seen[-1] = (end, seen[-1][1], max(seen[-1][2], time_ms))
        else:
            seen.append((end, time_ms, time_ms))
        if len(seen) > POINTS_MAX:
            self._seen = seen[: POINTS_MAX // 2 : 2] + seen[POINTS_MAX // 2 :]

    def tell(self, offset: int, timestamp_ms: int) -> None:
        """Timestamp of the record at `offset`."""
        if self.knows(offset):
            return
        bisect.insort(self._told, (offset, timestamp_ms))
        if len(self._told) > POINTS_MAX:
            self._told = self._told[1::2]

    def hint(self, offset: int, timestamp_ms: int) -> None:
        """Timestamp of what is at `offset`, a record or a transaction marker: good for times, no proof of a record."""
        self._hint = (offset, timestamp_ms)

    def skip(self, first: int, until: int) -> None:
        """There is no record from offset `first` to (excluding) `until`."""
        if until <= first:
            return
        touching = [one for one in self._empty if one[0] <= until and first <= one[1]]
        merged = (min([first, *(one[0] for one in touching)]), max([until, *(one[1] for one in touching)]))
        self._empty = sorted([*(one for one in self._empty if one not in touching), merged])
        if len(self._empty) > EMPTY_RANGES_MAX:
            self._empty.remove(self._empty[0] if self._empty[0] != merged else self._empty[1])

    def position(self, offset: int) -> int:
        """The offset of the next record that may be there at or after `offset`."""
        return next((until for first, until in self._empty if first <= offset < until), offset)

    def knows(self, offset: int) -> bool:
        """Whether the record at `offset` itself was read for its timestamp."""
        place = bisect.bisect_left(self._told, (offset,))
        return place < len(self._told) and self._told[place][0] == offset

    @property
    def first(self) -> int:
        """The first offset whose time is known; what is before it is at least as old."""
        hint = [self._hint] if self._hint is not None else []
        return min([points[0][0] for points in (self._seen, self._told, hint) if points], default=_NOWHERE)

    def times_ms(self, offsets: Int64) -> tuple[Float64, Int64, Int64]:
        """Times of the records at `offsets`, and of the points between which each lies.

        The width between the points is how far the time may be off. NaN and zeros when nothing is known.
        """
        points = self._points() if self._seen or self._told or self._hint else []
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
        told = self._told
        if self._hint is not None and not self.knows(self._hint[0]):
            told = sorted([*told, self._hint])
        merged: list[tuple[int, int]] = []
        stamps = [stamp for _, stamp in told[:1]]
        floor, i = min([*stamps, *(time for _, time, _ in self._seen[:1])]), 0
        for end, first, last in self._seen:
            # Every record before `end` had come by `first`.
            while i < len(told) and told[i][0] < end:
                floor = min(max(told[i][1], floor), first)
                merged.append((told[i][0], floor))
                i += 1
            if merged and merged[-1][0] < end - 1:
                floor = max(first, floor)
                merged.append((end - 1, floor))
            # The record at `end` came after `last`; when it is told, that is the better point.
            floor = max(floor, last)
            if i == len(told) or told[i][0] != end:
                merged.append((end, floor))
        for offset, stamp in told[i:]:
            floor = max(stamp, floor)
            merged.append((offset, floor))
        return merged
