"""Pure, columnar operators: data in, data out. No Kafka, no Faust, no clock, no disk."""

from collections.abc import Callable

from streams.operators.aggregate import Aggregate
from streams.operators.vehicle_state import VehicleState

AGGREGATES: dict[str, Callable[[], Aggregate]] = {"vehicle_state": VehicleState}
"""Aggregates by the name that a pipeline's table declares."""
