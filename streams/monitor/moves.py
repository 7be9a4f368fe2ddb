"""How a group's positions have moved, also before the window, to learn how often it commits. Pure.

A *move* is a sample at which the committed offset differs from the previous sample. A *wait* is how long readable
records had waited for a move: from the move before it, or from the first record since then, whichever came later. A
time without records is no wait, so it does not affect the rhythm.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from streams.batch.columns import Bools, Float64, Int64

MOVES_KEPT: Final = 8
"""Newest moves remembered of each position."""
MOVES_KNOWN: Final = 3
"""The rhythm of a position is known after so many moves: the first wait had begun before watching did."""
HAND_MOVES: Final = 2
"""So many moves while no member has the partition indicate a consumer that assigns partitions itself: a single one may
be a reset of the offsets.
"""


@dataclass(frozen=True, slots=True)
class Moves:
    """The moves of n positions. The columns of the tables (n, `MOVES_KEPT`) are oldest first, filled from the right."""

    time_ms: Int64
    """When each move was seen."""
    offset: Int64
    """Offset that each move led to."""
    lag: Int64
    """Records that were still waiting after each move."""
    wait_s: Float64
    count: Int64
    """Number of moves in all; the tables have the newest of them."""
    since_ms: Int64
    """Time of the newest move, or when the position was first seen."""
    by_hand: Int64
    """Moves since a member last had the partition."""

    def rows(self, rows: list[int]) -> Self:
        """The moves of these positions."""
        return type(self)(*(getattr(self, name)[rows] for name in _COLUMNS))

    @property
    def is_known(self) -> Bools:
        """Whether the rhythm is known."""
        return np.asarray(self.count >= MOVES_KNOWN, dtype=np.bool_)

    @property
    def rhythm_s(self) -> Float64:
        """The second longest of the newest waits, so that one outage does not count.

        Of two moves or fewer the longest.
        """
        waits = np.sort(self.wait_s, axis=1)
        return np.where(self.is_known, waits[:, -2], waits[:, -1])


_COLUMNS: Final = ("time_ms", "offset", "lag", "wait_s", "count", "since_ms", "by_hand")


class MoveTracker:
    """Collects the moves of one group's positions, sample by sample."""

    def __init__(self) -> None:
        self.moves = _empty(0, 0)
        self._behind_ms: Int64 = np.empty(0, dtype=np.int64)
        """Since when there have been records to read after the newest move; -1: there are none."""

    @property
    def peers_s(self) -> Float64:
        """For each position the slowest known rhythm of the group; NaN: none is known."""
        known = self.moves.rhythm_s[self.moves.is_known]
        return np.full(len(self.moves.count), known.max() if len(known) else np.nan)

    def move_to(self, taken: Int64, time_ms: int) -> None:
        """Have these rows from now on: old row numbers, -1 for a position that is new at `time_ms`."""
        fresh, old = taken < 0, np.maximum(taken, 0)
        before, blank = self.moves, _empty(len(taken), time_ms)
        if not len(before.count):
            self.moves, self._behind_ms = blank, np.full(len(taken), -1, dtype=np.int64)
            return
        columns = {
            name: np.where(_like(fresh, getattr(blank, name)), getattr(blank, name), getattr(before, name)[old])
            for name in _COLUMNS
        }
        self.moves = Moves(**columns)
        self._behind_ms = np.where(fresh, -1, self._behind_ms[old])

    def add(self, time_ms: int, moved: Bools, offset: Int64, lag: Int64, unowned: Bools) -> None:
        """Take a sample in. `moved`: the position differs from before; `unowned`: no member has it, nor had then."""
        one = self.moves
        began_ms = np.where(self._behind_ms < 0, time_ms, np.maximum(self._behind_ms, one.since_ms))
        if moved.any():
            wait_s = (time_ms - began_ms) / 1000.0
            self.moves = one = Moves(
                time_ms=_pushed(one.time_ms, moved, time_ms),
                offset=_pushed(one.offset, moved, offset),
                lag=_pushed(one.lag, moved, lag),
                wait_s=_pushed(one.wait_s, moved, wait_s),
                count=one.count + moved,
                since_ms=np.where(moved, time_ms, one.since_ms),
                by_hand=one.by_hand + (moved & unowned),
            )
        still_behind = (self._behind_ms >= 0) & ~moved
        self._behind_ms = np.where(lag > 0, np.where(still_behind, self._behind_ms, time_ms), -1)

    def owned(self, rows: Bools) -> None:
        """Members have these partitions: commits there are a member's."""
        if (self.moves.by_hand[rows] > 0).any():
            columns = {name: getattr(self.moves, name) for name in _COLUMNS}
            self.moves = Moves(**{**columns, "by_hand": np.where(rows, 0, self.moves.by_hand)})


def _empty(rows: int, time_ms: int) -> Moves:
    table = (rows, MOVES_KEPT)
    return Moves(
        time_ms=np.zeros(table, dtype=np.int64),
        offset=np.zeros(table, dtype=np.int64),
        lag=np.zeros(table, dtype=np.int64),
        wait_s=np.zeros(table),
        count=np.zeros(rows, dtype=np.int64),
        since_ms=np.full(rows, time_ms, dtype=np.int64),
        by_hand=np.zeros(rows, dtype=np.int64),
    )


def _pushed(table: npt.NDArray[Any], rows: Bools, value: npt.NDArray[Any] | int) -> npt.NDArray[Any]:
    """`table` with a column more on the right and one less on the left, in these rows."""
    newest = np.broadcast_to(np.asarray(value, dtype=table.dtype), (len(table),))
    return np.where(rows[:, None], np.column_stack([table[:, 1:], newest]), table)


def _like(rows: Bools, column: npt.NDArray[Any]) -> Bools:
    return rows.reshape(-1, *[1] * (column.ndim - 1))
