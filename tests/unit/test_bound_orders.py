"""Simulated orders that are bound to simulated vehicles: delivered where these are, but for the share that is not."""

import math
from collections import Counter
from functools import partial

import pytest

from loadtest.fleet import Fleet, Positions
from loadtest.fleet.bound_orders import ELSEWHERE, BoundOrders
from loadtest.fleet.mix import NOTHING, Bounds, Schemas
from loadtest.generator.command import _refuse_what_is_not_bound
from loadtest.generator.plan import Share, Traffic, plan_history, plan_open_loop, plan_vehicles
from loadtest.oracle.order_flows import DispatchModel, Position, Step, TrackingModel, merged, position_of, step_of
from streams.errors import UsageError
from tests.unit.test_fleet import GPS, ORDERS, ORDERS_SCHEMA, SCHEMA, START_MS, Row

pytestmark = pytest.mark.thorough

SEED, VEHICLES, PLACES, ORDER_TICK_MS = 5, 40, 60, 30_000


def traffic(schema: str, per_tick: float) -> Traffic:
    return Traffic(NOTHING, Schemas(schema, 7), Bounds(), per_tick, seed=SEED)


def rows_of(fleet: Fleet, records: int) -> list[Row]:
    return [
        row
        for batch in fleet.batches(records)
        for row in zip(batch.keys, batch.values, batch.timestamps_ms, batch.kinds.tolist(), strict=True)
    ]


def logs(seconds: int) -> tuple[list[Row], list[Row]]:
    """Records of orders and positions of so many seconds."""
    positions = traffic(SCHEMA, 1.0)
    plan = plan_history(positions, Share(), events=seconds * VEHICLES, now_ms=0, start_ms=START_MS, devices=VEHICLES)
    orders = traffic(ORDERS_SCHEMA, BoundOrders.events_per_tick)
    count = round(seconds * 1_000 / ORDER_TICK_MS * PLACES * BoundOrders.events_per_tick)
    bound = plan_history(
        orders, Share(), events=count, now_ms=0, start_ms=START_MS, devices=PLACES, tick_ms=ORDER_TICK_MS
    )
    vehicles = plan_vehicles(positions, start_ms=START_MS, rate=None, devices=VEHICLES)
    source = partial(BoundOrders, vehicles=vehicles)
    return (
        rows_of(Fleet(bound.seed, bound.shape, source), count),
        rows_of(Fleet(plan.seed, plan.shape, Positions), seconds * VEHICLES),
    )


def test_most_orders_are_delivered_where_their_vehicle_is_and_some_too_late() -> None:
    orders, positions = logs(seconds=1_800)
    assert orders == logs(seconds=1_800)[0]
    dispatch, tracking = DispatchModel(), TrackingModel()
    for event in ORDERS.events(orders):
        dispatch.add(step_of(event), -math.inf)
    bound = [
        Step(
            row["event_time"], f"{number}", row["bound_to"], row["sequence"], row["event_time"], row["order_id"],
            row["kind"], row["vehicle_id"], row["destination_latitude"], row["destination_longitude"],
            row["promised_time"],
        )
        for number, row in enumerate(dispatch.bound)
    ]  # fmt: skip
    reports: list[Position] = [position_of(event) for event in GPS.events(positions)]
    assert {step.vehicle_id for step in bound if step.vehicle_id} <= {one.key for one in reports}
    for one in merged([bound, reports], (30_000, 5_000)):
        tracking.add(one)
    because = Counter(row["because"] for row in tracking.verified)
    judged = because["NEAR"] + because["FAR"]
    assert judged > 400
    assert because["FAR"] / judged == pytest.approx(ELSEWHERE, abs=0.05)
    late = Counter(row["reason"] for row in dispatch.overdue)["DELIVERED_LATE"]
    assert 0.1 < late / len(tracking.verified) < 0.4
    risks = Counter(row["risk"] for row in tracking.tracking)
    assert min(risks.get(risk, 0) for risk in ("ON_TIME", "AT_RISK", "LATE")) > 100


def test_vehicles_of_open_loop_are_those_of_its_plan() -> None:
    positions = traffic(SCHEMA, 1.0)
    plan = plan_open_loop(positions, Share(), rate=900, seconds=None, start_ms=START_MS, devices=None)
    found = plan_vehicles(positions, start_ms=START_MS, rate=900, devices=None)
    assert (found.devices, found.tick_ms) == (plan.shape.devices, plan.shape.tick_ms)


@pytest.mark.parametrize(("pipeline", "has_start", "of"), [("gps", True, 1), ("orders", False, 1), ("orders", True, 2)])
def test_orders_that_cannot_meet_their_vehicles_are_refused(pipeline: str, has_start: bool, of: int) -> None:
    with pytest.raises(UsageError, match="--vehicles"):
        _refuse_what_is_not_bound(pipeline, is_bound=True, has_start=has_start, of=of)
