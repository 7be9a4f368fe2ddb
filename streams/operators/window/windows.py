"""Tumbling event-time windows per key: opened, folded and closed, decided per record.

Of each key the newest window is kept. What closes it is decided at each event's own place in the log, by the watermark
just before that event became due (`prior`), so that rows and revisions do not depend on how the log was cut (I8).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from streams.batch.columns import TIME_MIN, Bools, Int64
from streams.batch.rows import Rows, concat_rows, put_rows, rows_where
from streams.operators.fold.aggregate import Segments, WindowAggregate
from streams.operators.window.runs import NEVER, Closed, fold_in_turn


class Windows:
    """The operator. State rows: the newest window of each key."""

    def __init__(self, aggregate: WindowAggregate, *, size_ms: int, grace_ms: int, offset_ms: int = 0) -> None:
        """`offset_ms`: where windows begin beyond the multiples of their length."""
        self._aggregate = aggregate
        self._size_ms = size_ms
        self._offset_ms = offset_ms
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
        """Rows after the events of each segment (`state[i]` belongs to segment `i`), and what closed on the way.

        Closed windows come by key, and of each key in the order in which they closed. Costs what the number of events
        costs, however many windows they fall into, as long as what passes over to a next window follows from the last
        window's own events (`WindowAggregate.carry`); other aggregates cost a step for each window of a key.
        """
        runs = self._runs(state, segments)
        newest = state.take(runs.owner)
        # A later run of a key never goes on with the one before it: that is where runs are cut.
        is_first = runs.ordinal == 0
        prior = segments.prior[runs.first]
        goes_on = is_first & _is_open(newest, runs.start, prior)
        rows = np.zeros(len(runs.first), dtype=self.dtype)
        rows["start"] = runs.start
        rows["close_at"] = np.where(goes_on, newest["close_at"], self._close_at(runs.start, prior))
        rows["revision"] = _revisions(runs, newest, goes_on)
        rows["state"] = self._states(runs, newest["state"], goes_on, segments)
        closes = is_first & (newest["close_at"] != NEVER) & ~goes_on
        before = newest.take(closes.nonzero()[0])
        overtaken = np.append(~is_first[1:], False)  # by the next run of the same key
        owner = np.concatenate([runs.owner[closes], runs.owner[overtaken]])
        order = np.argsort(owner, kind="stable")
        after = state.copy()
        last = (~overtaken).nonzero()[0]
        put_rows(after, runs.owner[last], rows.take(last))
        closed = concat_rows([before, rows.take(overtaken.nonzero()[0])])
        return after, Closed(owner[order], closed.take(order))

    def end(self, start: Int64) -> Int64:
        """End of the windows that begin at `start`, exclusive."""
        return start + self._size_ms

    def _states(self, runs: "_Runs", newest: Rows, goes_on: Bools, segments: Segments) -> Rows:
        """State of each run's window after its events; `newest` is what the run's key had before all of them."""
        inner = rows_where(goes_on, newest, self._aggregate.carry(newest))
        picked = segments.pick(runs.first, runs.last)
        return fold_in_turn(self._aggregate, inner, picked, (runs.ordinal > 0).nonzero()[0], runs.ordinal)

    def _close_at(self, start: Int64, prior: Int64) -> Int64:
        """Watermark that closes a window opened at watermark `prior`: for past events the grace counts from then on."""
        closes: Int64 = np.maximum(self.end(start), prior) + self._grace_ms
        return closes

    def _runs(self, state: Rows, segments: Segments) -> "_Runs":
        """Segments cut where the window changes, and where the watermark closes it between two of its events."""
        count = len(segments.event_time)
        owner = np.repeat(np.arange(len(segments)), segments.end - segments.start + 1)
        since = segments.event_time - self._offset_ms
        start = since // self._size_ms * self._size_ms + self._offset_ms
        change = (start[1:] != start[:-1]) | (owner[1:] != owner[:-1])
        first = np.concatenate([[0], change.nonzero()[0] + 1])
        last = np.append(first[1:] - 1, count - 1)
        newest, prior = state.take(owner[first]), segments.prior[first]
        is_first_of_owner = np.append(True, owner[first[1:]] != owner[first[:-1]])
        goes_on = is_first_of_owner & _is_open(newest, start[first], prior)
        close_at = np.where(goes_on, newest["close_at"], self._close_at(start[first], prior))
        overtaken = segments.prior[last] >= close_at
        if overtaken.any():
            cuts = [
                cut
                for run in overtaken.nonzero()[0].tolist()
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


def _revisions(runs: "_Runs", newest: Rows, goes_on: Bools) -> Int64:
    """Revision of each run's window: one more than its predecessor's when that is the same window, opened again."""
    is_first = runs.ordinal == 0
    again = is_first & (newest["start"] == runs.start) & ~goes_on
    base = np.where(again, newest["revision"] + 1, np.where(goes_on, newest["revision"], 0))
    changes = is_first | np.append(True, runs.start[1:] != runs.start[:-1])
    group = np.cumsum(changes) - 1
    leads = changes.nonzero()[0]
    found: Int64 = np.arange(len(group)) - leads[group] + np.where(is_first[leads], base[leads], 0)[group]
    return found


@dataclass(frozen=True, slots=True)
class _Runs:
    """Events of one key and one window, to be folded in one go; those of a key stand one after the other."""

    first: Int64
    last: Int64
    owner: Int64
    start: Int64
    ordinal: Int64
    """Number of the run among those of its owner."""
