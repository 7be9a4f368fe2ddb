"""Orders on their vehicles: where they are, when they arrive, whether they were delivered where they should be."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from loadtest.oracle.order_flows import AnyRecord, Position, Row, Step, TrackingModel, differing, merged
from logistics.flows.tracking import flow
from logistics.operators.tracking import OPEN_ORDERS_MAX
from streams.kafka.partitioner import partition_of
from streams.testing import Crash, FlowDriver

T0 = datetime(2024, 3, 1, 12, tzinfo=UTC)
T0_MS = round(T0.timestamp() * 1_000)
DESTINATION: dict[str, Any] = {"destination_latitude": 48.2, "destination_longitude": 11.5}
LATENESS_MS = (30_000, 5_000)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def bound(number: int, kind: str, *, minute: float, order: str = "o-1", truck: str | None = "v", **more: Any) -> Row:
    event: Row = {"event_id": f"{order}-{number}", "bound_to": truck or f"order:{order}", "sequence": number}
    event |= {"event_time": at(minute), "order_id": order, "kind": kind, "vehicle_id": truck}
    return event | {"destination_latitude": None, "destination_longitude": None, "promised_time": None} | more


def position(minute: float, latitude: float, *, truck: str = "v", longitude: float = 11.5) -> Row:
    number = round(minute * 60_000)
    event: Row = {"event_id": f"{truck}-{number}", "device_id": truck, "sequence": number, "event_time": at(minute)}
    return event | {"latitude": latitude, "longitude": longitude, "speed_kmh": None, "heading_deg": None}


def tracked(driver: FlowDriver) -> list[Row]:
    return [dict(record.fields) for record in driver.read("orders.tracking.v1")]


def verdicts(driver: FlowDriver) -> list[tuple[str, str]]:
    rows = [record.fields for record in driver.read("deliveries.verified.v1")]
    return [(row["is_verified"], row["because"]) for row in rows]


def driven(driver: FlowDriver, orders: Sequence[Row], positions: Sequence[Row]) -> FlowDriver:
    driver.feed(*orders, of="orders")
    driver.feed(*positions, of="positions")
    return idle(driver)


def idle(driver: FlowDriver) -> FlowDriver:
    """Both inputs are silent until everything has come out: each goes on with the other one."""
    for _ in range(3):
        driver.advance("1m")
    return driver


def test_an_order_is_followed_with_its_vehicle_once_a_minute() -> None:
    """A kilometre a minute northward: 60 km/h, towards a destination 12 minutes ahead."""
    positions = [position(minute / 2, 48.0 + 0.5 * minute / 111.195) for minute in range(21)]
    orders = [bound(1, "PICKED_UP", minute=0.25, promised_time=at(40), **DESTINATION)]
    rows = tracked(driven(FlowDriver(flow), orders, positions))
    assert [row["event_time"] for row in rows] == [at(0.25), *(at(minute) for minute in range(1, 11))]
    assert {row["status"] for row in rows} == {"PICKED_UP"}
    first, last = rows[0], rows[-1]
    assert (first["position_time"], first["speed_kmh"], first["risk"]) == (at(0), None, "UNKNOWN")
    assert last["speed_kmh"] == pytest.approx(60.0, abs=0.1)
    assert last["distance_km"] == pytest.approx(22.239 - 10.0, abs=0.01)
    minutes = (last["expected_arrival"] - at(10)) / timedelta(minutes=1)
    assert minutes == pytest.approx(12.239 * 1.3, abs=0.05)
    assert (last["to_promise_min"], last["risk"]) == (30.0, "ON_TIME")


@pytest.mark.parametrize(("promised", "risk"), [(None, "UNKNOWN"), (9.0, "LATE"), (25.0, "AT_RISK"), (27.0, "ON_TIME")])
def test_the_risk_is_by_promise_and_expected_arrival(promised: float | None, risk: str) -> None:
    positions = [position(minute / 2, 48.0 + 0.5 * minute / 111.195) for minute in range(21)]
    promise: dict[str, Any] = {} if promised is None else {"promised_time": at(promised)}
    rows = tracked(driven(FlowDriver(flow), [bound(1, "PICKED_UP", minute=0, **promise, **DESTINATION)], positions))
    assert (rows[-1]["event_time"], rows[-1]["risk"]) == (at(10), risk)


def test_what_is_not_known_is_null_and_hides_no_order() -> None:
    """No vehicle, an unknown one, no destination, a position that is too old: each step has a row all the same."""
    driver = FlowDriver(flow)
    orders = [
        bound(1, "CREATED", minute=1, order="o-1", truck=None, **DESTINATION),
        bound(1, "ASSIGNED", minute=1, order="o-2", truck="nobody", **DESTINATION),
        bound(1, "ASSIGNED", minute=1, order="o-3", truck="v"),
        bound(1, "ASSIGNED", minute=12, order="o-4", truck="v", **DESTINATION),
    ]
    rows = {row["order_id"]: row for row in tracked(driven(driver, orders, [position(0, 48.0)]))}
    assert [rows[order]["vehicle_id"] for order in ("o-1", "o-2", "o-3", "o-4")] == [None, "nobody", "v", "v"]
    assert [rows[order]["latitude"] for order in ("o-1", "o-2", "o-3", "o-4")] == [None, None, 48.0, None]
    assert all(row["distance_km"] is None and row["risk"] == "UNKNOWN" for row in rows.values())
    assert driver.dead_letters() == []


@pytest.mark.parametrize(
    ("latitude", "minute", "truck", "known", "verdict"),
    [
        (48.2, 5.0, "v", True, ("YES", "NEAR")),
        (48.2017, 5.0, "v", True, ("YES", "NEAR")),
        (48.2019, 5.0, "v", True, ("NO", "FAR")),
        (48.2, 10.0, "v", True, ("YES", "NEAR")),
        (48.2, 10.1, "v", True, ("UNKNOWN", "NO_POSITION")),
        (48.2, 5.0, "v", False, ("UNKNOWN", "NO_DESTINATION")),
        (48.2, 5.0, None, True, ("UNKNOWN", "NO_VEHICLE")),
        (48.2, 5.0, "nobody", True, ("UNKNOWN", "NO_POSITION")),
    ],
)
def test_a_delivery_is_verified_by_where_the_vehicle_was(
    latitude: float, minute: float, truck: str | None, known: bool, verdict: tuple[str, str]
) -> None:
    delivered = bound(4, "DELIVERED", minute=minute, truck=truck, **(DESTINATION if known else {}))
    driver = driven(FlowDriver(flow), [delivered], [position(0, latitude)])
    assert verdicts(driver) == [verdict]
    (row,) = (record.fields for record in driver.read("deliveries.verified.v1"))
    if verdict[1] in {"NEAR", "FAR"}:
        assert row["distance_m"] == pytest.approx((latitude - 48.2) * 111_195.08, abs=0.1)
        assert row["position_age_ms"] == minute * 60_000


def test_an_order_that_was_released_or_has_ended_is_followed_no_more() -> None:
    orders = [
        bound(1, "ASSIGNED", minute=0, order="o-1", **DESTINATION),
        bound(1, "ASSIGNED", minute=0, order="o-2", **DESTINATION),
        bound(2, "RELEASED", minute=1.5, order="o-1"),
        bound(2, "DELIVERED", minute=2.5, order="o-2", promised_time=at(2), **DESTINATION),
    ]
    positions = [position(minute, 48.0) for minute in range(6)]
    driver = driven(FlowDriver(flow), orders, positions)
    rows = [(row["order_id"], row["event_time"], row["status"]) for row in tracked(driver)]
    assert Counter(order for order, *_ in rows) == {"o-1": 2, "o-2": 4}
    (last,) = (row for row in tracked(driver) if row["status"] == "DELIVERED")
    assert (last["risk"], last["expected_arrival"]) == ("LATE", None)
    assert driver.table("vehicles.orders.v1")["v"]["open_orders"] == 0


def test_a_vehicle_carries_a_bounded_number_of_orders() -> None:
    more = OPEN_ORDERS_MAX + 5
    orders = [bound(1, "ASSIGNED", minute=number / 1_000, order=f"o-{number}") for number in range(more)]
    driver = driven(FlowDriver(flow), orders, [position(5, 48.0)])
    assert driver.table("vehicles.orders.v1")["v"]["open_orders"] == OPEN_ORDERS_MAX
    followed = {row["order_id"] for row in tracked(driver) if row["event_time"] == at(5)}
    assert followed == {f"o-{number}" for number in range(5, more)}


def test_an_input_that_is_silent_keeps_the_other_one_waiting_for_its_idle_time_only() -> None:
    driver = FlowDriver(flow)
    driver.feed(bound(1, "ASSIGNED", minute=0, **DESTINATION), of="orders")
    assert tracked(driver) == []
    idle(driver)
    assert [row["latitude"] for row in tracked(driver)] == [None]
    driver.feed(position(60, 48.0), of="positions")
    idle(driver)
    assert [row["event_time"] for row in tracked(driver)] == [at(0), at(60)]


def in_ms(row: Mapping[str, Any]) -> Row:
    return {
        name: round(value.timestamp() * 1_000) if isinstance(value, datetime) else value for name, value in row.items()
    }


def random_logs(rng: random.Random, count: int) -> tuple[list[Row], list[Row]]:
    """Bound steps and positions of five vehicles, out of order, with clocks that are minutes apart."""
    orders: list[Row] = []
    minute = rng.choice((0.0, 8.0))
    for number in range(count):
        minute += rng.choice((0.0, 0.1, 0.7, 2.0))
        back = rng.choice((0.0, 0.0, 0.3, 0.9))
        kind = rng.choice(("ASSIGNED", "PICKED_UP", "DELIVERED", "DELIVERED", "CANCELLED", "RELEASED"))
        truck = rng.choice(("a", "b", "c", "d", "nobody", None))
        event = bound(
            number, kind, minute=max(0.0, minute - back), order=f"o-{rng.randrange(9)}", truck=truck,
            **(DESTINATION if rng.random() < 0.8 else {}),
        )  # fmt: skip
        orders.append(event | ({"promised_time": at(minute + rng.choice((1, 20)))} if rng.random() < 0.7 else {}))
    positions: list[Row] = []
    places = dict.fromkeys("abcd", 48.195)
    minute = 0.0
    for _ in range(count * 3):
        minute += rng.choice((0.0, 0.05, 0.2, 0.6))
        truck = rng.choice("abcd")
        places[truck] += rng.choice((0.0, 0.001, -0.001, 0.003, -0.002))
        back = rng.choice((0.0, 0.0, 0.05))
        if rng.random() > 0.05 or minute < 1:
            positions.append(position(round(max(0.0, minute - back), 4), round(places[truck], 6), truck=truck))
    return orders, positions


def step_of(row: Row) -> Step:
    time, promised = in_ms(row)["event_time"], in_ms(row)["promised_time"]
    return Step(
        time, row["event_id"], row["bound_to"], row["sequence"], time, row["order_id"], row["kind"], row["vehicle_id"],
        row["destination_latitude"], row["destination_longitude"], promised,
    )  # fmt: skip


def position_of(row: Row) -> Position:
    time = in_ms(row)["event_time"]
    place = (row["latitude"], row["longitude"])
    return Position(time, row["event_id"], row["device_id"], row["sequence"], time, *place)


def expected(logs: tuple[list[Row], list[Row]], partitions: int) -> tuple[list[Row], list[Row]]:
    """Tracking rows and verdicts of all partitions, by the model of plain loops."""
    found: tuple[list[Row], list[Row]] = ([], [])
    each: tuple[list[AnyRecord], list[AnyRecord]] = (
        [step_of(row) for row in logs[0]],
        [position_of(row) for row in logs[1]],
    )
    for partition in range(partitions):
        model = TrackingModel()
        mine = [[one for one in log if partition_of(one.key.encode(), partitions) == partition] for log in each]
        for event in merged(mine, LATENESS_MS):
            model.add(event)
        found[0].extend(model.tracking)
        found[1].extend(model.verified)
    return found


def sorted_rows(rows: Sequence[Row]) -> list[Row]:
    names = ("order_id", "vehicle_id", "delivered_time", "event_time", "status", "position_time", "promised_time")
    return sorted(rows, key=lambda row: [str(row.get(name)) for name in names])


def assert_same(driver: FlowDriver, wanted: tuple[list[Row], list[Row]]) -> None:
    for topic, rows in zip(("orders.tracking.v1", "deliveries.verified.v1"), wanted, strict=True):
        seen = sorted_rows([in_ms(record.fields) for record in driver.read(topic)])
        assert len(seen) == len(rows)
        for row, other in zip(sorted_rows(rows), seen, strict=True):
            assert not differing(row, other), (differing(row, other), row, other)


FAULTS: list[dict[str, Any]] = [
    {},
    {"crash": Crash.COMMITTED},
    {"crash": Crash.OFFSETS_SENT, "spill": True},
    {"lose_disk": True},
]


@pytest.mark.parametrize("faults", FAULTS, ids=["none", "committed", "spilled", "disk"])
def test_what_comes_out_follows_from_the_logs_alone(faults: dict[str, Any]) -> None:
    rng = random.Random(7)
    logs = random_logs(rng, 150)
    wanted = expected(logs, 2)
    assert {row["risk"] for row in wanted[0]} == {"ON_TIME", "AT_RISK", "LATE", "UNKNOWN"}
    assert {row["because"] for row in wanted[1]} == {"NEAR", "FAR", "NO_VEHICLE", "NO_DESTINATION", "NO_POSITION"}
    driver = FlowDriver(flow, partitions=2)
    left = dict(zip(("orders", "positions"), map(list, logs), strict=True))
    while any(left.values()):
        name = rng.choice([name for name, log in left.items() if log])
        count = rng.randint(1, 60)
        driver.feed(*left[name][:count], of=name)
        del left[name][:count]
        if faults.get("spill"):
            for task in driver._engine.tasks.values():
                task.maintenance.spill(below=task.watermark, rows_keep=rng.choice((0, 3)), keep_keys=False)
        if "crash" in faults and rng.random() < 0.5:
            driver.crash(faults["crash"])
        elif faults.get("lose_disk") and rng.random() < 0.3:
            driver.lose_disk()
    assert_same(idle(driver), wanted)


def test_the_model_verifies_a_delivery_that_is_merged_late_by_the_position_of_its_time() -> None:
    model = TrackingModel()
    for time in (1_000, 5_000):
        model.add(Position(time, f"p-{time}", "truck", time, time, 48.0, 11.0))
    model.add(Step(2_000, "s", "truck", 1, 2_000, "order", "DELIVERED", "truck", 48.0, 11.0, None))
    (row,) = model.verified
    assert (row["is_verified"], row["position_time"], row["position_age_ms"]) == ("YES", 1_000, 1_000)
