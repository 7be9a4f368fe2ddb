"""What the fleet page knows: positions, the past, orders, and what it costs; as messages and as JSON."""

import json
import struct
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from logistics.flows.fleet import fleet
from streams.errors import UsageError
from streams.fleet.columns import NOWHERE
from streams.fleet.feeds import bound_map
from streams.fleet.frames import JSON, POSITIONS, name_messages, vehicle_messages
from streams.fleet.order_book import OrderBook, OrderRow
from streams.fleet.picture import PAST, FeedRows, Picture
from streams.fleet.ring import RowRing
from streams.fleet.vehicles import AT_RISK, LATE, STOPPED, VehicleRows
from streams.fleet.views import news, past, trail, vehicle
from streams.flow.discover import declared_map, select_pipelines
from streams.flow.fleet_map import FleetMap, Orders, Positions
from streams.schemas.catalog import Catalog

T0 = 1_800_000_000_000
MS = pa.timestamp("ms", "UTC")


def feed_rows(columns: dict[str, Any], first_offset: int = 0, deleted: tuple[str, ...] = ()) -> FeedRows:
    count = len(next(iter(columns.values())))
    offsets = np.arange(first_offset, first_offset + count)
    return FeedRows(columns, np.zeros(count, dtype=np.int64), offsets, deleted)


def positions(*rows: tuple[str | None, int, float, float, float | None], first_offset: int = 0) -> FeedRows:
    """Rows of vehicle, seconds, latitude, longitude and speed."""
    ids, seconds, latitude, longitude, speed = zip(*rows, strict=True)
    columns = {
        "vehicle": pa.array(ids, pa.string()),
        "time": pa.array([T0 + 1000 * one for one in seconds], MS),
        "latitude": pa.array(latitude, pa.float64()),
        "longitude": pa.array(longitude, pa.float64()),
        "speed_kmh": pa.array(speed, pa.float64()),
        "heading_deg": pa.array([90.0] * len(rows), pa.float64()),
    }
    return feed_rows(columns, first_offset)


def states(*rows: tuple[str, int, int | None]) -> FeedRows:
    """Rows of the vehicles' table: vehicle, seconds, stopped since."""
    ids, seconds, since = zip(*rows, strict=True)
    columns = {
        "vehicle": pa.array(ids, pa.string()),
        "time": pa.array([T0 + 1000 * one for one in seconds], MS),
        "latitude": pa.array([48.0] * len(rows)),
        "longitude": pa.array([9.0] * len(rows)),
        "odometer_km": pa.array([12.5] * len(rows)),
        "stopped_since": pa.array([None if one is None else T0 + 1000 * one for one in since], MS),
        "speed_mean_kmh": pa.array([None] * len(rows), pa.float64()),
        "speed_max_kmh": pa.array([88.0] * len(rows)),
        "events": pa.array([7] * len(rows), pa.int64()),
    }
    return feed_rows(columns)


def order_rows(*rows: tuple[str, str | None, str, str, int], deleted: tuple[str, ...] = ()) -> FeedRows:
    """Rows of orders: order, vehicle, status, risk, promised after so many seconds."""
    columns: dict[str, Any] = {
        name: pa.array([row[at] for row in rows], pa.string())
        for at, name in enumerate(("order", "vehicle", "status", "risk"))
    }
    columns["promised_time"] = pa.array([T0 + 1000 * row[4] for row in rows], MS)
    columns["time"] = columns["expected_arrival"] = pa.array([T0] * len(rows), MS)
    columns["distance_km"] = pa.array([3.0] * len(rows))
    return feed_rows(columns, deleted=deleted)


def picture() -> Picture:
    return Picture(fleet, epoch=1)


def test_a_ring_keeps_the_newest_rows_in_order() -> None:
    ring = RowRing(np.dtype([("n", "<i8"), ("of", "<i8")]), rows_max=10_000)
    for first in range(0, 25_000, 500):
        numbers = np.arange(first, first + 500)
        ring.add({"n": numbers, "of": numbers % 7})
    assert 10_000 == len(ring)
    assert [n for n in range(15_000, 25_000) if n % 7 == 3] == ring.where("of", 3)["n"].tolist()
    assert list(range(24_990, 25_000)) == ring.between("n", 24_990, 30_000)["n"].tolist()
    assert list(range(15_000, 15_010)) == ring.before("n", 15_010)["n"].tolist()


def test_a_ring_takes_more_than_it_holds() -> None:
    ring = RowRing(np.dtype([("n", "<i8")]), rows_max=100)
    ring.add({"n": np.arange(1_000)})
    assert list(range(900, 1_000)) == ring.before("n", 5_000)["n"].tolist()


def test_memory_of_a_ring_grows_with_what_is_in_it() -> None:
    ring = RowRing(PAST, rows_max=4_000_000)
    assert ring.bytes < 200_000
    ring.add({name: np.zeros(10_000) for name in PAST.names or ()})
    assert ring.bytes < 1_000_000


def test_the_newest_position_counts_and_an_older_one_changes_nothing() -> None:
    known = picture()
    known.take(
        "positions", positions(("a", 10, 50.0, 8.0, 60.0), ("b", 10, 51.0, 8.0, 0.0), ("a", 12, 50.1, 8.0, 61.0))
    )
    known.take("positions", positions(("a", 11, 40.0, 8.0, 5.0)))
    rows = known.vehicles.rows
    assert [50.1, 51.0] == rows["latitude"].tolist()
    assert [0, STOPPED] == rows["state"].tolist()


def test_a_vehicle_stands_below_3_kmh_and_an_unknown_speed_changes_nothing() -> None:
    known = picture()
    for seconds, speed, stands in (
        (0, 2.9, True),
        (1, None, True),
        (2, 3.0, False),
        (3, None, False),
        (4, -1.0, False),
    ):
        known.take("positions", positions(("a", seconds, 50.0, 8.0, speed)))
        assert stands == bool(known.vehicles.rows["state"][0] & STOPPED), seconds


def test_what_is_no_place_is_left_out() -> None:
    known = picture()
    known.take(
        "positions", positions(("a", 0, 91.0, 8.0, 1.0), ("b", 0, float("nan"), 8.0, 1.0), (None, 0, 1.0, 1.0, 1.0))
    )
    assert 0 == news(known, T0, ids=True)["vehicles"]
    assert 0 == len(known.history)


def test_the_table_says_where_a_vehicle_was_before_any_event_is_read() -> None:
    known = picture()
    known.take("vehicles", states(("a", 5, None), ("b", 5, 3)))
    told = vehicle(known, 1, masked=False, ids=True, now_ms=T0)
    assert told is not None
    assert (48.0, 9.0, 12.5, T0 + 3000, None, 88.0) == tuple(
        told[name]
        for name in ("latitude", "longitude", "odometer_km", "stopped_since", "speed_mean_kmh", "speed_max_kmh")
    )
    assert (1, 1) == (news(known, T0, ids=True)["moving"], news(known, T0, ids=True)["stopped"])


def test_a_vehicle_that_was_not_heard_of_for_long_is_silent() -> None:
    known = picture()
    known.take("positions", positions(("a", 0, 50.0, 8.0, 60.0), ("b", 600, 50.0, 8.0, 60.0)))
    told = news(known, T0 + 600_001, ids=True)
    assert (1, 0, 1) == (told["moving"], told["stopped"], told["silent"])


def test_one_vehicle_too_many_is_counted_and_not_shown() -> None:
    rows = VehicleRows(vehicles_max=2)
    assert [0, 1, -1, 0, -1] == rows.numbered(["a", "b", "c", "a", None]).tolist()
    assert 1 == rows.beyond


def test_the_history_has_positions_some_seconds_apart() -> None:
    known = picture()
    for seconds in range(60):
        known.take("positions", positions(("a", seconds, 50.0 + seconds / 1000, 8.0, 60.0), first_offset=seconds))
    points = trail(known, 0, T0)
    assert 11 <= len(points) <= 12
    assert [T0, 50.0, 8.0, 60.0] == points[0]
    assert all(after[0] - before[0] >= 5_000 for before, after in pairwise(points))


def test_many_vehicles_are_sampled_farther_apart_so_that_an_hour_fits() -> None:
    known = picture()
    assert 5_000 == known.sample_ms
    known.vehicles.ids = ["x"] * 200_000
    assert 180_000 == known.sample_ms


def test_the_past_begins_with_where_everybody_was() -> None:
    known = picture()
    for seconds in range(0, 100, 10):
        known.take("positions", positions(("a", seconds, 50.0, 8.0, 60.0), ("b", min(seconds, 20), 51.0, 8.0, 60.0)))
    rows, oldest = past(known, T0 + 55_000, T0 + 80_000, 100)
    assert T0 == oldest
    assert [(0, 50), (1, 20), (0, 60), (0, 70)] == [
        (int(row["vehicle"]), (int(row["time"]) - T0) // 1000) for row in rows
    ]


def test_minutes_of_one_window_add_up() -> None:
    known = picture()
    known.take("positions", positions(("a", 0, 50.0, 8.0, 60.0)))
    columns = {
        "vehicle": pa.array(["a", "a", "a"]),
        "start": pa.array([T0, T0, T0 + 60_000], MS),
        "distance_km": pa.array([1.0, 0.5, 2.0]),
        "speed_max_kmh": pa.array([50.0, 70.0, None], pa.float64()),
    }
    known.take("minutes", feed_rows(columns))
    told = vehicle(known, 0, masked=False, ids=True, now_ms=T0)
    assert told is not None
    assert [
        {"start": T0, "km": 1.5, "kmh": 70.0},
        {"start": T0 + 60_000, "km": 2.0, "kmh": None},
    ] == told["minutes"]


def test_orders_at_risk_are_listed_with_those_first_that_can_be_saved() -> None:
    known = picture()
    known.take("positions", positions(("a", 0, 50.0, 8.0, 60.0)))
    known.take(
        "orders",
        order_rows(
            ("late", "a", "PICKED_UP", "LATE", 10),
            ("fine", "a", "PICKED_UP", "ON_TIME", 20),
            ("soon", "a", "ASSIGNED", "AT_RISK", 40),
            ("sooner", "b", "ASSIGNED", "AT_RISK", 30),
        ),
    )
    told = news(known, T0, ids=True)
    assert (4, 3) == (told["orders"], told["at_risk"])
    assert ["sooner", "soon", "late"] == [one["order"] for one in told["risky"]]
    assert [None, 0, 0] == [one["vehicle"] for one in told["risky"]]
    assert AT_RISK | LATE == int(known.vehicles.rows["state"][0])
    known.take("orders", order_rows(("late", "a", "DELIVERED", "LATE", 10), deleted=("soon",)))
    assert 0 == int(known.vehicles.rows["state"][0])
    assert ["sooner"] == [one["order"] for one in news(known, T0, ids=True)["risky"]]


def test_late_is_late_though_nobody_writes_a_row() -> None:
    known = picture()
    known.take("positions", positions(("a", 0, 50.0, 8.0, 60.0), ("b", 0, 50.0, 8.0, 60.0)))
    known.take(
        "orders", order_rows(("risky", "a", "PICKED_UP", "AT_RISK", 10), ("fine", "b", "ASSIGNED", "ON_TIME", 20))
    )
    [risky, fine] = [one.promised_time for one in known.orders.of_vehicle("a") + known.orders.of_vehicle("b")]
    assert risky is not None
    assert fine is not None

    def told(now_ms: int) -> tuple[int, list[tuple[str, str, bool]], list[int]]:
        said = news(known, now_ms, ids=True)
        states = [int(state) for state in known.vehicles.rows["state"]]
        return said["at_risk"], [(one["order"], one["risk"], one["late"]) for one in said["risky"]], states

    assert (1, [("risky", "AT_RISK", False)], [AT_RISK, 0]) == told(risky)
    version = known.version
    assert (1, [("risky", "LATE", True)], [LATE, 0]) == told(risky + 1)
    assert [0] == known.vehicles.changed_since(version).tolist(), "browsers hear of it"
    late = [("risky", "LATE", True), ("fine", "LATE", True)]
    assert (2, late, [LATE, LATE]) == told(fine + 1)
    known.take("orders", order_rows(("fine", "b", "PICKED_UP", "ON_TIME", 20)))
    assert (2, late, [LATE, LATE]) == told(fine + 1), "whatever a row says that was written before"
    known.take(
        "orders", order_rows(("fine", "b", "PICKED_UP", "ON_TIME", 200), ("risky", "a", "DELIVERED", "LATE", 10))
    )
    assert (0, [], [0, 0]) == told(fine + 1), "a new promise, and a delivery"
    assert "LATE" == vehicle(known, 1, masked=False, ids=True, now_ms=T0 + 10**9)["orders"][0]["risk"]  # type: ignore[index]


def test_promises_of_orders_that_have_ended_are_not_kept() -> None:
    book = OrderBook(Orders("orders"))
    for number in range(5_000):
        book.take([OrderRow(f"o{number}", "a", T0, "ASSIGNED", "ON_TIME", promised_time=T0 + 10**9)])
        book.take([OrderRow(f"o{number}", "a", T0, "DELIVERED", "ON_TIME", promised_time=T0 + 10**9)])
    assert len(book._promises) < 1_100
    assert set() == book.pass_time(T0 + 2 * 10**9)
    assert (0, [], {}) == (len(book), book._promises, book._awaited)


def test_an_order_that_moves_to_another_vehicle_leaves_the_first() -> None:
    book = OrderBook(Orders("orders"))
    book.take([OrderRow("o", "a", T0, "ASSIGNED", "LATE")])
    assert {"a", "b"} == book.take([OrderRow("o", "b", T0, "ASSIGNED", "LATE")])
    assert ([], LATE, 0) == (book.of_vehicle("a"), book.bits_of("b"), book.bits_of("a"))


def test_one_order_too_many_is_counted() -> None:
    book = OrderBook(Orders("orders"), orders_max=1)
    book.take([OrderRow("o", None, T0, "ASSIGNED", ""), OrderRow("p", None, T0, "ASSIGNED", "")])
    assert (1, 1) == (len(book), book.beyond)


def decoded(message: bytes) -> tuple[int, bytes]:
    length, kind = struct.unpack_from("<II", message)
    assert len(message) == 8 + length
    assert 0 == length % 8
    return kind, message[8:]


@pytest.mark.parametrize("masked", [False, True])
def test_positions_are_packed_in_columns(masked: bool) -> None:
    known = picture()
    known.take(
        "positions", positions(("a", 0, 50.1234567, -8.5, 60.04), ("b", 1, -33.0, 151.0, None), ("c", 2, 0.0, 0.0, 1.0))
    )
    (message,) = vehicle_messages(known.vehicles, np.array([0, 1, 2]), 5.0, masked=masked)
    kind, content = decoded(message)
    count, _, now = struct.unpack_from("<IId", content)
    assert (POSITIONS, 3, 5.0) == (kind, count, now)
    found = {}
    at = 16
    for name, dtype in (
        ("time", "<f8"), ("vehicle", "<u4"), ("latitude", "<i4"), ("longitude", "<i4"), ("speed", "<u2"),
        ("heading", "<u2"), ("state", "u1"),
    ):  # fmt: skip
        found[name] = np.frombuffer(content, dtype, count, at).tolist()
        at += count * np.dtype(dtype).itemsize
    assert [T0, T0 + 1000, T0 + 2000] == found["time"]
    assert [600, 65_535, 10] == found["speed"]
    assert [9_000] * 3 == found["heading"]
    assert [0, 0, STOPPED] == found["state"]
    wanted = [NOWHERE] * 3 if masked else [501_234_567, -330_000_000, 0]
    assert wanted == found["latitude"]


def test_ids_are_sent_in_pieces_and_masked_ones_are_numbers() -> None:
    ids = [f"v{n}" for n in range(20_001)]
    messages = [json.loads(decoded(one)[1]) for one in name_messages(ids, 0, masked=False)]
    assert [(0, 20_000), (20_000, 1)] == [(one["names"]["first"], len(one["names"]["ids"])) for one in messages]
    kind, content = decoded(next(iter(name_messages(ids, 20_000, masked=True))))
    assert (JSON, ["vehicle 20001"]) == (kind, json.loads(content)["names"]["ids"])


def test_only_what_has_changed_is_sent_again() -> None:
    known = picture()
    known.take("positions", positions(("a", 0, 50.0, 8.0, 60.0), ("b", 0, 50.0, 8.0, 60.0)))
    version = known.version
    known.take("positions", positions(("b", 1, 50.0, 8.1, 60.0)))
    assert [1] == known.vehicles.changed_since(version).tolist()
    known.take("positions", positions(("a", -5, 50.0, 8.1, 60.0)))
    assert [1] == known.vehicles.changed_since(version).tolist(), "an older position is no news"


def test_a_masked_vehicle_has_no_place() -> None:
    known = picture()
    known.take("positions", positions(("a", 0, 50.0, 8.0, 60.0)))
    told = vehicle(known, 0, masked=True, ids=False, now_ms=T0)
    assert told is not None
    assert (None, None, "vehicle 1", 60.0) == (told["latitude"], told["longitude"], told["id"], told["speed_kmh"])
    assert vehicle(known, 1, masked=False, ids=True, now_ms=T0) is None


def test_the_shipped_app_declares_a_map_of_its_flows() -> None:
    declared = declared_map(prefix="eu.")
    assert declared is not None
    assert "eu.gps.positions.v1.clean" == declared.positions.topic
    bound = bound_map(declared, select_pipelines(None, prefix="eu."), Catalog.load())
    assert {name for name, _ in fleet.feeds()} == {one.name for one in bound.feeds}
    assert "gps.positions.v1-value" == bound.feeds[0].subject
    assert bound.hides_places
    assert not bound.hides_ids
    assert declared_map(app="logistics.warehouse") == fleet


def test_a_map_of_what_no_flow_writes_is_refused() -> None:
    flows = select_pipelines(None)
    with pytest.raises(UsageError, match=r"nothing\.v1, which no flow of the app reads or writes"):
        bound_map(FleetMap(Positions("nothing.v1")), flows, Catalog.load())
    with pytest.raises(UsageError, match="has no field 'lat'"):
        bound_map(FleetMap(Positions("gps.positions.v1.clean", latitude="lat")), flows, Catalog.load())
    with pytest.raises(ValueError, match="the same topic"):
        FleetMap(Positions("a"), orders=Orders("a"))
