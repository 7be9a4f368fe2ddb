"""Tumbling event-time windows per key: opened, folded and closed, decided per record.

Of each key the newest window is kept. What closes it is decided at each event's own place in the log, by the watermark
just before that event became due (`prior`), so that rows and revisions do not depend on how the log was cut (I8).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from streams.operators.aggregate import Rows, Segments, WindowAggregate
from streams.operators.columns import TIME_MIN, Bools, Int64

NEVER: Final = int(np.iinfo(np.int64).max)
"""`close_at` of a window that is not open."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Rows of closed windows: whose they are (position in what was passed in), and their state."""

    owner: Int64
    rows: Rows

    def __len__(self) -> int:
        return len(self.owner)


class Windows:
    """The operator. State rows: the newest window of each key."""

    def __init__(self, aggregate: WindowAggregate, *, size_ms: int, grace_ms: int) -> None:
        self._aggregate = aggregate
        self._size_ms = size_ms
        self._grace_ms = grace_ms
        self.dtype: np.dtype[Any] = np.dtype(
            [
                ("start", "<i8"),
                ("close_at", "<i8"),  # watermark that closes it; NEVER: it is closed
                ("revision", "<i8"),
                ("state", aggregate.dtype),
            ]
        )

    def empty(self, count: int) -> Rows:
        """Rows of keys that have had no window yet."""
        rows = np.zeros(count, dtype=self.dtype)
        rows["start"], rows["close_at"] = TIME_MIN, NEVER
        return rows

    def fold(self, state: Rows, segments: Segments) -> tuple[Rows, Closed]:
        """Rows after the events of each segment (`state[i]` belongs to segment `i`), and what closed on the way."""
        runs = self._runs(state, segments)
        rows = state.copy()
        closed: list[Closed] = []
        for ordinal in range(int(runs.ordinal.max()) + 1):
            chosen = runs.ordinal == ordinal
            closed.append(self._fold_runs(rows, runs.take(chosen), segments))
        owner = np.concatenate([part.owner for part in closed])
        return rows, Closed(owner, np.concatenate([part.rows for part in closed]))

    def close(self, state: Rows, watermark: int) -> Closed:
        """Close, in `state`, the windows that the watermark has passed."""
        owner = np.flatnonzero(state["close_at"] <= watermark)
        closed = Closed(owner, state[owner])
        state["close_at"][owner] = NEVER
        return closed

    def end(self, start: Int64) -> Int64:
        """End of the windows that begin at `start`, exclusive."""
        return start + self._size_ms

    def _fold_runs(self, rows: Rows, runs: "_Runs", segments: Segments) -> Closed:
        """Fold runs, at most one for each key, into `rows`; returns the windows that they close."""
        before = rows[runs.owner]
        prior = segments.prior[runs.first]
        goes_on = _is_open(before, runs.start, prior)
        closing = (before["close_at"] != NEVER) & ~goes_on
        after = before.copy()
        after["start"] = runs.start
        again = (before["start"] == runs.start) & ~goes_on
        after["revision"] = np.where(again, before["revision"] + 1, np.where(goes_on, before["revision"], 0))
        after["close_at"] = np.where(goes_on, before["close_at"], self._close_at(runs.start, prior))
        inner = np.where(goes_on, before["state"], self._aggregate.carry(before["state"]))
        after["state"] = self._aggregate.fold(inner, segments.pick(runs.first, runs.last))
        rows[runs.owner] = after
        return Closed(runs.owner[closing], before[closing])

    def _close_at(self, start: Int64, prior: Int64) -> Int64:
        """Watermark that closes a window opened when it stood at `prior`: history has the grace from then on."""
        closes: Int64 = np.maximum(self.end(start), prior) + self._grace_ms
        return closes

    def _runs(self, state: Rows, segments: Segments) -> "_Runs":
        """Segments cut where the window changes, and where the watermark closes it between two of its events."""
        count = len(segments.event_time)
        owner = np.repeat(np.arange(len(segments)), segments.end - segments.start + 1)
        start = segments.event_time // self._size_ms * self._size_ms
        change = (start[1:] != start[:-1]) | (owner[1:] != owner[:-1])
        first = np.concatenate([[0], np.flatnonzero(change) + 1])
        last = np.append(first[1:] - 1, count - 1)
        newest, prior = state[owner[first]], segments.prior[first]
        is_first_of_owner = np.append(True, owner[first[1:]] != owner[first[:-1]])
        goes_on = is_first_of_owner & _is_open(newest, start[first], prior)
        close_at = np.where(goes_on, newest["close_at"], self._close_at(start[first], prior))
        overtaken = segments.prior[last] >= close_at
        if overtaken.any():
            cuts = [
                cut
                for run in np.flatnonzero(overtaken).tolist()
                for cut in self._cuts(
                    segments.prior, int(first[run]), int(last[run]), int(start[first[run]]), int(close_at[run])
                )
            ]
            first = np.sort(np.concatenate([first, np.array(cuts, dtype=np.int64)]))
            last = np.append(first[1:] - 1, count - 1)
        run_owner = owner[first]
        ordinal = np.arange(len(first)) - np.searchsorted(run_owner, run_owner, side="left")
        return _Runs(first, last, run_owner, start[first], ordinal)

    def _cuts(self, prior: Int64, first: int, last: int, start: int, close_at: int) -> list[int]:
        """Rows of a run at which its window is opened again. `prior` does not fall within a key."""
        cuts: list[int] = []
        while True:
            row = first + 1 + int(np.searchsorted(prior[first + 1 : last + 1], close_at, side="left"))
            if row > last:
                return cuts
            cuts.append(row)
            first, close_at = row, max(start + self._size_ms, int(prior[row])) + self._grace_ms


def _is_open(newest: Rows, start: Int64, prior: Int64) -> Bools:
    """Whether each newest window is the one that begins at `start`, and not closed before the watermark `prior`."""
    is_open: Bools = (newest["start"] == start) & (newest["close_at"] != NEVER) & (prior < newest["close_at"])
    return is_open


@dataclass(frozen=True, slots=True)
class _Runs:
    """Events of one key and one window, to be folded in one go."""

    first: Int64
    last: Int64
    owner: Int64
    start: Int64
    ordinal: Int64
    """Number of the run among those of its owner."""

    def take(self, chosen: Any) -> "_Runs":
        return _Runs(
            self.first[chosen], self.last[chosen], self.owner[chosen], self.start[chosen], self.ordinal[chosen]
        )
