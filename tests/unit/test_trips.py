"""Trips of vehicles: sessions of the flow `gps` against the oracle's model, which shares no code with it."""

import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from loadtest.oracle.events import Event
from loadtest.oracle.trips import TripFault, TripKey, TripLog, TripModel, TripSum, compare_trips
from logistics.flows.gps import GPS
from logistics.flows.gps import flow as gps
from streams.testing import Crash, FlowDriver

T0 = datetime(2024, 3, 1, 12, tzinfo=UTC)
TRIPS = "vehicles.trips.v1"
(SESSION,) = (one for one in GPS.windows if one.gap_ms)


def position(device: str, number: int, at_s: float, speed: float | None = 50.0, **more: Any) -> dict[str, Any]:
    event = {
        "event_id": f"{device}-{number}",
        "device_id": device,
        "sequence": number,
        "event_time": T0 + timedelta(seconds=at_s),
        "latitude": 48.0 + number / 1_000,
        "longitude": 11.5,
        "speed_kmh": speed,
        "heading_deg": None,
    }
    return {**event, **more}


def test_a_trip_says_when_it_was_how_long_and_how_fast() -> None:
    driver = FlowDriver(gps)
    driver.feed(
        position("a", 1, 0, 60.0), position("a", 2, 60, 0.0), position("a", 3, 180, None), position("a", 4, 200, 30.0)
    )
    assert driver.read(TRIPS) == []
    driver.feed(position("a", 5, 200 + 301, 10.0))
    driver.advance("1m")
    (trip,) = driver.read(TRIPS)
    row = dict(trip.fields)
    assert (row["trip_start"], row["trip_end"]) == (T0, T0 + timedelta(seconds=200))
    assert (row["moving_ms"], row["stopped_ms"]) == (60_000, 140_000)
    assert (row["events"], row["revision"], row["speed_max_kmh"], row["speed_mean_kmh"]) == (4, 0, 60.0, 30.0)
    assert row["distance_km"] == pytest.approx(3 * 0.1112, rel=1e-3)


def test_an_event_within_the_gap_of_a_trip_that_is_over_adds_a_row_to_it() -> None:
    driver = FlowDriver(gps, partitions=1)
    driver.feed(position("a", 1, 0), position("a", 2, 100), position("b", 1, 100 + 331 + 6))
    driver.feed(position("a", 3, 200, 20.0))
    driver.advance("20m")
    rows = [dict(one.fields) for one in driver.read(TRIPS) if one.key == b"a"]
    assert [(row["trip_start"], row["revision"], row["events"]) for row in rows] == [(T0, 0, 2), (T0, 1, 1)]
    assert (rows[1]["moving_ms"], rows[1]["trip_end"]) == (100_000, T0 + timedelta(seconds=200))
    assert rows[1]["distance_km"] > 0.1


def observed(driver: FlowDriver) -> TripLog:
    log = TripLog()
    for one in driver.read(TRIPS):
        row = {name: _plain(value) for name, value in one.fields.items()}
        log.add(TRIPS, one.key or b"", row, partition=one.partition, partition_due=one.partition)
    return log


def _plain(value: Any) -> Any:
    return round(value.timestamp() * 1_000) if isinstance(value, datetime) else value


def due(driver: FlowDriver) -> dict[TripKey, TripSum]:
    model = TripModel((SESSION,))
    for one in driver.clean():
        fields: Mapping[str, Any] = one.fields
        at = _plain(fields["event_time"])
        event = Event._make(
            (
                0, at, one.key, fields["event_id"], fields["device_id"], fields["sequence"], at, fields["latitude"],
                fields["longitude"], fields["speed_kmh"], b"", None,
            )
        )  # fmt: skip
        model.add(event, 0)
    model.end(float("inf"))
    return model.trips


@pytest.mark.parametrize("seed", range(3))
def test_trips_are_those_of_the_oracle(seed: int) -> None:
    rng = random.Random(seed)
    driver = FlowDriver(gps, partitions=2)
    for device in "abc":
        at_s, fed = 0.0, []
        for number in range(60):
            at_s += rng.choice((0, 1, 20, 299, 300, 301, 900))
            speed = rng.choice((None, -1.0, 0.0, 2.9, 3.0, 80.0))
            fed.append(position(device, number, at_s - rng.choice((0, 0, 3, 40)), speed, latitude=rng.uniform(-80, 80)))
        while fed:
            cut = rng.randint(1, 20)
            driver.feed(*fed[:cut])
            del fed[:cut]
            if rng.random() < 0.3:
                driver.crash(rng.choice(list(Crash)))
            if rng.random() < 0.2:
                driver.lose_disk()
    driver.advance("1h")
    assert list(compare_trips(due(driver), observed(driver))) == []
    assert len(driver.read(TRIPS)) > 20


def test_the_oracle_finds_what_is_wrong_with_trips() -> None:
    driver = FlowDriver(gps)
    driver.feed(position("a", 1, 0), position("a", 2, 100), position("a", 3, 900), position("a", 4, 901))
    driver.advance("1h")
    expected = due(driver)
    assert list(compare_trips(expected, observed(driver))) == []
    for name, by in (("events", 1), ("moving_ms", -1), ("stopped_ms", 5), ("distance_mm", 10), ("end_ms", 1)):
        log = observed(driver)
        first = next(iter(log.sums.values()))
        setattr(first, name, getattr(first, name) + by)
        (fault,) = compare_trips(expected, log)
        assert isinstance(fault, TripFault)
    log = observed(driver)
    del log.sums[next(iter(log.sums))]
    assert len(list(compare_trips(expected, log))) == 1


@pytest.mark.slow
def test_trips_of_seventeen_hours_of_real_positions_are_those_of_the_model() -> None:
    """139,098 reports of 842 trackers, the committed sample: crashes on the way, trips of all lengths."""
    rows = pq.read_table(Path(__file__).parents[2] / "loadtest" / "data" / "positions-real.parquet").to_pylist()
    driver, model = FlowDriver(gps, partitions=3), TripModel((SESSION,))
    for start in range(0, len(rows), 20_000):
        some = rows[start : start + 20_000]
        driver.feed(
            *({**row, "event_id": f"{start + number}", "sequence": start + number} for number, row in enumerate(some))
        )
        driver.crash()
    driver.advance("1h")
    assert len(driver.clean()) + len(driver.late()) == len(rows)
    for record in driver.clean():
        row = record.fields
        time_ms = round(row["event_time"].timestamp() * 1_000)
        named = (record.key, row["event_id"], row["device_id"], row["sequence"], time_ms)
        place = (row["latitude"], row["longitude"], row["speed_kmh"])
        model.add(Event(0, record.timestamp_ms, *named, *place, b""), -math.inf)
    model.end(math.inf)
    log = TripLog()
    for record in driver.read(TRIPS):
        in_ms = {name: round(it.timestamp() * 1_000) for name, it in record.fields.items() if isinstance(it, datetime)}
        log.add(TRIPS, record.key or b"", {**record.fields, **in_ms}, partition=0, partition_due=0)
    assert len(model.trips) > 1_000
    assert list(compare_trips(model.trips, log)) == []
