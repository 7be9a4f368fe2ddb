"""Orders sent to their vehicles, and promises that pass: by the broker-less driver."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from logistics.flows.dispatch import flow
from streams.testing import Crash, FlowDriver

T0 = datetime(2024, 3, 1, 12, tzinfo=UTC)
PLACE: dict[str, Any] = {"destination_latitude": 48.1, "destination_longitude": 11.5}


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def step(number: int, kind: str, *, order: str = "o-1", minute: float | None = None, **more: Any) -> dict[str, Any]:
    event = {"event_id": f"{order}-{number}", "order_id": order, "sequence": number, "kind": kind, "vehicle_id": None}
    event |= {"event_time": at(number if minute is None else minute), "depot_id": None, "promised_time": None}
    return event | {"destination_latitude": None, "destination_longitude": None} | more


def bound(driver: FlowDriver) -> list[tuple[str, str]]:
    """(key, kind) of each row, in the order of steps."""
    rows = [record.fields for record in driver.read("orders.bound.v1")]
    found = sorted(rows, key=lambda row: (row["order_id"], row["sequence"], row["kind"] != "RELEASED"))
    return [(row["bound_to"], row["kind"]) for row in found]


def overdue(driver: FlowDriver) -> list[tuple[str, str, Any]]:
    rows = [record.fields for record in driver.read("orders.overdue.v1")]
    return [(row["order_id"], row["reason"], row["late_by_ms"]) for row in rows]


def test_each_step_goes_to_the_vehicle_with_what_was_said_before() -> None:
    driver = FlowDriver(flow, partitions=3)
    driver.feed(
        step(1, "CREATED", promised_time=at(60), **PLACE),
        step(2, "ASSIGNED", vehicle_id="truck-1"),
        step(3, "PICKED_UP"),
        step(4, "DELIVERED"),
    )
    driver.advance("1m")
    assert bound(driver) == [
        ("order:o-1", "CREATED"), ("truck-1", "ASSIGNED"), ("truck-1", "PICKED_UP"), ("truck-1", "DELIVERED"),
    ]  # fmt: skip
    (delivered,) = (r for r in driver.read("orders.bound.v1") if r.fields["kind"] == "DELIVERED")
    assert (delivered.key, delivered.fields["vehicle_id"]) == (b"truck-1", "truck-1")
    assert delivered.fields["promised_time"] == at(60)
    assert (delivered.fields["destination_latitude"], delivered.fields["destination_longitude"]) == (48.1, 11.5)
    assert delivered.fields["event_id"] == "o-1-4"


def test_an_order_that_gets_another_vehicle_is_released_by_the_one_before() -> None:
    driver = FlowDriver(flow, partitions=2)
    driver.feed(step(1, "ASSIGNED", vehicle_id="truck-1"), step(2, "ASSIGNED", vehicle_id="truck-2"))
    driver.advance("1m")
    assert bound(driver) == [("truck-1", "ASSIGNED"), ("truck-1", "RELEASED"), ("truck-2", "ASSIGNED")]
    ids = [record.fields["event_id"] for record in driver.read("orders.bound.v1")]
    assert len(set(ids)) == 3


def test_an_order_that_never_gets_a_vehicle_is_told_of_under_its_own_id() -> None:
    long_id = "o" * 128
    driver = FlowDriver(flow)
    driver.feed(
        step(1, "CREATED", order=long_id, event_id="e" * 128),
        step(2, "DELIVERED", order=long_id, event_id="f" * 128, vehicle_id=""),
    )
    driver.advance("1m")
    assert bound(driver) == [(f"order:{long_id}", "CREATED"), (f"order:{long_id}", "DELIVERED")]
    assert driver.dead_letters() == []


def test_a_promise_that_passes_is_said_once_without_an_event() -> None:
    driver = FlowDriver(flow, partitions=2)
    driver.feed(step(1, "CREATED", promised_time=at(10)), step(1, "CREATED", order="o-2", promised_time=at(10)))
    driver.feed(step(2, "CANCELLED", order="o-2"))
    assert overdue(driver) == []
    driver.advance("15m")
    assert overdue(driver) == [("o-1", "PROMISE_PASSED", None)]
    driver.advance("1h")
    assert len(overdue(driver)) == 1
    table = driver.table("orders.dispatch.v1")
    assert (table["o-1"]["is_overdue"], table["o-2"]["is_overdue"]) == (True, False)


def test_a_delivery_after_the_promise_says_by_how_much_and_one_in_time_says_nothing() -> None:
    driver = FlowDriver(flow)
    driver.feed(
        step(1, "CREATED", promised_time=at(10)),
        step(2, "DELIVERED", minute=10),
        step(1, "CREATED", order="o-2", promised_time=at(3)),
        step(2, "DELIVERED", order="o-2", minute=12.5),
    )
    driver.advance("1h")
    found = overdue(driver)
    assert ("o-2", "DELIVERED_LATE", 570_000) in found
    assert not [one for one in found if one[0] == "o-1"]


def test_a_new_promise_is_watched_in_place_of_the_old_one() -> None:
    driver = FlowDriver(flow)
    driver.feed(step(1, "CREATED", promised_time=at(10)), step(2, "ASSIGNED", promised_time=at(40), vehicle_id="v"))
    driver.advance("30m")
    assert overdue(driver) == []
    driver.advance("30m")
    (row,) = driver.read("orders.overdue.v1")
    assert (row.fields["promised_time"], row.fields["vehicle_id"], row.fields["status"]) == (at(40), "v", "ASSIGNED")


def history() -> list[dict[str, Any]]:
    """Forty orders, a promise every three minutes, half of them delivered before it."""
    found = []
    for number in range(40):
        order, promise = f"o-{number:02}", 5 + 3 * number
        found.append(step(1, "CREATED", order=order, minute=number / 10, promised_time=at(promise)))
        found.append(step(2, "ASSIGNED", order=order, minute=1 + number / 10, vehicle_id=f"truck-{number % 3}"))
        if number % 2:
            found.append(step(3, "DELIVERED", order=order, minute=promise - 0.5))
    return sorted(found, key=lambda event: event["event_time"])


def told(driver: FlowDriver) -> tuple[Any, ...]:
    return (
        sorted(bound(driver)),
        sorted((one[0], one[1], one[2] or 0) for one in overdue(driver)),
        {key: dict(row) for key, row in driver.table("orders.dispatch.v1").items()},
    )


def run(events: Sequence[dict[str, Any]], pieces: int, **faults: Any) -> tuple[Any, ...]:
    driver = FlowDriver(flow, partitions=2)
    size = -(-len(events) // pieces)
    for start in range(0, len(events), size):
        driver.feed(*events[start : start + size])
        if at_step := faults.get("crash"):
            driver.crash(at_step)
        if faults.get("lose_disk"):
            driver.lose_disk()
    driver.advance("3h")
    return told(driver)


@pytest.mark.parametrize("faults", [{}, {"crash": Crash.COMMITTED}, {"crash": Crash.JOURNALLED}, {"lose_disk": True}])
def test_neither_cuts_nor_crashes_change_what_comes_out(faults: dict[str, Any]) -> None:
    events = history()
    plain = run(events, 1)
    assert len(plain[1]) == 20
    assert run(events, 13, **faults) == plain


def test_promises_of_orders_that_are_not_in_memory_pass_as_well() -> None:
    events = history()
    driver = FlowDriver(flow, partitions=2)
    for start in range(0, len(events), 10):
        driver.feed(*events[start : start + 10])
        for task in driver._engine.tasks.values():
            task.maintenance.spill(below=task.watermark, rows_keep=0, keep_keys=False)
    driver.advance("3h")
    assert told(driver) == run(events, 1)
