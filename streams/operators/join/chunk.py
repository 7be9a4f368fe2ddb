"""Rows of a join in memory, by slot and time, and how they are found."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from streams.batch.columns import Bools, Int64
from streams.batch.rows import Rows
from streams.operators.join.bucketed import NUMBER, TIME
from streams.operators.join.packed import memory_of

_WORD_BITS: Final = 63
"""Bits that a number which is not negative may use."""


@dataclass(slots=True)
class Chunk:
    """Rows by slot; those of one slot in the order in which they were passed, so also by number and by time."""

    slot: Int64
    rows: Rows
    time: Int64
    number: Int64
    bytes_used: int
    _places: "_Places | None" = None

    @staticmethod
    def of(slot: Int64, rows: Rows) -> "Chunk":
        """Make a chunk of rows that are in the order in which they were passed, or sorted by slot in that order."""
        order = np.argsort(slot, kind="stable")
        rows = rows[order]
        time, number = np.ascontiguousarray(rows[TIME]), np.ascontiguousarray(rows[NUMBER])
        return Chunk(slot[order], rows, time, number, memory_of(rows) + 24 * len(rows))

    def __len__(self) -> int:
        return len(self.slot)

    def take(self, some: Bools) -> "Chunk":
        """Return the rows at the positions `some`."""
        return self if some.all() else Chunk.of(self.slot[some], self.rows[some])

    def ends(self, slots: Int64, low: Int64, high: Int64, before: Int64, column: str) -> tuple[Int64, Int64]:
        """Places of the rows of each slot from time `low` to `high` and below `before` in a column: from, and before.

        There are none where the second is not above the first.
        """
        first, last = self.slot.searchsorted(slots, "left"), self.slot.searchsorted(slots, "right")
        ascending = self.number if column == NUMBER else np.ascontiguousarray(self.rows[column])
        end = np.minimum(
            _first_at_least(self.time, first, last, high + 1), _first_at_least(ascending, first, last, before)
        )
        return _first_at_least(self.time, first, last, low), end

    def last(self, slots: Int64, low: Int64, high: Int64, before: Int64, column: str) -> Int64:
        """Place of the last row of each slot from time `low` to `high` and below `before` in a column; -1: none."""
        if not len(self):  # as when the keys of all its rows have moved to another partition
            return np.full(len(slots), -1)
        end = self._until(slots, high)
        ascending = self.number if column == NUMBER else self.rows[column]
        place = end - 1
        beyond = np.flatnonzero((place >= 0) & (ascending[place] >= before))
        if len(beyond):
            first = self.slot.searchsorted(slots[beyond], "left")
            of = np.ascontiguousarray(ascending)
            place[beyond] = _first_at_least(of, first, np.maximum(end[beyond], first), before[beyond]) - 1
        good = (place >= 0) & (self.slot[place] == slots) & (self.time[place] >= low)
        return np.where(good, place, -1)

    def _until(self, slots: Int64, high: Int64) -> Int64:
        """Place after the last row of each slot, or of a smaller one, up to time `high`."""
        if self._places is None:
            self._places = _Places.of(self.slot, self.time)
        if (found := self._places.after(slots, high)) is not None:
            return found
        first, last = self.slot.searchsorted(slots, "left"), self.slot.searchsorted(slots, "right")
        return _first_at_least(self.time, first, last, high + 1)


@dataclass(frozen=True, slots=True)
class _Places:
    """Slot and time of each row as one number, which ascends as they do: found by one search."""

    words: Int64
    """Empty where they do not fit into one."""
    begin: int
    end: int
    bits: int

    @staticmethod
    def of(slot: Int64, time: Int64) -> "_Places":
        """Make it of rows (at least one) that are sorted by slot, and by time within a slot."""
        begin, end = int(time.min()), int(time.max())
        bits = (end - begin + 2).bit_length()
        fits = bits + int(slot[-1]).bit_length() < _WORD_BITS
        return _Places((slot << bits) + (time - begin) if fits else slot[:0], begin, end, bits)

    def after(self, slots: Int64, high: Int64) -> Int64 | None:
        """Place after the last row of each slot, or of a smaller one, up to time `high`; None: it cannot tell."""
        if not len(self.words) or (len(slots) and int(slots.max()).bit_length() + self.bits >= _WORD_BITS):
            return None
        word = (slots << self.bits) + (np.clip(high, self.begin - 1, self.end) - self.begin)
        return self.words.searchsorted(word, "right")


def _first_at_least(values: Int64, first: Int64, last: Int64, bound: Int64) -> Int64:
    """For each query, return the first place in `first` to `last` whose value is at least `bound`; if none, `last`.

    Within these places values ascend.
    """
    low, high = first.copy(), last.copy()
    top = len(values) - 1
    while True:
        is_open = low < high
        if not is_open.any():
            return low
        middle = (low + high) >> 1
        below = is_open & (values[np.minimum(middle, top)] < bound)
        low = np.where(below, middle + 1, low)
        high = np.where(is_open & ~below, middle, high)
