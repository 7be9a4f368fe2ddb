"""Seeded traffic of a fleet of GPS trackers, and its way into a topic."""

from loadtest.fleet.fill import fill_topic, send_open_loop
from loadtest.fleet.fleet import Fleet, FleetShape, Kind, TrafficBatch

__all__ = ["Fleet", "FleetShape", "Kind", "TrafficBatch", "fill_topic", "send_open_loop"]
