"""History that comes late, judged and folded at once, against the same one event and one window after the other."""

import heapq
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from logistics.folds.vehicle_minute import VehicleMinute
from streams.batch.columns import TIME_MIN, Int64, Objects, object_rows, objects
from streams.batch.events import Events, Fields
from streams.batch.refs import byte_values
from streams.operators.fold.aggregate import Segments
from streams.operators.reorder.judge import LastDue, judge_behind
from streams.operators.trace import watermarks
from streams.operators.window.runs import NEVER
from streams.operators.window.windows import Windows
from tests.examples import examples

QUICK = settings(deadline=None, max_examples=examples(150))
SLOTS = 4
IDS = (b"", b"a", b"b", b"\xc3\xa9", b"zz")


# --- which events behind the watermark are late -----------------------------------------------------------------------


def judged_one_by_one(
    events: Events, watermark: NDArray[np.int64], behind: NDArray[np.bool_], last_due: LastDue, held: list[Events]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """A heap of what waits for each key, and its last due event: the rule as it is written down."""
    late, late_by_ms = np.zeros(len(events), dtype=np.bool_), np.zeros(len(events), dtype=np.int64)
    pending: dict[int, list[Any]] = {}
    for chunk in held:
        for row in range(len(chunk)):
            heapq.heappush(pending.setdefault(int(chunk.slot[row]), []), sort_key(chunk, row))
    due = {slot: last_due.of(slot) for slot in range(SLOTS)}
    for row in range(len(events)):
        slot, key = int(events.slot[row]), sort_key(events, row)
        heap = pending.setdefault(slot, [])
        while heap and heap[0][0] <= watermark[row]:
            due[slot] = max(due[slot], heapq.heappop(heap))
        if not behind[row]:
            heapq.heappush(heap, key)
        elif key >= due[slot]:
            due[slot] = key
        else:
            late[row], late_by_ms[row] = True, due[slot][0] - key[0]
    return late, late_by_ms


def sort_key(events: Events, row: int) -> tuple[int, int, bytes]:
    return int(events.event_time[row]), int(events.sequence[row]), byte_values(events.event_id)[row]


def events_of(rows: list[tuple[int, int, int, bytes]]) -> Events:
    """Events of (slot, event time, sequence, id)."""
    slot, time, sequence, ids = zip(*rows, strict=True) if rows else ((), (), (), ())
    count = len(rows)
    number, word = np.zeros(count, np.int64), np.zeros(count, np.uint64)
    return Events(
        number, number, np.array(time, np.int64), np.array(sequence, np.int64), objects(list(ids)), word, word, word,
        objects([b""] * count), objects([b""] * count), None, np.empty((0, count)), object_rows([], count),
        np.array(slot, np.int64),
    )  # fmt: skip


ROWS = st.lists(
    st.tuples(st.integers(0, SLOTS - 1), st.integers(0, 40), st.integers(-1, 1), st.sampled_from(IDS)), max_size=40
)
LAST = st.tuples(st.sampled_from((TIME_MIN, 0, 10, 20)), st.integers(-1, 1), st.sampled_from(IDS))


@QUICK
@given(ROWS, st.lists(ROWS, max_size=3), st.lists(LAST, min_size=SLOTS, max_size=SLOTS), st.integers(0, 20))
def test_a_whole_batch_is_judged_as_event_by_event(
    rows: list[tuple[int, int, int, bytes]],
    held: list[list[tuple[int, int, int, bytes]]],
    last: list[tuple[int, int, bytes]],
    lateness_ms: int,
) -> None:
    events, chunks = events_of(rows), [events_of(chunk) for chunk in held]
    if not rows:
        return
    watermark = watermarks(events.event_time, events.event_time, start=8, lateness_ms=lateness_ms)
    behind = events.event_time <= watermark
    if not behind.any():
        return
    times, sequences, ids = zip(*last, strict=True)
    last_due = LastDue(np.array(times, np.int64), np.array(sequences, np.int64), objects(list(ids)))
    found = judge_behind(events, watermark, behind, last_due, chunks)
    expected = judged_one_by_one(events, watermark, behind, last_due, chunks)
    assert [column.tolist() for column in expected] == [column.tolist() for column in found]


# --- windows ----------------------------------------------------------------------------------------------------------


class Positions(VehicleMinute):
    """The window of vehicles, with its calls counted."""

    def __init__(self) -> None:
        self.folds = 0

    def fold(self, state: NDArray[Any], segments: Segments) -> NDArray[Any]:
        self.folds += 1
        return super().fold(state, segments)


class Numbered:
    """A window that passes over something of all windows before: how many events there have ever been."""

    dtype = np.dtype([("before", "<i8"), ("events", "<i8")])

    def __init__(self) -> None:
        self.folds = 0

    def fold(self, state: NDArray[Any], segments: Segments) -> NDArray[Any]:
        self.folds += 1
        rows = state.copy()
        rows["events"] += segments.end - segments.start + 1
        return rows

    def carry(self, state: NDArray[Any]) -> NDArray[Any]:
        rows = np.zeros_like(state)
        rows["before"] = state["before"] + state["events"]
        return rows

    def table(self, keys: Objects, start: Int64, end: Int64, revision: Int64, state: NDArray[Any]) -> pa.RecordBatch:
        """Nobody reads rows here."""
        raise NotImplementedError


def one_event_at_a_time(
    operator: Windows, state: NDArray[Any], segments: Segments
) -> tuple[NDArray[Any], dict[int, list[tuple[Any, ...]]]]:
    """The operator itself, but never more than one event of a key at once."""
    rows = state.copy()
    closed: dict[int, list[tuple[Any, ...]]] = {}
    for position in range(len(segments)):
        for row in range(int(segments.start[position]), int(segments.end[position]) + 1):
            one = segments.pick(np.array([row]), np.array([row]))
            rows[[position]], found = operator.fold(rows[[position]], one)
            closed.setdefault(position, []).extend(found.rows.tolist())
    return rows, {owner: some for owner, some in closed.items() if some}


def segments_of(keys: list[list[tuple[int, int]]]) -> Segments:
    """Segments of keys, each a list of (event time, watermark before it), in order."""
    lengths = np.array([len(rows) for rows in keys])
    time = np.array([time for rows in keys for time, _ in rows], np.int64)
    prior = np.array([prior for rows in keys for _, prior in rows], np.int64)
    chance = np.random.default_rng(len(time))
    payload = np.stack([chance.uniform(-90, 90, len(time)), chance.uniform(-180, 180, len(time)), time % 7.0])
    payload[2, time % 5 == 0] = np.nan
    end = np.cumsum(lengths) - 1
    fields = Fields(("latitude", "longitude", "speed_kmh"))
    return Segments(time, time, payload, object_rows([], len(time)), prior, end - lengths + 1, end, fields)


@st.composite
def _keys(draw: st.DrawFn) -> list[list[tuple[int, int]]] | None:
    """Of each key events in order; the watermark before each goes on within a key, too."""
    keys = []
    for _ in range(draw(st.integers(1, 4))):
        times = sorted(draw(st.lists(st.integers(0, 60), min_size=1, max_size=12)))
        priors = sorted(draw(st.lists(st.integers(-5, 90), min_size=len(times), max_size=len(times))))
        keys.append(list(zip(times, priors, strict=True)))
    return keys


@pytest.mark.parametrize("aggregate", [Positions, Numbered])
@pytest.mark.parametrize("grace_ms", [0, 4, 1_000])
@QUICK
@given(_keys(), st.data())
def test_many_windows_of_a_key_are_folded_at_once_as_one_after_the_other(
    aggregate: type[Numbered] | type[Positions], grace_ms: int, keys: list[list[tuple[int, int]]], data: st.DataObject
) -> None:
    operator = Windows(aggregate(), size_ms=10, grace_ms=grace_ms)
    state = operator.empty(len(keys))
    for position, rows in enumerate(keys):  # some have a newest window: before, of the same start, open or closed
        if data.draw(st.booleans(), label="has a window"):
            start = rows[0][0] // 10 * 10 - data.draw(st.sampled_from((0, 0, 10, 50)), label="before")
            state["start"][position] = start
            state["close_at"][position] = data.draw(st.sampled_from((start + 10, 100, NEVER)), label="closes at")
            state["revision"][position] = data.draw(st.integers(0, 3), label="revision")
    segments = segments_of(keys)
    after, closed = operator.fold(state, segments)
    expected, expected_closed = one_event_at_a_time(operator, state, segments)
    assert expected.tobytes() == after.tobytes()
    found: dict[int, list[object]] = {}
    for owner, row in zip(closed.owner.tolist(), closed.rows.tolist(), strict=True):
        found.setdefault(owner, []).append(row)
    assert repr(sorted(expected_closed.items())) == repr(sorted(found.items()))


def test_history_of_thousands_of_windows_takes_a_handful_of_folds() -> None:
    aggregate = Positions()
    operator = Windows(aggregate, size_ms=10, grace_ms=4)
    segments = segments_of([[(10 * number, 10**6) for number in range(4_000)]])
    _, closed = operator.fold(operator.empty(1), segments)
    assert 3_999 == len(closed)
    assert aggregate.folds <= 5


def test_what_passes_over_all_windows_is_right_for_any_number_of_them() -> None:
    operator = Windows(Numbered(), size_ms=10, grace_ms=4)
    segments = segments_of([[(10 * number, 10**6) for number in range(200)]])
    after, closed = operator.fold(operator.empty(1), segments)
    assert list(range(199)) == closed.rows["state"]["before"].tolist()
    assert 199 == after["state"]["before"][0]
