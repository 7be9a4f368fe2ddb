"""Session windows per key: a session goes on as long as no two events of its key are farther apart than the gap.

Of each key the newest session is kept. It is over when an event of its key comes after the gap, or when the watermark
is a gap and the grace beyond its last event. That is decided at each event's own place in the log, by the watermark
just before that event became due (`prior`), so that rows and revisions do not depend on how the log was cut (I8).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from streams.batch.columns import TIME_MIN, Bools, Int64
from streams.batch.rows import Rows, concat_rows, put_rows
from streams.operators.fold.aggregate import Segments, WindowAggregate
from streams.operators.window.runs import NEVER, Closed, fold_in_turn


class Sessions:
    """The operator. State rows: the newest session of each key."""

    def __init__(self, aggregate: WindowAggregate, *, gap_ms: int, grace_ms: int) -> None:
        self._aggregate = aggregate
        self._gap_ms = gap_ms
        self._grace_ms = grace_ms
        self.dtype: np.dtype[Any] = np.dtype(
            [
                ("start", "<i8"),  # first event
                ("last", "<i8"),  # last event so far
                ("close_at", "<i8"),  # watermark that closes it; NEVER: it is closed
                ("revision", "<i8"),
                ("state", aggregate.dtype),
            ]
        )

    def empty(self, count: int) -> Rows:
        """Rows of keys that have had no session yet."""
        rows = np.zeros(count, dtype=self.dtype)
        rows["start"], rows["last"], rows["close_at"] = TIME_MIN, TIME_MIN, NEVER
        return rows

    def fold(self, state: Rows, segments: Segments) -> tuple[Rows, Closed]:
        """As `WindowFamily` says. An event within the gap of a session that the watermark has closed opens it again."""
        runs = self._runs(state, segments)
        newest = state.take(runs.owner)
        rows = np.zeros(len(runs.first), dtype=self.dtype)
        rows["start"], rows["revision"] = _starts_and_revisions(runs, newest, segments.event_time)
        rows["last"] = segments.event_time[runs.last]
        rows["close_at"] = self._close_at(segments)[runs.last]
        rows["state"] = self._states(runs, newest["state"], segments)
        is_first = runs.ordinal == 0
        closes = is_first & (newest["close_at"] != NEVER) & ~runs.goes_on
        overtaken = np.append(~is_first[1:], False)  # by the next run of the same key
        owner = np.concatenate([runs.owner[closes], runs.owner[overtaken]])
        order = np.argsort(owner, kind="stable")
        after = state.copy()
        last = (~overtaken).nonzero()[0]
        put_rows(after, runs.owner[last], rows.take(last))
        closed = concat_rows([newest.take(closes.nonzero()[0]), rows.take(overtaken.nonzero()[0])])
        return after, Closed(owner[order], closed.take(order))

    def end(self, last: Int64) -> Int64:
        """End of sessions whose last events are at `last`, exclusive."""
        return last + self._gap_ms

    def _close_at(self, segments: Segments) -> Int64:
        """Watermark that closes a session with each event as its last; past events have the grace from then on."""
        closes: Int64 = np.maximum(self.end(segments.event_time), segments.prior) + self._grace_ms
        return closes

    def _runs(self, state: Rows, segments: Segments) -> "_Runs":
        """Segments cut where a session begins, and where the watermark closes it between two of its events."""
        time, prior = segments.event_time, segments.prior
        owner = np.repeat(np.arange(len(segments)), segments.end - segments.start + 1)
        before, closed_at = np.empty_like(time), np.empty_like(time)
        before[1:], closed_at[1:] = time[:-1], self._close_at(segments)[:-1]
        begins = segments.start
        before[begins], closed_at[begins] = state["last"], state["close_at"]
        is_known = np.ones(len(time), dtype=np.bool_)
        is_known[begins] = state["start"] != TIME_MIN
        is_new = ~is_known | (time - np.where(is_known, before, time) > self._gap_ms)
        is_over = (prior >= closed_at) | (closed_at == NEVER)
        is_first_of_owner = np.zeros(len(time), dtype=np.bool_)
        is_first_of_owner[begins] = True
        first = (is_first_of_owner | is_new | is_over).nonzero()[0]
        last = np.append(first[1:] - 1, len(time) - 1)
        run_owner = owner[first]
        ordinal = np.arange(len(first)) - np.searchsorted(run_owner, run_owner, side="left")
        goes_on = is_first_of_owner[first] & ~is_new[first] & ~is_over[first]
        return _Runs(first, last, run_owner, ordinal, is_new[first], goes_on)

    def _states(self, runs: "_Runs", newest: Rows, segments: Segments) -> Rows:
        """State of each run's session after its events; `newest` is what the run's key had before all of them.

        A session begins with nothing; one that is opened again with what passes over from its row before.
        """
        inner = np.zeros_like(newest)
        goes_on = runs.goes_on.nonzero()[0]
        put_rows(inner, goes_on, newest.take(goes_on))
        again = ((runs.ordinal == 0) & ~runs.is_new & ~runs.goes_on).nonzero()[0]
        if len(again):
            put_rows(inner, again, self._aggregate.carry(newest.take(again)))
        later = ((runs.ordinal > 0) & ~runs.is_new).nonzero()[0]
        return fold_in_turn(self._aggregate, inner, segments.pick(runs.first, runs.last), later, runs.ordinal)


def _starts_and_revisions(runs: "_Runs", newest: Rows, event_time: Int64) -> tuple[Int64, Int64]:
    """Start of each run's session, and the number of the run among the session's rows."""
    leads = (runs.is_new | (runs.ordinal == 0)).nonzero()[0]
    group = np.cumsum(runs.is_new | (runs.ordinal == 0)) - 1
    is_new = runs.is_new[leads]
    start = np.where(is_new, event_time[runs.first[leads]], newest["start"][leads])
    base = np.where(is_new, 0, newest["revision"][leads] + ~runs.goes_on[leads])
    return start[group], base[group] + np.arange(len(group)) - leads[group]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Events of one key that are folded in one go; those of a key stand one after the other."""

    first: Int64
    last: Int64
    owner: Int64
    ordinal: Int64
    """Number of the run among those of its owner."""
    is_new: Bools
    """Whether each run begins a session."""
    goes_on: Bools
    """Whether each run continues its key's current session."""
