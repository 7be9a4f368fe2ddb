"""Stages of a flow: events go on under another key, exactly once, and meet what has that key."""

import random
from pathlib import Path

import pytest

from streams import Flow
from streams.flow.topics import Cleanup
from streams.kafka.partitioner import partition_of
from streams.testing import Crash, FlowDriver
from tests.staged import INTERNAL, PLACED, order, orders_of, position, schemas_of, tracking


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    return schemas_of(tmp_path)


def placed(driver: FlowDriver) -> set[tuple[str, str, float | None]]:
    found = [record.fields for record in driver.read(PLACED)]
    rows = {(row["vehicle_id"], row["order_id"], row["speed"]) for row in found}
    assert len(rows) == len(found)
    return rows


def test_orders_meet_the_vehicle_that_they_name(schemas: Path) -> None:
    driver = FlowDriver(tracking(), schemas=schemas, partitions=3)
    driver.feed(*(position(f"v{number % 5}", 100 + number) for number in range(20)), of="positions")
    driver.feed(*(order(number, f"v{number % 6}", 130) for number in range(12)), order(12, None, 130), of="orders")
    driver.feed(order(3, "v3", 130), of="orders")
    driver.advance("1m")
    speeds = {f"v{number % 5}": 100.0 + number for number in range(20)}
    assert placed(driver) == {
        *((f"v{number % 6}", f"order-{number}", speeds.get(f"v{number % 6}")) for number in range(12)),
        ("", "order-12", None),
    }
    moved = driver.read(INTERNAL)
    assert len(moved) == 13
    assert all(record.partition == partition_of(record.key or b"", 3) for record in moved)
    assert {(record.key or b"").decode() for record in moved} == {*(f"v{number}" for number in range(6)), "order-12"}
    assert all(record.fields["order_id"].startswith("order-") for record in moved)
    assert driver.dead_letters() == []
    assert driver.late() == []


@pytest.mark.parametrize("seed", [1])
def test_crashes_in_either_stage_double_and_lose_nothing(schemas: Path, seed: int) -> None:
    rng = random.Random(seed)
    driver = FlowDriver(tracking(), schemas=schemas, partitions=3)
    for step in range(6):
        at = 100 + step
        driver.feed(*(position(f"v{number}", at) for number in range(4)), of="positions")
        if rng.random() < 0.6:
            driver.crash(rng.choice(list(Crash)))
        driver.feed(*(order(10 * step + number, f"v{number % 4}", at) for number in range(10)), of="orders")
        if rng.random() < 0.3:
            driver.lose_disk()
    driver.advance("1m")
    # An order of the time of a position comes after it: the input that has the smaller id is the orders'.
    rows = placed(driver)
    assert {(vehicle, name) for vehicle, name, _ in rows} == {
        (f"v{number % 4}", f"order-{10 * step + number}") for step in range(6) for number in range(10)
    }
    assert len(rows) == 60


def test_a_stage_is_a_flow_whose_topic_is_kept_until_it_is_consumed() -> None:
    flow = tracking()
    (before,) = flow.stages
    assert (before.name, before.pipeline.group) == ("tracking-key_by-vehicle_id", "streams.tracking-key_by-vehicle_id")
    written, read = (
        next(topic for topic in pipeline.topics() if topic.name == INTERNAL)
        for pipeline in (before.pipeline, flow.pipeline)
    )
    assert written.cleanup is read.cleanup is Cleanup.DELETE_RECORDS_ONLY
    assert written.config() == read.config()
    assert read.subject == "orders.v1-value"
    assert flow.pipeline.with_prefix("t.").inputs[0].topic == "t." + INTERNAL
    assert before.pipeline.with_prefix("t.").event_outputs[-1] == "t." + INTERNAL


def test_stages_follow_each_other(schemas: Path) -> None:
    twice = orders_of(idle="2s").key_by("vehicle_id").key_by("order_id", name="back")
    flow = Flow("twice", twice.to("orders.again.v1"))
    assert [stage.name for stage in flow.stages] == ["twice-key_by-back-key_by-vehicle_id", "twice-key_by-back"]
    driver = FlowDriver(flow, schemas=schemas, partitions=2)
    driver.feed(*(order(number, f"v{number % 3}", 100 + number) for number in range(9)))
    driver.advance("1m")
    assert sorted((record.key or b"").decode() for record in driver.clean()) == [
        f"order-{number}" for number in range(9)
    ]


def test_what_cannot_be_a_key_is_refused_where_it_is_declared() -> None:
    with pytest.raises(ValueError, match=r"no such text field.*did you mean 'vehicle_id'"):
        orders_of().key_by("vehicle")
    with pytest.raises(ValueError, match="after map_batches"):
        orders_of().map_batches(len, name="sized").key_by("vehicle_id")
    twice = [orders_of().key_by("vehicle_id").to("a.v1"), orders_of().key_by("vehicle_id").to("b.v1")]
    with pytest.raises(ValueError, match="two steps are called key_by:vehicle_id"):
        Flow("twice", *twice)
