import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from loadtest.oracle.model import Event, VehicleFold, compare_rows
from logistics.folds.vehicle_state import VehicleState
from streams.batch.columns import object_rows, objects
from streams.batch.events import Events, Fields
from streams.operators.fold.aggregate import KeySegments
from streams.schemas.catalog import Catalog

FOLD = VehicleState()
UNKNOWN = float("nan")
DAY_MS = 86_400_000


def event(
    slot: int, time: int, speed: float = UNKNOWN, latitude: float = 48.0, longitude: float = 11.0, sequence: int = 0
) -> tuple[float, ...]:
    return slot, time, sequence, latitude, longitude, speed


NO_PRIOR = np.empty(0, np.int64)


def columns(rows: list[tuple[float, ...]]) -> Events:
    slot, time, sequence, latitude, longitude, speed = zip(*rows, strict=True)
    count = len(rows)
    words = np.arange(count, dtype=np.uint64)
    return Events(
        row=np.arange(count),
        timestamp_ms=np.array(time),
        event_time=np.array(time),
        sequence=np.array(sequence),
        event_id=objects([b"e%d" % i for i in range(count)]),
        id_hi=words,
        id_lo=words,
        id_word=words,
        key=objects([b"v%d" % i for i in slot]),
        value=objects([b""] * count),
        headers=None,
        payload=np.array([latitude, longitude, speed, [UNKNOWN] * count], dtype=float),
        texts=object_rows([], count),
        slot=np.array(slot),
        fields=Fields(("latitude", "longitude", "speed_kmh", "heading_deg")),
    )


def fold(rows: list[tuple[float, ...]], state: NDArray[Any] | None = None, vehicles: int = 3) -> NDArray[Any]:
    state = np.zeros(vehicles, FOLD.dtype) if state is None else state.copy()
    keys = KeySegments.of(columns(rows), NO_PRIOR)
    state[keys.slot] = FOLD.fold(state[keys.slot], keys.segments)
    return state


def public(state: NDArray[Any]) -> list[dict[str, Any]]:
    batch = FOLD.table(objects([b"v%d" % i for i in range(len(state))]), state)
    plain = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in batch.columns]
    rows: list[dict[str, Any]] = pa.RecordBatch.from_arrays(plain, names=batch.schema.names).to_pylist()
    return rows


def row(*rows: Any) -> dict[str, Any]:
    return public(fold([event(0, *one) if isinstance(one, tuple) else one for one in rows], vehicles=1))[0]


def test_segments_are_one_per_key_in_the_order_of_its_events() -> None:
    rows = [event(5, 1), event(2, 2), event(5, 3), event(2, 4), event(70_000, 5)]
    keys = KeySegments.of(columns(rows), NO_PRIOR)
    segments = keys.segments
    assert keys.slot.tolist() == [2, 5, 70_000]
    assert segments.event_time.tolist() == [2, 4, 1, 3, 5]
    assert keys.last_id.tolist() == [b"e3", b"e2", b"e4"]
    assert (segments.start.tolist(), segments.end.tolist()) == ([0, 2, 4], [1, 3, 4])


def test_the_first_event_makes_a_row_without_distance() -> None:
    assert row((1000, 30.0)) == {
        "device_id": "v0",
        "events": 1,
        "first_event_time": 1000,
        "last_event_time": 1000,
        "last_sequence": 0,
        "latitude": 48.0,
        "longitude": 11.0,
        "odometer_km": 0.0,
        "speed_mean_kmh": 30.0,
        "speed_max_kmh": 30.0,
        "stopped_since": None,
    }


def test_a_place_at_zero_degrees_and_time_zero_is_a_place_like_any_other() -> None:
    rows = [event(0, 0, latitude=0.0, longitude=0.0), event(0, 5, latitude=1.0, longitude=0.0)]
    found = public(fold(rows, vehicles=1))[0]
    assert (found["first_event_time"], found["last_event_time"]) == (0, 5)
    assert found["odometer_km"] == pytest.approx(111.195, abs=0.001)


def test_mean_and_maximum_are_over_known_speeds_only() -> None:
    assert row((1, 10.0), (2,), (3, 20.0))["speed_mean_kmh"] == 15.0
    assert row((1, 10.0), (2,), (3, 20.0))["speed_max_kmh"] == 20.0


def test_a_negative_speed_is_an_unknown_one() -> None:
    found = row((1, 80.0), (2, -1.0), (3, 90.0))
    assert (found["speed_mean_kmh"], found["speed_max_kmh"], found["stopped_since"]) == (85.0, 90.0, None)
    nothing = row((1, -1.0), (2, -0.5))
    assert (nothing["speed_mean_kmh"], nothing["speed_max_kmh"], nothing["stopped_since"]) == (None, None, None)
    assert row((1, 0.0), (2, -1.0), (3, 1.0))["stopped_since"] == 1
    assert row((1, -0.0))["speed_max_kmh"] == 0.0


def test_without_a_known_speed_mean_and_maximum_are_null() -> None:
    found = row((1,), (2,))
    assert (found["speed_mean_kmh"], found["speed_max_kmh"], found["stopped_since"]) == (None, None, None)


@pytest.mark.parametrize(
    ("speeds", "since"),
    [
        ([2.99], 1),
        ([3.0], None),
        ([10.0, 1.0, 2.0], 2),
        ([1.0, UNKNOWN, 2.0], 1),
        ([1.0, 10.0, UNKNOWN], None),
        ([1.0, 10.0, 0.0, UNKNOWN], 3),
        ([UNKNOWN, 0.0], 2),
        ([-5.0, 0.0, -5.0], 2),
        ([0.0, -5.0, 1.0], 1),
    ],
)
def test_a_vehicle_stands_since_its_first_slow_event_behind_the_last_fast_one(
    speeds: list[float], since: int | None
) -> None:
    rows = [event(0, time, speed) for time, speed in enumerate(speeds, start=1)]
    assert public(fold(rows, vehicles=1))[0]["stopped_since"] == since
    one_by_one = np.zeros(1, FOLD.dtype)
    for one in rows:
        one_by_one = fold([one], one_by_one)
    assert public(one_by_one)[0]["stopped_since"] == since


def test_vehicles_do_not_mix() -> None:
    rows = [event(0, 1, 10.0, latitude=0.0), event(2, 2, 1.0, latitude=50.0), event(0, 3, 20.0, latitude=0.0)]
    first, second, third = public(fold(rows))
    assert (first["events"], first["odometer_km"], first["stopped_since"]) == (2, 0.0, None)
    assert (third["events"], third["stopped_since"]) == (1, 2)
    assert second["events"] == 0


@pytest.mark.parametrize("seed", range(10))
def test_any_cut_gives_the_same_bytes_and_what_the_model_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        event(
            int(rng.integers(3)),
            time,
            float(rng.choice([UNKNOWN, -0.0, 0.0, 2.9, 3.0, 3.1, 88.888, 1.005, -1.5])),
            float(rng.uniform(-90, 90)),
            float(rng.uniform(-180, 180)),
            int(rng.integers(9)),
        )
        for time in range(1, 200)
    ]
    whole = fold(rows)
    cut = np.zeros(3, FOLD.dtype)
    at = 0
    while at < len(rows):
        size = int(rng.integers(1, 12))
        cut = fold(rows[at : at + size], cut)
        at += size
    assert cut.tobytes() == whole.tobytes()
    for slot, found in enumerate(public(whole)):
        model = VehicleFold(f"v{slot}")
        for of, time, sequence, latitude, longitude, speed in rows:
            if of == slot:
                known = None if np.isnan(speed) else speed
                model.add(Event(0, 0, b"", "", "", int(sequence), int(time), latitude, longitude, known, b""))
        assert compare_rows(model.row(), found) == []


def test_zero_and_minus_zero_make_one_maximum_however_they_are_cut() -> None:
    rng = np.random.default_rng(0)
    for count in range(5, 100):
        rows = [event(0, time, speed) for time, speed in enumerate(rng.choice([0.0, -0.0, -1.0], count).tolist())]
        cut = count // 3
        assert fold(rows[cut:], fold(rows[:cut])).tobytes() == fold(rows).tobytes()


def test_absurd_speeds_do_not_overflow_the_sum() -> None:
    found = row((1, 1e300), (2, -1e300), (3, 1e300))
    assert found["speed_max_kmh"] == 1e300
    assert found["speed_mean_kmh"] == pytest.approx(1e9)  # the negative one is unknown


def test_a_decade_of_positions_fits_into_the_sums() -> None:
    state = np.zeros(1, FOLD.dtype)
    state["events"] = state["speeds"] = 10 * 365 * DAY_MS // 1000
    state["speed_sum"] = state["speeds"] * 30_000
    found = public(fold([event(0, 10, 300.0)], state))[0]
    assert found["speed_mean_kmh"] == pytest.approx(300.0)


def test_the_columns_are_the_fields_of_the_schema_in_its_order() -> None:
    schema = json.loads(Catalog.load().latest("vehicles.state.v1-value").text)
    batch = FOLD.table(objects([b"v"]), np.zeros(1, FOLD.dtype))
    assert batch.schema.names == [field["name"] for field in schema["fields"]]


def test_no_bytes_of_padding_carry_chance_into_a_row() -> None:
    state = fold([event(0, 1, 5.0)])
    assert state.dtype.names is not None
    assert state.dtype.itemsize == sum(state.dtype[name].itemsize for name in state.dtype.names)
