"""The driver for users' tests: the production engine, without a broker."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from logistics.flows.gps import flow as gps
from logistics.flows.orders import flow as orders
from logistics.folds.vehicle_state import VehicleState
from streams import Flow, source
from streams.testing import Crash, FlowDriver

T0 = datetime(2024, 3, 1, 12, tzinfo=UTC)


def position(number: int, *, at_s: float = 0, device: str = "truck-1", **more: Any) -> dict[str, Any]:
    event = {
        "event_id": f"{device}-{number}",
        "device_id": device,
        "sequence": number,
        "event_time": T0 + timedelta(seconds=at_s),
        "latitude": 48.1,
        "longitude": 11.5,
        "speed_kmh": 50.0,
        "heading_deg": None,
    }
    return {**event, **more}


def outputs(driver: FlowDriver) -> tuple[Any, ...]:
    read = [driver.read(topic.name) for topic in driver.flow.pipeline.topics()[1:4]]
    read += [driver.read("vehicles.minutes.v1")]
    rows = [[(r.partition, r.key, r.value, dict(r.headers)) for r in records] for records in read]
    return (*rows, driver.table("vehicles.state.v1"))


def test_events_come_out_once_and_in_order_and_are_folded() -> None:
    driver = FlowDriver(gps, partitions=3)
    driver.feed(position(2, at_s=2), position(1, at_s=1), position(2, at_s=2), position(3, at_s=3, device="truck-2"))
    assert driver.clean() == []
    driver.advance("1m")
    assert [r.fields["event_id"] for r in driver.clean() if r.key == b"truck-1"] == ["truck-1-1", "truck-1-2"]
    table = driver.table("vehicles.state.v1")
    assert (table["truck-1"]["events"], table["truck-2"]["events"]) == (2, 1)
    assert table["truck-1"]["last_event_time"] == T0 + timedelta(seconds=2)
    driver.advance("3m")
    (first, second) = driver.read("vehicles.minutes.v1")
    assert {(r.fields["device_id"], r.fields["events"], r.fields["revision"]) for r in (first, second)} == {
        ("truck-1", 2, 0), ("truck-2", 1, 0),
    }  # fmt: skip


def test_a_late_event_says_why() -> None:
    driver = FlowDriver(gps)
    driver.feed(position(5, at_s=60), position(6, at_s=120), position(1, at_s=1))
    (late,) = driver.late()
    assert (late.fields["event_id"], late.headers["late.reason"]) == ("truck-1-1", b"late")


def test_what_is_no_event_is_a_dead_letter_with_its_reason_and_bytes() -> None:
    driver = FlowDriver(gps)
    driver.feed(position(1, latitude=91.0), position(2, device="x", event_time=T0))
    driver.feed_raw(b"\0\0\0\0\x63junk", key=b"truck-9")
    driver.feed_raw(None, key=b"truck-9")
    driver.feed(position(3, at_s=3_600), timestamp_ms=int(T0.timestamp() * 1000))
    found = [(letter.reason, letter.record.key) for letter in driver.dead_letters()]
    assert found[:2] == [("invalid", b"truck-1"), ("unknown_schema", b"truck-9")]
    assert [reason for reason, _ in found[2:]] == ["not_framed", "future_timestamp"]
    assert "latitude" in driver.dead_letters()[0].message
    assert driver.dead_letters()[1].record.value == b"\0\0\0\0\x63junk"


def test_events_of_an_older_schema_are_read() -> None:
    driver = FlowDriver(gps)
    driver.feed(position(1), version=1)
    driver.feed(position(2, at_s=1, altitude_m=500.0), version=2)
    driver.advance("1m")
    assert driver.table("vehicles.state.v1")["truck-1"]["events"] == 2
    with pytest.raises(ValueError, match=r"no version 3: the source's schema has 2"):
        driver.feed(position(3), version=3)
    with pytest.raises(ValueError, match="does not fit the schema of the source"):
        driver.feed({"event_id": "x"})


def run_of_a_fleet(at: Crash | None = None, *, faulty: bool, disk: str = "kept") -> tuple[Any, ...]:
    """What comes out of some traffic; a faulty run crashes every now and then."""
    driver = FlowDriver(gps, partitions=3)
    for number in range(12):
        if faulty and number % 4 == 1:
            driver.crash(at)
        if faulty and disk == "lost" and number % 4 == 2:
            driver.lose_disk()
        events = [position(number, at_s=number * 9 - 12 * (number % 3), device=f"truck-{k}") for k in range(4)]
        driver.feed(*events, events[0])
    if faulty:
        driver.crash(at)
    driver.advance("2m")
    driver.advance("2m")
    return outputs(driver)


@pytest.fixture(scope="module")
def undisturbed() -> tuple[Any, ...]:
    return run_of_a_fleet(faulty=False)


@pytest.mark.parametrize("at", [*Crash, None])
@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_a_crash_anywhere_changes_nothing_that_comes_out(
    at: Crash | None, disk: str, undisturbed: tuple[Any, ...]
) -> None:
    assert run_of_a_fleet(at, faulty=True, disk=disk) == undisturbed


def test_the_environment_does_not_change_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMS_LATENESS_MS", "3600000")
    monkeypatch.setenv("STREAMS_IDLE_MS", "3600000")
    driver = FlowDriver(gps)
    driver.feed(position(1), position(2, at_s=10))
    assert len(driver.clean()) == 1
    driver.advance("1m")
    assert len(driver.clean()) == 2


def test_flows_without_windows_are_driven_too() -> None:
    driver = FlowDriver(orders)
    driver.feed(
        *(
            {
                "event_id": f"e{number}", "order_id": "o1", "sequence": number, "event_time": T0, "kind": kind,
                "vehicle_id": "truck-1", "depot_id": None, "destination_latitude": None, "destination_longitude": None,
                "promised_time": None,
            }
            for number, kind in enumerate(("CREATED", "ASSIGNED"))
        )
    )  # fmt: skip
    driver.advance("1m")
    assert driver.table("orders.state.v1")["o1"]["status"] == "ASSIGNED"
    with pytest.raises(KeyError, match=r"has no table nobody\.v1"):
        driver.table("nobody.v1")


def is_moving(batch: pa.RecordBatch) -> pa.Array:
    return pc.greater(batch.column("speed_kmh"), 3.0)


def halved(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.record_batch({"speed_kmh": pc.multiply(batch.column("speed_kmh"), 0.5)})


def test_functions_drop_and_change_events_where_they_stand() -> None:
    fields = ("latitude", "longitude", "speed_kmh", "heading_deg")
    trunk = source("gps.positions.v1", key="device_id", fields=fields).deduplicate().reorder()
    chosen = trunk.to("gps.positions.v1.clean").filter(is_moving).map_batches(halved)
    driver = FlowDriver(Flow("slow", chosen.fold(VehicleState(), to="vehicles.state.v1")))
    driver.feed(position(1, speed_kmh=1.0), position(2, at_s=1, speed_kmh=80.0), position(3, at_s=2, speed_kmh=None))
    driver.crash(Crash.JOURNALLED)
    driver.advance("1m")
    assert [record.fields["event_id"] for record in driver.clean()] == ["truck-1-1", "truck-1-2", "truck-1-3"]
    row = driver.table("vehicles.state.v1")["truck-1"]
    assert (row["events"], row["speed_max_kmh"]) == (1, 40.0)


def test_a_flow_without_a_topic_of_clean_events_folds_them_all_the_same() -> None:
    cleaned = source(
        "gps.positions.v1.clean", key="device_id", fields=("latitude", "longitude", "speed_kmh"),
        subject="gps.positions.v1-value", out_of_orderness="5s",
    ).deduplicate("1h").reorder()  # fmt: skip
    driver = FlowDriver(Flow("rows_only", cleaned.fold(VehicleState(), to="vehicles.state.v1")))
    names = {topic.name for topic in driver.flow.pipeline.topics()}
    assert {"gps.positions.v1.clean", "gps.positions.v1.clean.late"} <= names
    assert "gps.positions.v1.clean.clean" not in names
    driver.feed(position(2, at_s=2), position(1, at_s=1), position(2, at_s=2))
    driver.advance("1m")
    assert driver.table("vehicles.state.v1")["truck-1"]["events"] == 2
    assert driver.clean() == []
