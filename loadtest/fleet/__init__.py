"""Seeded traffic (of GPS trackers, of orders), and its way into a topic."""

from typing import Final

from loadtest.fleet.fill import fill_topic, send_open_loop
from loadtest.fleet.fleet import Fleet
from loadtest.fleet.orders import Orders
from loadtest.fleet.positions import Positions
from loadtest.fleet.traffic import FleetShape, Kind, TrafficBatch

SOURCES: Final[dict[str, type[Positions] | type[Orders]]] = {"gps": Positions, "orders": Orders}
"""What a fleet sends, by flow."""

__all__ = [
    "SOURCES",
    "Fleet",
    "FleetShape",
    "Kind",
    "Orders",
    "Positions",
    "TrafficBatch",
    "fill_topic",
    "send_open_loop",
]
