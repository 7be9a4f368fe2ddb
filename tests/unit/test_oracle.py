import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest

from loadtest.oracle.compare import DeadLetter, LateRow, Output, compare
from loadtest.oracle.model import Event, PartitionModel, Reject
from loadtest.oracle.windows import WindowKey

EVENTS_PER_DEVICE = 20


def event(device: str, number: int, *, offset: int = 0) -> Event:
    raw = f"{device} {number}".encode()
    return Event(offset, number * 10, device.encode(), raw.decode(), device, number, number * 10, 1.0, 2.0, 5.0, raw)


def identify(raw: bytes) -> tuple[int, int, str]:
    device, number = raw.decode().split()
    return int(number) * 10, int(number), f"{device} {number}"


def expected() -> Output:
    model = PartitionModel(lateness_ms=30, horizon_ms=3_600_000, skew_ms_max=0, record_bytes_max=1000)
    for number in range(EVENTS_PER_DEVICE):
        for device in ("a", "b"):
            if (device, number) != ("a", 5):
                model.feed(event(device, number))
    model.feed(event("a", 5))  # behind "a 15", which has left
    model.feed(event("b", 7))  # a second copy
    model.feed(Reject(77, b"a", b"junk", "not_framed"))
    model.idle(math.inf)
    output = Output()
    output.add_model(3, model)
    return output


@pytest.fixture
def observed() -> Output:
    return copy.deepcopy(expected())


def faults(observed: Output) -> dict[str, int]:
    report = compare(expected(), observed, identify)
    found = {name: getattr(report, name) for name in report.FAULTS if getattr(report, name)}
    assert report.ok == (not found)
    assert bool(report.details) == bool(found)
    return found


def test_what_the_model_foretells_is_as_made_up() -> None:
    output = expected()
    assert len(output.clean[b"a"]) == 19
    assert output.late == {b"a": [LateRow(b"a 5", "late", 110)]}
    assert output.dead == {(3, 77): [DeadLetter(b"a", b"junk", "not_framed")]}
    assert output.table["b"]["events"] == 20


def test_equal_output_has_no_faults(observed: Output) -> None:
    report = compare(expected(), observed, identify)
    assert faults(observed) == {}
    assert (report.clean, report.late, report.rejected, report.rejected_expected) == (39, 1, 1, 1)


def test_a_lost_event_is_seen(observed: Output) -> None:
    del observed.clean[b"a"][3]
    assert faults(observed) == {"lost": 1}


def test_a_lost_device_is_seen(observed: Output) -> None:
    del observed.clean[b"b"]
    del observed.table["b"]
    assert faults(observed) == {"lost": 20, "table_mismatches": 1}


def test_an_event_twice_in_clean_is_seen(observed: Output) -> None:
    observed.clean[b"a"].insert(3, observed.clean[b"a"][3])
    assert faults(observed) == {"duplicated": 1}


def test_a_replayed_stretch_is_seen_as_duplicates_out_of_order(observed: Output) -> None:
    observed.clean[b"b"].extend(observed.clean[b"b"][-4:])
    assert faults(observed) == {"duplicated": 4, "out_of_order": 3}


def test_an_event_in_clean_and_in_late_is_seen(observed: Output) -> None:
    observed.late[b"b"].append(LateRow(b"b 7", "late", 3))
    assert faults(observed) == {"duplicated": 1}


def test_swapped_neighbours_are_seen(observed: Output) -> None:
    rows = observed.clean[b"a"]
    rows[8], rows[9] = rows[9], rows[8]
    assert faults(observed) == {"out_of_order": 1}


def test_an_event_that_left_as_late_instead_of_clean_is_misplaced_not_lost(observed: Output) -> None:
    observed.clean[b"b"].remove(b"b 9")
    observed.late[b"b"].append(LateRow(b"b 9", "late", 1))
    assert faults(observed) == {"misplaced": 1}


def test_a_late_event_that_slipped_into_clean_is_seen(observed: Output) -> None:
    observed.late[b"a"].clear()
    observed.clean[b"a"].insert(5, b"a 5")
    assert faults(observed) == {"misplaced": 1, "missing_late": 1}


def test_a_missing_late_event_is_lost(observed: Output) -> None:
    observed.late.clear()
    assert faults(observed) == {"lost": 1, "missing_late": 1}


@pytest.mark.parametrize("row", [LateRow(b"a 5", "late", 109), LateRow(b"a 5", "beyond_horizon", 110)])
def test_wrong_headers_of_a_late_event_are_seen(observed: Output, row: LateRow) -> None:
    observed.late[b"a"] = [row]
    assert faults(observed) == {"late_headers_wrong": 1}


def test_an_event_from_nowhere_is_seen(observed: Output) -> None:
    observed.clean[b"c"].append(b"c 1")
    assert faults(observed) == {"unexpected": 1}


def test_changed_bytes_are_seen(observed: Output) -> None:
    observed.clean[b"a"][4] = b"a  4"
    assert faults(observed) == {"altered": 1}


@pytest.mark.parametrize("change", [{"events": 19}, {"last_sequence": 0}, {"odometer_km": 0.1}, {"stopped_since": 1}])
def test_a_wrong_row_is_seen(observed: Output, change: dict[str, Any]) -> None:
    observed.table["b"].update(change)
    assert faults(observed) == {"table_mismatches": 1}


def test_a_missing_and_a_surplus_row_are_seen(observed: Output) -> None:
    observed.table["c"] = observed.table.pop("b")
    assert faults(observed) == {"table_mismatches": 2}


def test_a_missing_dead_letter_is_seen(observed: Output) -> None:
    observed.dead.clear()
    assert faults(observed) == {"rejects_missing": 1}


def test_a_dead_letter_twice_or_without_a_reject_is_seen(observed: Output) -> None:
    observed.dead[3, 77] *= 2
    observed.dead[3, 78] = [DeadLetter(b"a", b"x", "invalid")]
    assert faults(observed) == {"rejects_surplus": 2}


@pytest.mark.parametrize(
    "letter",
    [
        DeadLetter(b"a", b"junk", "malformed"),
        DeadLetter(b"a", b"", "not_framed"),
        DeadLetter(None, b"junk", "not_framed"),
    ],
)
def test_a_dead_letter_with_other_reason_bytes_or_key_is_seen(observed: Output, letter: DeadLetter) -> None:
    observed.dead[3, 77] = [letter]
    assert faults(observed) == {"rejects_wrong": 1}


WINDOW = SimpleNamespace(topic="minutes", size_ms=60, grace_ms=0)


def driven() -> Output:
    """Three minutes of 60 ms of two devices on the move, and what the model says of them."""
    model = PartitionModel(30, 3_600_000, 0, 1000, windows_ms={WINDOW.topic: WINDOW.size_ms})
    for number in range(18):
        for device in ("a", "b"):
            model.feed(event(device, number)._replace(longitude=number / 1000, speed_kmh=float(number % 7)))
    model.idle(math.inf)
    output = Output()
    output.add_model(0, model)
    return output


def rows_of(output: Output) -> list[dict[str, Any]]:
    """Each window in two rows, as if its first event had come alone."""
    rows = []
    for key, total in output.windows.sums.items():
        row = {"device_id": key.entity, "window_start": key.start_ms, "window_end": key.start_ms + WINDOW.size_ms}
        first_mm = total.distance_mm // 3
        rows.append({**row, "revision": 0, "events": 1, "distance_km": first_mm / 1e6, "speed_max_kmh": None})
        rest = {"events": total.events - 1, "distance_km": (total.distance_mm - first_mm) / 1e6}
        rows.append({**row, "revision": 1, **rest, "speed_max_kmh": total.speed_max_kmh})
    return rows


def window_faults(rows: list[dict[str, Any]], **changed_row: float) -> dict[str, int]:
    observed = driven()
    observed.windows = Output().windows
    for row in rows:
        key = row.get("key", row["device_id"].encode())
        observed.windows.add(WINDOW, key, row, partition=row.get("partition", 2), partition_due=2)
    observed.table["a"].update(changed_row)
    report = compare(driven(), observed, identify)
    found = {name: getattr(report, name) for name in report.FAULTS if getattr(report, name)}
    assert report.table_mismatches >= report.window_mismatches + report.window_duplicates
    assert bool(report.details) == bool(found) == (not report.ok)
    assert (report.windows, report.window_rows) == (6, len(rows))
    return found


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return rows_of(driven())


def test_windows_whose_rows_add_up_have_no_faults(rows: list[dict[str, Any]]) -> None:
    assert window_faults(rows) == {}


def test_windows_may_have_one_row_each() -> None:
    rows = [
        {
            "device_id": key.entity,
            "window_start": key.start_ms,
            "window_end": key.start_ms + WINDOW.size_ms,
            "revision": 0,
            "events": total.events,
            "distance_km": total.distance_mm / 1e6,
            "speed_max_kmh": total.speed_max_kmh,
        }
        for key, total in driven().windows.sums.items()
    ]
    assert window_faults(rows) == {}


def test_a_lost_row_is_seen_whichever_it_is(rows: list[dict[str, Any]]) -> None:
    for lost in range(len(rows)):
        assert window_faults(rows[:lost] + rows[lost + 1 :]) == {"table_mismatches": 1, "window_mismatches": 1}


def test_a_row_twice_is_seen_and_not_added_twice(rows: list[dict[str, Any]]) -> None:
    assert window_faults([*rows, rows[0], rows[5]]) == {"table_mismatches": 2, "window_duplicates": 2}


@pytest.mark.parametrize(
    "change",
    [
        {"events": 2},
        {"distance_km": 1.0},
        {"speed_max_kmh": 6.5},
        {"revision": 1},
        {"window_end": 61},
        {"key": b"b"},
        {"partition": 1},
    ],
)
def test_a_wrong_row_of_a_window_is_seen(rows: list[dict[str, Any]], change: dict[str, Any]) -> None:
    rows[0].update(change)
    assert window_faults(rows)["window_mismatches"] == 1


def test_a_millimetre_is_seen(rows: list[dict[str, Any]]) -> None:
    rows[3]["distance_km"] += 1e-6
    assert window_faults(rows) == {"table_mismatches": 1, "window_mismatches": 1}


def test_a_window_that_should_not_be_is_seen(rows: list[dict[str, Any]]) -> None:
    surplus = {**rows[0], "window_start": 6_000, "window_end": 6_060, "distance_km": 0.0}
    assert window_faults([*rows, surplus]) == {"table_mismatches": 1, "window_mismatches": 1}


def test_a_window_that_does_not_begin_on_the_minute_is_seen(rows: list[dict[str, Any]]) -> None:
    rows[0].update(window_start=1, window_end=61)
    assert window_faults(rows)["window_mismatches"] == 2


def test_without_any_row_every_window_is_missing_and_the_topic_is_named() -> None:
    assert window_faults([]) == {"table_mismatches": 6, "window_mismatches": 6}
    observed = driven()
    observed.windows = Output().windows
    assert compare(driven(), observed, identify).details == [
        "minutes is empty: the worker emits no windows, or has not been idle for as long as one lasts"
    ]


def test_rows_that_do_not_add_up_to_the_odometer_are_seen(rows: list[dict[str, Any]]) -> None:
    # Within what the row itself may be off because of another maths library, but not against the engine's own windows.
    off = driven().table["a"]["odometer_km"] + 1e-6
    assert window_faults(rows, odometer_km=off) == {"table_mismatches": 1, "window_mismatches": 1}


def test_slack_is_for_distances_alone(rows: list[dict[str, Any]]) -> None:
    expected, observed = driven(), driven()
    observed.windows = Output().windows
    rows[3]["distance_km"] += 1e-6
    observed.table[rows[3]["device_id"]]["odometer_km"] += 1e-6
    for row in rows:
        observed.windows.add(WINDOW, row["device_id"].encode(), row, partition=0, partition_due=0)
    key = WindowKey(WINDOW.topic, rows[3]["device_id"], rows[3]["window_start"])
    assert compare(expected, observed, identify).window_mismatches == 1
    expected.windows.sums[key].slack_mm = 1
    assert compare(expected, observed, identify).ok
