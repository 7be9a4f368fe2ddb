"""What the fleet page of `streams monitor` shows of these flows."""

from logistics.flows.tracking import GAP_MS
from streams.flow.fleet_map import (
    Deliveries,
    FleetMap,
    LatePromises,
    Minutes,
    Orders,
    Positions,
    Trips,
    Vehicles,
)

fleet = FleetMap(
    positions=Positions("gps.positions.v1.clean"),
    vehicles=Vehicles("vehicles.state.v1"),
    minutes=Minutes("vehicles.minutes.v1"),
    trips=Trips("vehicles.trips.v1"),
    orders=Orders("orders.tracking.v1"),
    deliveries=Deliveries("deliveries.verified.v1"),
    late_promises=LatePromises("orders.overdue.v1"),
    silent_after_s=2 * GAP_MS / 1000,
)
