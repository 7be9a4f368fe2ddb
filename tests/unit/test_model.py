import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from loadtest.oracle.events import AnyEvent, OrderEvent
from loadtest.oracle.folds import DOMAINS
from loadtest.oracle.model import Event, Late, PartitionModel, Reject, classify, compare_rows, haversine_km
from logistics.folds.geo import haversine_mm

HOUR_MS = 3_600_000


def event(
    time_ms: int,
    *,
    device: str = "d",
    event_id: str | None = None,
    sequence: int | None = None,
    timestamp_ms: int | None = None,
    offset: int = 0,
    **fields: Any,
) -> Event:
    values: dict[str, Any] = {
        "offset": offset,
        "timestamp_ms": time_ms if timestamp_ms is None else timestamp_ms,
        "key": device.encode(),
        "event_id": event_id if event_id is not None else f"e{time_ms}",
        "device_id": device,
        "sequence": time_ms if sequence is None else sequence,
        "event_time_ms": time_ms,
        "latitude": 48.0,
        "longitude": 11.0,
        "speed_kmh": None,
        "raw": b"\0\0\0\0\1",
    }
    return Event(**{**values, **fields})


def model(
    lateness_ms: int = 10, horizon_ms: int = HOUR_MS, skew_ms_max: int = 60_000, record_bytes_max: int = 1000
) -> PartitionModel:
    return PartitionModel(lateness_ms, horizon_ms, skew_ms_max, record_bytes_max)


def fed(*events: Event | Reject, **limits: int) -> PartitionModel:
    fresh = model(**limits)
    for each in events:
        fresh.feed(each)
    return fresh


def times(events: Sequence[AnyEvent]) -> list[int]:
    return [each.event_time_ms for each in events]


def test_events_are_held_until_the_watermark_passes_them() -> None:
    m = fed(event(100), event(105))
    assert m.clean == []
    assert m.watermark == 95
    m.feed(event(115))
    assert times(m.clean) == [100, 105]
    assert times(m.held) == [115]


def test_disorder_within_lateness_leaves_in_order() -> None:
    m = fed(event(100), event(108), event(103), event(120))
    m.idle(math.inf)
    assert times(m.clean) == [100, 103, 108, 120]
    assert m.late == []


def test_events_of_one_time_leave_by_sequence_then_by_id_as_text() -> None:
    m = fed(
        event(100, event_id="b", sequence=2),
        event(100, event_id="b2", sequence=1),
        event(100, event_id="a", sequence=2),
        event(100, event_id="10", sequence=2),
        event(100, event_id="9", sequence=2),
    )
    m.idle(math.inf)
    assert [each.event_id for each in m.clean] == ["b2", "10", "9", "a", "b"]


def test_an_event_behind_its_devices_last_released_one_is_late_by_their_distance() -> None:
    behind = event(102)
    m = fed(event(103), event(120), behind)  # the watermark is 110: 103 has left
    assert [Late(behind, "late", 1)] == m.late


def test_equal_time_behind_the_last_released_sequence_is_late_by_zero() -> None:
    behind = event(100, event_id="x", sequence=1)
    m = fed(event(100, sequence=2), event(110), behind)
    assert [Late(behind, "late", 0)] == m.late


def test_history_of_another_device_behind_the_watermark_is_released_at_once_and_is_not_late() -> None:
    m = fed(event(1000), event(100, device="tunnel"), event(101, device="tunnel"))
    assert times(m.clean) == [100, 101]
    assert m.late == []
    behind = event(99, device="tunnel")
    m.feed(behind)
    assert [Late(behind, "late", 2)] == m.late


def test_an_event_exactly_on_the_watermark_is_due() -> None:
    m = fed(event(110), event(100))
    assert times(m.clean) == [100]


def test_the_watermark_counts_the_record_itself_before_it_is_judged() -> None:
    m = fed(event(100), lateness_ms=0)
    assert times(m.clean) == [100]


def test_what_is_due_leaves_before_the_record_that_moved_the_watermark_is_judged() -> None:
    # Watermark 90 -> 200: 100 and 150 leave first, so that the newcomer at 200 (lateness 0) comes after them.
    m = fed(event(100, timestamp_ms=90), event(150, timestamp_ms=90), event(200), lateness_ms=0)
    assert times(m.clean) == [100, 150, 200]


def test_a_clock_that_runs_ahead_cannot_drag_the_watermark_beyond_the_record_timestamp() -> None:
    m = fed(event(5000, timestamp_ms=100))
    assert m.watermark == 90
    assert times(m.held) == [5000]


def test_the_watermark_never_goes_back() -> None:
    m = fed(event(1000), event(500, device="other"))
    assert m.watermark == 990


def test_duplicates_and_late_events_move_the_watermark_by_their_record_timestamp() -> None:
    ahead = event(1000, timestamp_ms=100)
    m = fed(ahead)
    assert m.watermark == 90
    m.feed(ahead._replace(timestamp_ms=600, offset=1))
    assert m.watermark == 590
    assert [each.offset for each in m.duplicates] == [1]


def test_rejected_records_do_not_move_the_watermark() -> None:
    m = fed(event(1000, latitude=91.0))
    assert -math.inf == m.watermark
    assert [each.reason for each in m.rejected] == ["invalid"]


def test_the_first_copy_wins_and_later_ones_are_dropped() -> None:
    m = fed(event(100, offset=0), event(100, offset=1), event(110, offset=2), event(100, offset=3))
    m.idle(math.inf)
    assert [each.offset for each in m.clean] == [0, 2]
    assert [each.offset for each in m.duplicates] == [1, 3]


def test_one_id_at_two_event_times_is_two_events() -> None:
    m = fed(event(100, event_id="x"), event(101, event_id="x"))
    m.idle(math.inf)
    assert len(m.clean) == 2


def test_identity_does_not_include_the_device() -> None:
    m = fed(event(100, event_id="x"), event(100, event_id="x", device="other"))
    assert [each.entity for each in m.duplicates] == ["other"]


def test_a_second_copy_of_a_late_event_is_a_duplicate() -> None:
    m = fed(event(103), event(120), event(102), event(102))
    assert (len(m.late), len(m.duplicates)) == (1, 1)


def test_an_event_beyond_the_horizon_is_late_by_its_distance_to_the_horizon_and_not_remembered() -> None:
    old = event(39)
    m = fed(event(100), old, old, horizon_ms=50)  # watermark 90, horizon reaches back to 40
    assert [Late(old, "beyond_horizon", 1)] * 2 == m.late
    assert m.duplicates == []


def test_an_event_exactly_at_the_horizon_is_still_checked() -> None:
    m = fed(event(100), event(40, device="other"), horizon_ms=50)
    assert times(m.clean) == [40]


def test_the_horizon_is_judged_before_dedup() -> None:
    m = fed(event(100), event(400, device="other"), event(100), horizon_ms=100)
    assert [each.reason for each in m.late] == ["beyond_horizon"]
    assert m.duplicates == []


def test_idle_releases_what_is_due_and_never_moves_back() -> None:
    m = fed(event(100), event(108))
    m.idle(104)
    assert times(m.clean) == [100]
    m.idle(50)
    assert m.watermark == 104
    m.feed(event(103))
    assert times(m.clean) == [100, 103]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"raw": b"x" * 1001, "event_id": ""}, "too_large"),
        ({"event_id": ""}, "invalid"),
        ({"event_id": "é" * 65}, "invalid"),
        ({"event_id": "é" * 64}, None),
        ({"device": "", "key": b""}, "invalid"),
        ({"device": "d" * 1025, "key": b"d" * 1025}, "invalid"),
        ({"device": "d" * 1024, "key": b"d" * 1024}, None),
        ({"latitude": 90.0}, None),
        ({"latitude": math.nextafter(90.0, 91.0)}, "invalid"),
        ({"longitude": -180.0}, None),
        ({"longitude": -180.1}, "invalid"),
        ({"latitude": math.nan}, "invalid"),
        ({"speed_kmh": math.nan}, "invalid"),
        ({"speed_kmh": math.inf}, "invalid"),
        ({"heading_deg": math.nan}, "invalid"),
        ({"key": None}, "key_mismatch"),
        ({"key": b"other"}, "key_mismatch"),
        ({"key": b"other", "latitude": 91.0}, "invalid"),
        ({"timestamp_ms": 40_000}, None),
        ({"timestamp_ms": 39_999}, "future_timestamp"),
        ({"timestamp_ms": 0, "key": None}, "key_mismatch"),
    ],
)
def test_reasons_to_reject(fields: dict[str, Any], reason: str | None) -> None:
    assert reason == classify(event(100_000, **fields), skew_ms_max=60_000, record_bytes_max=1000)


def test_negative_event_times_are_invalid_and_zero_is_not() -> None:
    assert classify(event(-1), skew_ms_max=0, record_bytes_max=1000) == "invalid"
    assert classify(event(0), skew_ms_max=0, record_bytes_max=1000) is None


def test_size_is_judged_before_what_made_decoding_fail() -> None:
    m = fed(Reject(0, b"d", b"x" * 1001, "not_framed"), Reject(1, b"d", b"x", "not_framed"))
    assert [each.reason for each in m.rejected] == ["too_large", "not_framed"]


def test_a_degree_of_latitude_is_a_360th_of_the_circumference() -> None:
    assert math.isclose(2 * math.pi * 6371.0088 / 360, haversine_km(10, 20, 11, 20), rel_tol=1e-12)
    assert math.isclose(math.pi * 6371.0088, haversine_km(0, 0, 0, 180), rel_tol=1e-12)


def test_the_table_is_the_fold_of_clean_in_release_order() -> None:
    m = fed(
        event(300, sequence=3, latitude=2.0, longitude=0.0, speed_kmh=1.0),
        event(100, sequence=1, latitude=0.0, longitude=0.0, speed_kmh=50.0),
        event(200, sequence=2, latitude=1.0, longitude=0.0, speed_kmh=2.0),
        event(400, sequence=4, latitude=2.0, longitude=0.0),
        lateness_ms=1000,
    )
    m.idle(math.inf)
    leg_mm = round(2 * math.pi * 6371.0088 / 360 * 1e6)
    assert {
        "device_id": "d",
        "events": 4,
        "first_event_time": 100,
        "last_event_time": 400,
        "last_sequence": 4,
        "latitude": 2.0,
        "longitude": 0.0,
        "odometer_km": 2 * leg_mm / 1e6,
        "speed_mean_kmh": 5300 / 300,
        "speed_max_kmh": 50.0,
        "stopped_since": 200,
    } == m.table["d"]


def test_a_known_speed_of_three_ends_a_stop_and_an_unknown_one_changes_nothing() -> None:
    m = fed(event(1, speed_kmh=0.0), event(2), event(3, speed_kmh=3.0), event(4), event(5, speed_kmh=2.99), event(6))
    m.idle(4)
    assert m.table["d"]["stopped_since"] is None
    m.idle(math.inf)
    assert m.table["d"]["stopped_since"] == 5


def test_without_known_speeds_mean_max_and_stop_are_unknown() -> None:
    m = fed(event(1))
    m.idle(math.inf)
    row = m.table["d"]
    assert (row["speed_mean_kmh"], row["speed_max_kmh"], row["stopped_since"]) == (None, None, None)


def test_rows_agree_but_for_two_millimetres_of_odometer() -> None:
    row = {"device_id": "d", "events": 2, "odometer_km": 1.0}
    assert compare_rows(row, {**row, "odometer_km": 1.000002}) == []
    assert compare_rows(row, {**row, "odometer_km": 1.000003}) == ["odometer_km"]
    assert compare_rows(row, {**row, "events": 3}) == ["events"]
    assert compare_rows(row, {"device_id": "d", "odometer_km": 1.0}) == ["events"]
    assert compare_rows(row, None) == ["device_id", "events", "odometer_km"]


STEPS = ("CREATED", "ASSIGNED", "PICKED_UP", "DELIVERED", "CANCELLED")


def order_event(
    time_ms: int,
    kind: str,
    *,
    order: str = "o",
    event_id: str | None = None,
    sequence: int = 0,
    timestamp_ms: int | None = None,
    **fields: Any,
) -> OrderEvent:
    values: dict[str, Any] = dict.fromkeys(
        ("vehicle_id", "depot_id", "destination_latitude", "destination_longitude", "promised_time")
    )
    values |= {"offset": 0, "timestamp_ms": time_ms if timestamp_ms is None else timestamp_ms, "key": order.encode()}
    values |= {"event_id": f"e{time_ms}" if event_id is None else event_id, "order_id": order, "sequence": sequence}
    return OrderEvent(**{**values, "event_time_ms": time_ms, "kind": kind, "raw": b"", **fields})


def orders_fed(*events: OrderEvent, lateness_ms: int = 1_000) -> PartitionModel:
    m = PartitionModel(lateness_ms, HOUR_MS, 60_000, 1000, DOMAINS["orders"].fold)
    for each in events:
        m.feed(each)
    m.idle(math.inf)
    return m


def test_an_order_is_the_fold_of_its_steps() -> None:
    m = orders_fed(
        order_event(10, "CREATED", depot_id="d1", promised_time=900),
        order_event(30, "PICKED_UP"),
        order_event(20, "ASSIGNED", vehicle_id="v1", promised_time=950),
    )
    assert m.table == {
        "o": {
            "order_id": "o",
            "status": "PICKED_UP",
            "vehicle_id": "v1",
            "depot_id": "d1",
            "created_at": 10,
            "assigned_at": 20,
            "picked_up_at": 30,
            "delivered_at": None,
            "cancelled_at": None,
            "promised_time": 950,
            "events": 3,
            "last_event_time": 30,
        }
    }


def test_repeated_and_contradictory_steps_of_an_order_count_like_any_other() -> None:
    m = orders_fed(
        order_event(10, "DELIVERED"),
        order_event(20, "CANCELLED"),
        order_event(30, "ASSIGNED", vehicle_id="v1"),
        order_event(40, "ASSIGNED", vehicle_id="v2"),
        order_event(50, "DELIVERED"),
    )
    row = m.table["o"]
    assert (row["status"], row["assigned_at"], row["vehicle_id"]) == ("DELIVERED", 40, "v2")
    assert (row["delivered_at"], row["cancelled_at"], row["created_at"], row["events"]) == (50, 20, None, 5)


def test_steps_of_one_millisecond_count_by_sequence_then_by_id() -> None:
    m = orders_fed(
        order_event(10, "ASSIGNED", sequence=2, event_id="a"),
        order_event(10, "CANCELLED", sequence=1, event_id="z"),
        order_event(10, "PICKED_UP", sequence=2, event_id="b"),
    )
    assert [each.kind for each in m.clean if isinstance(each, OrderEvent)] == ["CANCELLED", "ASSIGNED", "PICKED_UP"]
    assert m.table["o"]["status"] == "PICKED_UP"


def newest(events: list[OrderEvent], name: str) -> Any:
    return next((getattr(each, name) for each in reversed(events) if getattr(each, name) is not None), None)


def order_by_definition(events: list[OrderEvent]) -> dict[str, Any]:
    """OrderState as it is defined, over all events of an order at once."""
    events = sorted(events, key=lambda each: (each.event_time_ms, each.sequence, each.event_id))
    row = {"order_id": events[0].order_id, "status": events[-1].kind, "events": len(events)}
    row["last_event_time"] = events[-1].event_time_ms
    row |= {name: newest(events, name) for name in ("vehicle_id", "depot_id", "promised_time")}
    for kind in STEPS:
        row[f"{kind.lower()}_at"] = max((each.event_time_ms for each in events if each.kind == kind), default=None)
    return row


@pytest.mark.parametrize("seed", range(20))
def test_any_order_is_what_the_definition_says(seed: int) -> None:
    rng = random.Random(seed)
    events = [
        order_event(
            rng.randrange(40),
            rng.choice(STEPS),
            order=rng.choice("ab"),
            event_id=f"e{number}",
            sequence=rng.randrange(3),
            vehicle_id=rng.choice([None, "", "v1", "v2"]),
            depot_id=rng.choice([None, "d1", "d2"]),
            promised_time=rng.choice([None, None, 0, 7]),
        )
        for number in range(30)
    ]
    m = orders_fed(*events)
    for order in "ab":
        assert compare_rows(order_by_definition([e for e in events if e.order_id == order]), m.table[order]) == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"destination_latitude": -90.0, "destination_longitude": 180.0}, None),
        ({"destination_latitude": 90.1}, "invalid"),
        ({"destination_longitude": -180.1}, "invalid"),
        ({"destination_longitude": math.inf}, "invalid"),
        ({"destination_latitude": math.nan}, "invalid"),
        ({"event_id": ""}, "invalid"),
        ({"event_id": "x" * 129}, "invalid"),
        ({"order": ""}, "invalid"),
        ({"order": "x" * 129}, None),
        ({"promised_time": -1}, None),
        ({"key": b"other"}, "key_mismatch"),
        ({"timestamp_ms": 0}, "future_timestamp"),
    ],
)
def test_reasons_to_reject_a_step_of_an_order(fields: dict[str, Any], reason: str | None) -> None:
    event = order_event(100_000, "CREATED", **fields)
    assert reason == classify(event, skew_ms_max=60_000, record_bytes_max=1000)


def windows_by_definition(clean: Sequence[Any], size_ms: int) -> dict[tuple[str, int], tuple[int, int, float | None]]:
    """Events, millimetres and highest speed of each (device, window start), from all clean events at once."""
    found: dict[tuple[str, int], list[tuple[int, float | None]]] = {}
    for device in {each.device_id for each in clean}:
        events = [each for each in clean if each.device_id == device]
        for before, each in zip([None, *events], events, strict=False):
            mm = 0
            if before is not None:
                places = before.latitude, before.longitude, each.latitude, each.longitude
                mm = round(haversine_km(*places) * 1e6)
            start = each.event_time_ms - each.event_time_ms % size_ms
            found.setdefault((device, start), []).append((mm, each.speed_kmh))
    return {
        name: (
            len(rows),
            sum(mm for mm, _ in rows),
            max((speed for _, speed in rows if speed is not None), default=None),
        )
        for name, rows in found.items()
    }


@pytest.mark.parametrize("seed", range(10))
def test_windows_are_what_the_definition_says_and_add_up_to_the_odometer(seed: int) -> None:
    rng = random.Random(seed)
    m = PartitionModel(50, HOUR_MS, 60_000, 1000, windows_ms={"w": 100})
    for number in range(200):
        place: dict[str, Any] = {"latitude": rng.uniform(-80, 80), "longitude": rng.uniform(-180, 180)}
        speed = rng.choice([None, -0.0, rng.uniform(0, 100)])
        time_ms = number * 5 + rng.randrange(-40, 40) + 100
        m.feed(event(time_ms, device=rng.choice("abc"), event_id=f"e{number}", speed_kmh=speed, **place))
    m.idle(math.inf)
    found = {(key.entity, key.start_ms): s for key, s in m.windows.items()}
    sums = {name: (s.events, s.distance_mm, s.speed_max_kmh) for name, s in found.items()}
    assert sums == windows_by_definition(m.clean, 100)
    for device, row in m.table.items():
        assert round(row["odometer_km"] * 1e6) == sum(s[1] for (name, _), s in sums.items() if name == device)


def test_the_leg_into_a_window_belongs_to_it_and_an_event_on_the_border_to_the_later_one() -> None:
    m = PartitionModel(0, HOUR_MS, 60_000, 1000, windows_ms={"w": 100})
    for time_ms, latitude in ((100, 0.0), (199, 1.0), (200, 2.0), (450, 4.0)):
        m.feed(event(time_ms, latitude=latitude, longitude=0.0))
    leg_mm = round(2 * math.pi * 6371.0088 / 360 * 1e6)
    assert {key.start_ms: (s.events, s.distance_mm) for key, s in m.windows.items()} == {
        100: (2, leg_mm),
        200: (1, leg_mm),
        400: (1, 2 * leg_mm),
    }


def test_the_distance_of_a_window_is_exact_but_where_another_maths_library_may_round_otherwise() -> None:
    rng = random.Random(1)
    m = PartitionModel(0, HOUR_MS, 60_000, 1000, windows_ms={"w": 1})
    for number in range(2_000):
        place: dict[str, Any] = {"latitude": 50 + rng.random() / 100, "longitude": 10 + rng.random() / 100}
        m.feed(event(number, event_id=str(number), **place))
    slack = [s.slack_mm for s in m.windows.values()]
    assert max(slack) <= 1
    assert sum(slack) < 10


def test_legs_are_rounded_as_the_engine_does_within_the_slack() -> None:
    rng = random.Random(2)
    places = [(rng.uniform(-90, 90), rng.uniform(-180, 180)) for _ in range(3_000)]
    places += [(-latitude, longitude - math.copysign(180, longitude)) for latitude, longitude in places[-50:]]
    m = PartitionModel(0, HOUR_MS, 60_000, 1000, windows_ms={"w": 1})
    for number, (latitude, longitude) in enumerate(places):
        m.feed(event(number, event_id=str(number), latitude=latitude, longitude=longitude))
    legs = np.array([a + b for a, b in itertools.pairwise(places)])
    for (_, s), mm in zip(list(m.windows.items())[1:], haversine_mm(*legs.T).tolist(), strict=True):
        assert abs(s.distance_mm - mm) <= s.slack_mm


# --- record timestamps that are no time -------------------------------------------------------------------------------

NOW_MS = 1_750_000_000_000
DECADE_MS = 10 * 365 * 86_400_000
NO_TIMES = [-1, 0, 86_400_000, NOW_MS // 1_000, NOW_MS + 60_001, NOW_MS + DECADE_MS, 2**63 - 1]


def clocked(*events: Event, **changed: Any) -> PartitionModel:
    fresh = PartitionModel(10, HOUR_MS, 60_000, 1000, now_ms=NOW_MS, **changed)
    for each in events:
        fresh.feed(each)
    return fresh


@pytest.mark.parametrize("timestamp_ms", NO_TIMES)
def test_without_a_usable_timestamp_an_event_is_judged_by_the_clock_of_the_reader(timestamp_ms: int) -> None:
    right = event(NOW_MS - 5_000, timestamp_ms=timestamp_ms)
    ahead = event(NOW_MS + 60_001, timestamp_ms=timestamp_ms)
    m = clocked(right, ahead)
    m.idle(math.inf)
    assert [right] == m.clean
    assert ["future_timestamp"] == [reject.reason for reject in m.rejected]


@pytest.mark.parametrize("timestamp_ms", NO_TIMES)
def test_no_timestamp_moves_the_watermark_beyond_the_clock(timestamp_ms: int) -> None:
    assert NOW_MS - 10 == clocked(event(NOW_MS + 60_000, timestamp_ms=timestamp_ms)).watermark


def test_a_record_without_a_usable_timestamp_neither_counts_against_its_key_nor_is_kept_out() -> None:
    bad = event(NOW_MS, latitude=91.0)
    unstamped = [bad._replace(timestamp_ms=-1)] * 5
    m = clocked(*unstamped, quarantine_rejects=2)
    assert {"invalid"} == {reject.reason for reject in m.rejected}
    m = clocked(*[bad] * 3, event(NOW_MS - 1, timestamp_ms=0), event(NOW_MS - 2), quarantine_rejects=2)
    m.idle(math.inf)
    assert [NOW_MS - 2, NOW_MS - 1] == times(m.clean)


@pytest.mark.parametrize(("promised_time", "reason"), [(2**53, None), (2**53 + 1, "invalid"), (-(2**63), "invalid")])
def test_a_promise_that_a_double_does_not_hold_is_invalid(promised_time: int, reason: str | None) -> None:
    step = OrderEvent(0, NOW_MS, b"o", "e", "o", 1, NOW_MS, "CREATED", None, None, None, None, promised_time, b"raw")
    assert reason == classify(step, skew_ms_max=60_000, record_bytes_max=1000)
