"""When a record arrived, by its offset: from log ends seen at a time, and from records' timestamps. Pure.

Two kinds of knowledge about one partition:

- *Seen*: at time t the log ended at offset e. So records before e arrived before t, and all others after it.
- *Told*: the broker's timestamp of the record at offset o. It is used within the limits of what was seen: a tracker's
clock, or a file of yesterday's events, does not turn a record that arrived a second ago into lag.

The timestamp of a transaction marker is as good as a record's, but is no evidence of a record: see `hint`.

Between two such points the time is interpolated. Before the first point it is not known: the result is the first
point's time, so the age is a lower bound.
"""

import bisect
from typing import Final

import numpy as np

from streams.batch.columns import Float64, Int64

POINTS_MAX: Final = 256
"""Points kept per partition and kind; when there are more, the oldest half is thinned out."""
EMPTY_RANGES_MAX: Final = 16
"""Ranges without records that are remembered per partition; the first is forgotten for a new one."""
_NOWHERE: Final = 1 << 62


class Timeline:
    """Times of the records of one partition."""

    __slots__ = ("_empty", "_hint", "_seen", "_told")

    def __init__(self) -> None:
        self._seen: list[tuple[int, int, int]] = []
        """(End of the log, when it was first and when it was last seen there)."""
        self._told: list[tuple[int, int]] = []
        self._hint: tuple[int, int] | None = None
        """Offset and timestamp of the newest entry of the log, which may be a transaction marker."""
        self._empty: list[tuple[int, int]] = []
        """Ranges of offsets (end excluded) without records: transaction markers, aborted, compacted away.

        In order, none touching another.
        """

    def see(self, end: int, time_ms: int) -> None:
        """At `time_ms` the log ended at `end`. A smaller end than before means another log: all is forgotten."""
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
        """Timestamp of what is at `offset`, a record or a transaction marker: a time, but no evidence of a record."""
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
        """Whether the timestamp of the record at `offset` itself is known."""
        place = bisect.bisect_left(self._told, (offset,))
        return place < len(self._told) and self._told[place][0] == offset

    @property
    def first(self) -> int:
        """The first offset whose time is known; earlier records are at least as old."""
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
        """Points of both kinds by offset, times never falling, timestamps limited by what was seen."""
        told = self._told
        if self._hint is not None and not self.knows(self._hint[0]):
            told = sorted([*told, self._hint])
        merged: list[tuple[int, int]] = []
        stamps = [stamp for _, stamp in told[:1]]
        floor, i = min([*stamps, *(time for _, time, _ in self._seen[:1])]), 0
        for end, first, last in self._seen:
            # Every record before `end` had arrived by `first`.
            while i < len(told) and told[i][0] < end:
                floor = min(max(told[i][1], floor), first)
                merged.append((told[i][0], floor))
                i += 1
            if merged and merged[-1][0] < end - 1:
                floor = max(first, floor)
                merged.append((end - 1, floor))
            # The record at `end` arrived after `last`; its own timestamp, if known, is the better point.
            floor = max(floor, last)
            if i == len(told) or told[i][0] != end:
                merged.append((end, floor))
        for offset, stamp in told[i:]:
            floor = max(stamp, floor)
            merged.append((offset, floor))
        return merged
