"""What the demo says of the order that it follows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from streams.demo.order_watch import FollowedOrder, OrdersReading
from streams.demo.view import order_line

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
ON_ITS_WAY = FollowedOrder("o-1", "PICKED_UP", "truck-1", 3.21, NOW + timedelta(minutes=4), None, "ON_TIME")


@pytest.mark.parametrize(
    ("followed", "says"),
    [
        (ON_ITS_WAY, "order o-1: PICKED_UP by truck-1, 3.2 km to go, there in 4.0 min, ON_TIME"),
        (
            replace(ON_ITS_WAY, vehicle=None, distance_km=None, expected_arrival=None, risk="UNKNOWN"),
            "order o-1: PICKED_UP, UNKNOWN",
        ),
        (
            replace(ON_ITS_WAY, status="DELIVERED", verdict="NO", off_by_m=2_345.6),
            "order o-1: DELIVERED by truck-1, verified: NO, 2,346 m from its destination",
        ),
        (
            replace(ON_ITS_WAY, status="DELIVERED", verdict="UNKNOWN"),
            "order o-1: DELIVERED by truck-1, verified: UNKNOWN",
        ),
    ],
)
def test_an_order_is_one_line(followed: FollowedOrder, says: str) -> None:
    assert order_line(OrdersReading(1, {}, followed), NOW) == says


def test_without_an_order_on_its_way_the_counts_are_shown() -> None:
    assert order_line(OrdersReading(), NOW) == "orders: none on its way yet"
    assert order_line(OrdersReading(1_200, {"YES": 7, "NO": 1}), NOW) == (
        "orders: 1,200 rows; deliveries verified: 1 NO, 7 YES"
    )
