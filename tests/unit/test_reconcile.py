"""What reconcile finds: nothing in what the engine writes, and each damage with its key and its first event."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from logistics.flows.gps import flow as gps
from logistics.flows.orders import flow as orders
from logistics.flows.tracking import flow as tracking
from streams.errors import UsageError
from streams.reconcile.differences import Kind, Unchecked
from streams.reconcile.plan import plan_of
from streams.testing import FlowDriver
from tests.reconciled import T0, Topics, position, run, the_only

CLEAN: Final = "gps.positions.v1.clean"
LATE: Final = "gps.positions.v1.late"
DLQ: Final = "gps.positions.v1.dlq"
TABLE: Final = "vehicles.state.v1"
MINUTES: Final = "vehicles.minutes.v1"
TRIPS: Final = "vehicles.trips.v1"


def rough(driver: FlowDriver) -> None:
    """Copies, disorder, late events, rejects, idle time, windows that are opened again."""
    driver.feed(*[position(n, at_s=n) for n in range(1, 130)], position(5, at_s=5), position(130, at_s=20.5))
    driver.feed(position(1, device="b", at_s=150), position(2, device="b", at_s=149))
    driver.feed(position(3, device="b", at_s=148.5))
    driver.feed(position(900, latitude=91.0))
    driver.feed_raw(b"x", key=b"truck-1")
    driver.feed_raw(None, key=b"truck-1")
    driver.advance("1m")
    driver.feed(position(4, device="b", at_s=148))
    driver.feed(*[position(n, at_s=n) for n in range(500, 520)])
    driver.advance("10m")
    driver.feed(position(600, at_s=2000), position(601, at_s=2001))
    driver.advance("20m")


@pytest.fixture(scope="module")
def ran() -> Topics:
    return run(gps, rough)


@pytest.fixture
def topics(ran: Topics) -> Topics:
    return replace(ran, source=list(ran.source), outputs={name: list(log) for name, log in ran.outputs.items()})


def test_nothing_is_wrong_in_what_the_engine_writes(topics: Topics) -> None:
    found = topics.judge()
    assert not found.differences
    assert found.checked["events in the clean topic"] == len(topics.outputs[CLEAN]) > 100
    assert found.checked["events in the late topic"] == len(topics.outputs[LATE]) > 1
    assert found.checked["dead letters"] == 3
    assert found.checked["table rows"] == 2
    assert found.checked["window rows"] > 8
    assert not found.unchecked


def test_without_the_journal_late_events_show_where_the_clock_has_moved_a_partition(topics: Topics) -> None:
    """Truncated, as the journal of a flow that runs for long is."""
    topics.cycles = []
    assert not topics.judge().differences


# --- damages ----------------------------------------------------------------------------------------------------------

Damage = Callable[[Topics], None]


def lose(topics: Topics) -> None:
    topics.remove(topics.of(CLEAN, "truck-1")[20])


def double(topics: Topics) -> None:
    topics.put(topics.of(CLEAN, "truck-1")[20])


def swap(topics: Topics) -> None:
    log = topics.outputs[CLEAN]
    at = log.index(topics.of(CLEAN, "truck-1")[20])
    log[at], log[at + 1] = log[at + 1], log[at]


def change_bytes(topics: Topics) -> None:
    record = topics.of(CLEAN, "truck-1")[20]
    assert record.value is not None
    changed = record.value[:-9] + bytes([record.value[-9] ^ 1]) + record.value[-8:]
    topics.outputs[CLEAN][topics.outputs[CLEAN].index(record)] = replace(record, value=changed)


def move_to_late(topics: Topics) -> None:
    record = topics.of(CLEAN, "truck-1")[20]
    topics.remove(record)
    headers = {"late.reason": b"late", "late.by_ms": b"77"}
    topics.outputs[LATE].append(replace(record, topic=LATE, headers=headers, offset=99))


def move_to_clean(topics: Topics) -> None:
    record = topics.of(LATE, "truck-1")[0]
    topics.remove(record)
    topics.put(replace(record, topic=CLEAN))


def invent(topics: Topics) -> None:
    record = topics.of(CLEAN, "truck-1")[20]
    topics.put(record, value=topics.row_with(record, event_id="nobody"), after=record)


def lose_late(topics: Topics) -> None:
    topics.remove(topics.of(LATE, "truck-1")[0])


def double_late(topics: Topics) -> None:
    topics.put(topics.of(LATE, "truck-1")[0])


def change_late_header(topics: Topics) -> None:
    record = topics.of(LATE, "truck-1")[0]
    at = topics.outputs[LATE].index(record)
    topics.outputs[LATE][at] = replace(record, headers={**record.headers, "late.by_ms": b"1"})


def lose_letter(topics: Topics) -> None:
    topics.remove(topics.outputs[DLQ][0])


def double_letter(topics: Topics) -> None:
    topics.put(topics.outputs[DLQ][0])


def letter_of_an_event(topics: Topics) -> None:
    letter = topics.outputs[DLQ][0]
    headers = {**letter.headers, "__streams.errors.offset": b"3"}
    topics.outputs[DLQ].append(replace(letter, headers=headers, offset=50))


def change_letter(topics: Topics) -> None:
    letter = topics.outputs[DLQ][0]
    topics.outputs[DLQ][0] = replace(letter, headers={**letter.headers, "dlq.reason": b"malformed"})


def wrong_row(topics: Topics) -> None:
    row = topics.of(TABLE, "truck-1")[-1]
    topics.put(row, value=topics.row_with(row, odometer_km=1.0))


def stale_row(topics: Topics) -> None:
    topics.remove(topics.of(TABLE, "truck-1")[-1])


def lose_row(topics: Topics) -> None:
    for row in topics.of(TABLE, "b"):
        topics.remove(row)


def invent_row(topics: Topics) -> None:
    row = topics.of(TABLE, "b")[-1]
    topics.put(replace(row, key=b"c"), value=topics.row_with(row, device_id="c"))


def wrong_minute(topics: Topics) -> None:
    row = topics.of(MINUTES, "truck-1")[1]
    topics.outputs[MINUTES][topics.outputs[MINUTES].index(row)] = replace(
        row, value=topics.row_with(row, distance_km=9.0)
    )


def lose_minute(topics: Topics) -> None:
    topics.remove(topics.of(MINUTES, "truck-1")[1])


def double_minute(topics: Topics) -> None:
    topics.put(topics.of(MINUTES, "truck-1")[1])


def invent_minute(topics: Topics) -> None:
    row = topics.of(MINUTES, "truck-1")[1]
    start = int((T0.timestamp() + 900) * 1_000)
    topics.put(row, value=topics.row_with(row, window_start=start, window_end=start + 60_000))


def wrong_trip(topics: Topics) -> None:
    row = topics.of(TRIPS, "truck-1")[0]
    topics.outputs[TRIPS][topics.outputs[TRIPS].index(row)] = replace(row, value=topics.row_with(row, events=7))


FIRST_EVENT = "truck-1-21"
"""What lies at place 20 of the clean events of the truck."""


@pytest.mark.parametrize(
    ("damage", "kind", "key", "event"),
    [
        (lose, Kind.LOST, "truck-1", FIRST_EVENT),
        (double, Kind.DOUBLED, "truck-1", FIRST_EVENT),
        (swap, Kind.OUT_OF_ORDER, "truck-1", FIRST_EVENT),
        (change_bytes, Kind.CHANGED, "truck-1", FIRST_EVENT),
        (move_to_late, Kind.LATE_WITHOUT_REASON, "truck-1", FIRST_EVENT),
        (move_to_clean, Kind.NOT_LATE, "truck-1", "truck-1-130"),
        (invent, Kind.UNEXPECTED, "truck-1", "nobody"),
        (lose_late, Kind.LOST, "truck-1", "truck-1-130"),
        (double_late, Kind.DOUBLED, "truck-1", "truck-1-130"),
        (change_late_header, Kind.LATE_HEADERS, "truck-1", "truck-1-130"),
        (lose_letter, Kind.MISSING_LETTER, "truck-1", ""),
        (double_letter, Kind.SURPLUS_LETTER, "truck-1", ""),
        (letter_of_an_event, Kind.SURPLUS_LETTER, "truck-1", ""),
        (change_letter, Kind.WRONG_LETTER, "truck-1", ""),
        (wrong_row, Kind.WRONG_ROW, "truck-1", "truck-1-601"),
        (stale_row, Kind.WRONG_ROW, "truck-1", "truck-1-600"),
        (lose_row, Kind.MISSING_ROW, "b", "b-3"),
        (invent_row, Kind.SURPLUS_ROW, "c", None),
        (wrong_minute, Kind.WRONG_WINDOW, "truck-1", "truck-1-60"),
        (lose_minute, Kind.MISSING_WINDOW, "truck-1", "truck-1-60"),
        (double_minute, Kind.SURPLUS_WINDOW, "truck-1", None),
        (invent_minute, Kind.SURPLUS_WINDOW, "truck-1", None),
        (wrong_trip, Kind.WRONG_WINDOW, "truck-1", "truck-1-8"),
    ],
)
def test_a_damage_is_found_with_its_key_and_its_first_event(
    topics: Topics, damage: Damage, kind: Kind, key: str, event: str | None
) -> None:
    damage(topics)
    found = topics.judge()
    assert found.counts[kind], found.differences
    first = next(each for each in found.differences if each.kind is kind)
    assert first.key == key.encode()
    assert (None if first.event is None else first.event.event_id) == event
    the_only(found)


def test_a_wrong_row_says_which_columns_and_what_was_right_before(topics: Topics) -> None:
    wrong_row(topics)
    found = the_only(topics.judge())
    (column,) = found.columns
    assert (column.name, column.actual) == ("odometer_km", 1.0)
    assert column.expected > 50
    assert "is right after truck-1-" in found.text


def test_a_row_of_what_the_clean_topic_lacks_is_explained_by_the_lost_event(topics: Topics) -> None:
    """As when an event was lost before it was folded."""
    lose(topics)
    less = run(gps, lambda driver: driver.feed(*[position(n, at_s=n) for n in range(1, 22) if n != 21]))
    assert not less.judge().differences
    rows = topics.of(TABLE, "truck-1")
    clean = topics.of(CLEAN, "truck-1")
    again = run(gps, lambda driver: _feed_raw(driver, [each.value or b"" for each in clean]))
    right = again.of(TABLE, "truck-1")[-1].value
    for row in rows[:-1]:
        topics.remove(row)
    topics.outputs[TABLE][topics.outputs[TABLE].index(rows[-1])] = replace(rows[-1], value=right)
    found = {each.kind: each for each in topics.judge().differences}
    explained = found[Kind.WRONG_ROW]
    assert explained.event is not None
    assert explained.event.event_id == FIRST_EVENT
    assert "what the clean topic holds" in explained.text


def _feed_raw(driver: FlowDriver, values: list[bytes]) -> None:
    for number, value in enumerate(values):
        driver.feed_raw(value, key=b"truck-1", timestamp_ms=int(T0.timestamp() * 1_000) + 10_000_000 + number)
    driver.advance("1h")


# --- what cannot be known ---------------------------------------------------------------------------------------------


def test_what_was_processed_while_it_was_read_may_be_there_or_not(topics: Topics) -> None:
    last = topics.of(CLEAN, "truck-1")[-1]
    topics.reached = topics.source[-2].offset  # the last two records came after the point
    topics.cycles = []
    topics.remove(last)
    found = topics.judge()
    assert not found.differences


def test_rows_whose_history_is_gone_are_not_judged_and_counted(topics: Topics) -> None:
    topics.since_ms = int(T0.timestamp() * 1_000) + 30_000
    found = topics.judge()
    assert not found.differences
    assert found.unchecked[Unchecked.ROWS_BEFORE] == 1
    assert found.unchecked[Unchecked.WINDOWS_BEFORE] > 0
    assert found.unchecked[Unchecked.EVENTS_BEFORE] > 0


def test_what_has_all_of_its_history_is_judged_when_older_records_are_gone(topics: Topics) -> None:
    topics.since_ms = int(T0.timestamp() * 1_000) + 30_000
    record = topics.of(CLEAN, "truck-1")[-3]
    topics.remove(record)
    found = the_only(topics.judge())
    assert (found.kind, found.key) == (Kind.LOST, b"truck-1")


def test_a_key_that_was_forgotten_has_no_row_that_could_be_wrong(topics: Topics) -> None:
    row = topics.of(TABLE, "truck-1")[-1]
    topics.outputs[TABLE].append(replace(row, value=None, offset=99))
    found = topics.judge()
    assert not found.differences
    assert found.unchecked[Unchecked.FORGOTTEN] == 1


def test_orders_are_compared_by_their_own_fold() -> None:
    def event(number: int, kind: str, **more: Any) -> dict[str, Any]:
        return {
            "event_id": f"e{number}",
            "order_id": "o-1",
            "sequence": number,
            "event_time": int(T0.timestamp() * 1_000) + number * 1_000,
            "kind": kind,
            "vehicle_id": None,
            "depot_id": None,
            "destination_latitude": 48.0,
            "destination_longitude": 11.0,
            "promised_time": None,
            **more,
        }

    def feed(driver: FlowDriver) -> None:
        driver.feed(event(1, "CREATED", depot_id="d"), event(3, "PICKED_UP"), event(2, "ASSIGNED", vehicle_id="v-1"))
        driver.advance("1m")

    topics = run(orders, feed)
    assert not topics.judge().differences
    row = topics.of("orders.state.v1", "o-1")[-1]
    topics.put(row, value=topics.row_with(row, vehicle_id="v-2"))
    found = the_only(topics.judge())
    assert (found.kind, found.key) == (Kind.WRONG_ROW, b"o-1")
    assert [each.name for each in found.columns] == ["vehicle_id"]


def test_a_flow_that_merges_inputs_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match=r"merges several inputs \(orders.bound.v1, gps.positions.v1.clean\)"):
        plan_of(tracking.pipeline, "{}", 1)
