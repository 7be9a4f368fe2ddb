import random
import uuid
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from streams.batch.columns import TIME_MIN, object_rows, objects
from streams.batch.events import Events
from streams.operators.reorder.judge import LastDue, judge_behind, release_order
from streams.operators.trace import watermarks


def events(rows: list[tuple[int, int, int, str]]) -> Events:
    """Events of (slot, event time, sequence, id)."""
    count = len(rows)
    slot, time, sequence, ids = zip(*rows, strict=True) if rows else ((), (), (), ())
    number = np.zeros(count, np.int64)
    hi, lo, word = np.zeros(count, np.uint64), np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    for i, text in enumerate(ids):
        if len(text) == 36:
            value = uuid.UUID(text).int
            hi[i], lo[i], word[i] = value >> 64, value & (2**64 - 1), 2 * time[i] + 1
        else:
            word[i] = 2 * time[i] + 2
    return Events(
        row=np.arange(count),
        timestamp_ms=number,
        event_time=np.array(time, dtype=np.int64),
        sequence=np.array(sequence, dtype=np.int64),
        event_id=objects([text.encode() for text in ids]),
        id_hi=hi,
        id_lo=lo,
        id_word=word,
        key=objects([b""] * count),
        value=objects([b""] * count),
        headers=None,
        payload=np.empty((4, count)),
        texts=object_rows([], count),
        slot=np.array(slot, dtype=np.int64),
    )


def nothing_due(slots: int) -> LastDue:
    return LastDue(np.full(slots, TIME_MIN), np.full(slots, TIME_MIN), objects([b""] * slots))


def array(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def test_the_watermark_is_the_running_maximum_less_the_lateness() -> None:
    found = watermarks(array(100, 90, 120, 110), array(200, 200, 200, 200), start=TIME_MIN, lateness_ms=10)
    assert found.tolist() == [90, 90, 110, 110]


def test_a_clock_that_runs_ahead_cannot_drag_the_watermark() -> None:
    found = watermarks(array(100, 10**9), array(100, 105), start=TIME_MIN, lateness_ms=0)
    assert found.tolist() == [100, 105]


def test_the_watermark_never_goes_back_behind_its_start() -> None:
    assert watermarks(array(5, 50), array(99, 99), start=30, lateness_ms=0).tolist() == [30, 50]


def test_cutting_the_log_does_not_change_the_watermark() -> None:
    rng = np.random.default_rng(1)
    time, timestamp = rng.integers(0, 1000, (2, 50))
    whole = watermarks(time, timestamp, start=TIME_MIN, lateness_ms=7)
    for cut in range(1, 50):
        first = watermarks(time[:cut], timestamp[:cut], start=TIME_MIN, lateness_ms=7)
        second = watermarks(time[cut:], timestamp[cut:], start=int(first[-1]), lateness_ms=7)
        assert np.array_equal(np.concatenate([first, second]), whole)


def judge(
    rows: list[tuple[int, int, int, str]],
    watermark: list[int],
    *,
    last_due: LastDue | None = None,
    held: list[list[tuple[int, int, int, str]]] | tuple[()] = (),
) -> tuple[list[bool], list[int]]:
    subject, marks = events(rows), array(*watermark)
    slots = max([row[0] for part in (rows, *held) for row in part], default=0) + 1
    behind = subject.event_time <= marks
    late, by_ms = judge_behind(
        subject, marks, behind, last_due or nothing_due(slots), [events(chunk) for chunk in held]
    )
    return late.tolist(), by_ms.tolist()


def test_an_event_behind_the_watermark_whose_device_is_new_is_not_late() -> None:
    assert judge([(0, 5, 0, "a")], [100]) == ([False], [0])


def test_history_sent_in_order_is_not_late() -> None:
    rows = [(0, 5, 0, "a"), (0, 6, 0, "b"), (0, 6, 1, "c"), (0, 50, 0, "d")]
    assert judge(rows, [100] * 4) == ([False] * 4, [0] * 4)


def test_history_sent_backwards_is_late_by_the_distance_to_what_has_been_released() -> None:
    assert judge([(0, 50, 0, "a"), (0, 5, 0, "b")], [100, 100]) == ([False, True], [0, 45])


def test_another_device_does_not_make_an_event_late() -> None:
    assert judge([(0, 50, 0, "a"), (1, 5, 0, "b")], [100, 100]) == ([False, False], [0, 0])


def test_ties_in_time_are_judged_by_sequence_then_id() -> None:
    due = LastDue(array(50), array(3), objects([b"m"]))
    rows = [(0, 50, 2, "z"), (0, 50, 3, "a"), (0, 50, 3, "m"), (0, 50, 3, "n"), (0, 50, 4, "a")]
    assert judge(rows, [60] * 5, last_due=due) == ([True, True, False, False, False], [0] * 5)


def test_held_events_count_once_the_watermark_has_passed_them() -> None:
    held = [[(0, 30, 0, "h")], [(1, 10, 0, "other")]]
    rows = [(0, 20, 0, "before"), (0, 21, 0, "after")]
    assert judge(rows, [29, 30], held=held) == ([False, True], [0, 9])


def test_events_ahead_of_the_watermark_count_once_it_has_passed_them() -> None:
    rows = [(0, 30, 0, "ahead"), (0, 20, 0, "fine"), (0, 20, 1, "late")]
    assert judge(rows, [10, 29, 30]) == ([False, False, True], [0, 0, 10])


def test_a_late_event_does_not_become_the_last_due_one() -> None:
    rows = [(0, 50, 0, "a"), (0, 10, 0, "late"), (0, 50, 1, "b"), (0, 49, 0, "late, too")]
    assert judge(rows, [100] * 4) == ([False, True, False, True], [0, 40, 0, 1])


ORDERS = ["distinct", "times tie", "sequences tie", "uuids", "mixed"]


def rows_of(kind: str, rng: Random) -> list[tuple[int, int, int, str]]:
    rows = []
    for i in range(60):
        time = i if kind == "distinct" else rng.randrange(8)
        sequence = i if kind == "times tie" else rng.randrange(3)
        is_uuid = kind == "uuids" or (kind == "mixed" and rng.random() < 0.5)
        rows.append((0, time, sequence, str(uuid.UUID(int=rng.getrandbits(128))) if is_uuid else f"{rng.random()}é"))
    rng.shuffle(rows)
    return rows


@pytest.mark.parametrize("kind", ORDERS)
@pytest.mark.parametrize("seed", range(4))
def test_release_order_is_time_then_sequence_then_id_as_text(kind: str, seed: int) -> None:
    rows = rows_of(kind, random.Random(seed))
    expected = sorted(range(len(rows)), key=lambda i: (rows[i][1], rows[i][2], rows[i][3].encode()))
    assert release_order(events(rows)).tolist() == expected


@pytest.mark.parametrize("count", [0, 1])
def test_release_order_of_none_and_of_one(count: int) -> None:
    assert release_order(events([(0, 5, 0, "a")] * count)).tolist() == list(range(count))
