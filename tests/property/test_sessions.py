"""Sessions and hopping windows, folded a batch at once, against one event after the other: however the log is cut."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.batch.columns import Int64, Objects, object_rows
from streams.batch.events import Fields
from streams.batch.rows import Rows
from streams.operators.fold.aggregate import Segments
from streams.operators.window.runs import NEVER, close
from streams.operators.window.sessions import Sessions
from streams.operators.window.windows import Windows
from tests.examples import examples

GAP_MS, GRACE_MS = 10, 5


class Sums:
    """Counts events and adds values up; the last value passes over, and is added to the first one after it."""

    dtype = np.dtype([("events", "<i8"), ("total", "<i8"), ("last", "<i8")])

    def fold(self, state: Rows, segments: Segments) -> Rows:
        rows = state.copy()
        value = segments.number("value").astype(np.int64)
        rows["events"] += segments.end - segments.start + 1
        rows["total"] += np.add.reduceat(value, segments.start) + np.where(state["events"] == 0, state["last"], 0)
        rows["last"] = value[segments.end]
        return rows

    def carry(self, state: Rows) -> Rows:
        rows = np.zeros_like(state)
        rows["last"] = state["last"]
        return rows

    def table(self, keys: Objects, start: Int64, end: Int64, revision: Int64, state: Rows) -> pa.RecordBatch:
        raise NotImplementedError


@dataclass(frozen=True)
class One:
    """An event of a key: when it happened, where the watermark was before it, its value."""

    key: int
    time: int
    prior: int
    value: int


@dataclass
class OpenSession:
    start: int
    last: int
    close_at: int
    revision: int
    events: int
    total: int
    last_value: int
    is_open: bool = True

    @property
    def row(self) -> tuple[int, int, int, int, int]:
        return self.start, self.last, self.revision, self.events, self.total


def naive(events: list[One]) -> dict[int, list[tuple[int, int, int, int, int]]]:
    """Rows of each key in their order."""
    rows: dict[int, list[tuple[int, int, int, int, int]]] = {}
    newest: dict[int, OpenSession] = {}

    def over(key: int) -> None:
        newest[key].is_open = False
        rows.setdefault(key, []).append(newest[key].row)

    for one in events:
        known = newest.get(one.key)
        if known is not None and known.is_open and one.prior >= known.close_at:
            over(one.key)
        close_at = max(one.time + GAP_MS, one.prior) + GRACE_MS
        if known is None or one.time - known.last > GAP_MS:
            if known is not None and known.is_open:
                over(one.key)
            newest[one.key] = OpenSession(one.time, one.time, close_at, 0, 1, one.value, one.value)
        else:
            if not known.is_open:
                known.revision, known.events, known.total, known.is_open = known.revision + 1, 0, known.last_value, True
            known.last, known.close_at = one.time, close_at
            known.events, known.total, known.last_value = known.events + 1, known.total + one.value, one.value
    for key, each in newest.items():
        if each.is_open:
            over(key)
    return rows


@st.composite
def logs(draw: st.DrawFn) -> list[One]:
    """Events in the order in which they are passed on: of each key by time, the watermark never going back."""
    count = draw(st.integers(1, 40))
    watermark, latest = 0, dict.fromkeys(range(3), 0)
    found: list[One] = []
    for _ in range(count):
        key = draw(st.integers(0, 2))
        latest[key] += draw(st.sampled_from((0, 1, 4, 9, 10, 11, 30)))
        found.append(One(key, latest[key], watermark, draw(st.integers(1, 9))))
        watermark = max(watermark, watermark + draw(st.sampled_from((0, 0, 3, 12, 40))))
    return found


def segments_of(events: list[One]) -> tuple[Segments, list[int]]:
    """Events by key, each key a segment; and the keys."""
    ordered = sorted(events, key=lambda one: one.key)
    keys = sorted({one.key for one in events})
    starts = [next(place for place, one in enumerate(ordered) if one.key == key) for key in keys]
    ends = [*(start - 1 for start in starts[1:]), len(ordered) - 1]
    times = np.array([one.time for one in ordered], np.int64)
    return Segments(
        event_time=times,
        sequence=times,
        payload=np.array([[one.value for one in ordered]], float),
        texts=object_rows([], len(ordered)),
        prior=np.array([one.prior for one in ordered], np.int64),
        start=np.array(starts, np.int64),
        end=np.array(ends, np.int64),
        fields=Fields(("value",)),
    ), keys


@settings(max_examples=examples(100), deadline=None)
@given(events=logs(), cuts=st.lists(st.integers(0, 40)))
def test_sessions_of_any_cut_are_those_of_one_event_after_the_other(events: list[One], cuts: list[int]) -> None:
    sessions = Sessions(Sums(), gap_ms=GAP_MS, grace_ms=GRACE_MS)
    state = sessions.empty(3)
    rows: dict[int, list[Any]] = {}
    edges = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    for start, end in itertools.pairwise(edges):
        segments, keys = segments_of(events[start:end])
        state[keys], closed = sessions.fold(state[keys], segments)
        for owner, row in zip(closed.owner.tolist(), closed.rows, strict=True):
            rows.setdefault(keys[owner], []).append(_row(row))
        if end < len(events):  # the watermark before the next event is the one after this batch
            by_time = close(state, events[end].prior)
            for owner, row in zip(by_time.owner.tolist(), by_time.rows, strict=True):
                rows.setdefault(owner, []).append(_row(row))
    rest = close(state, NEVER - 1)
    for owner, row in zip(rest.owner.tolist(), rest.rows, strict=True):
        rows.setdefault(owner, []).append(_row(row))
    assert rows == naive(events)


def _row(row: Any) -> tuple[int, int, int, int, int]:
    state = row["state"]
    return int(row["start"]), int(row["last"]), int(row["revision"]), int(state["events"]), int(state["total"])


@settings(max_examples=examples(30), deadline=None)
@given(events=logs(), phase=st.integers(0, 3))
def test_windows_with_an_offset_begin_there(events: list[One], phase: int) -> None:
    windows = Windows(Sums(), size_ms=20, grace_ms=0, offset_ms=5 * phase)
    segments, keys = segments_of(events)
    state, closed = windows.fold(windows.empty(len(keys)), segments)
    starts = {int(start) for start in (*state["start"], *closed.rows["start"])}
    due = {(one.time - 5 * phase) // 20 * 20 + 5 * phase for one in events}
    assert starts == due
