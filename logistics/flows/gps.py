"""GPS positions: unique, ordered per device, folded into a row per vehicle, per vehicle and minute, and per trip.

A trip is over when a vehicle has sent no position for five minutes of event time.

`speed_kmh` is the speed over ground in km/h; null or a negative number (trackers send -1) when unknown.
"""

from logistics.folds.vehicle_minute import VehicleMinute
from logistics.folds.vehicle_state import VehicleState
from logistics.folds.vehicle_trip import VehicleTrip
from streams import Flow, source

positions = (
    source(
        "gps.positions.v1",
        key="device_id",
        fields=("latitude", "longitude", "speed_kmh", "heading_deg"),
        ranges={"latitude": (-90.0, 90.0), "longitude": (-180.0, 180.0)},
        out_of_orderness="5s",
    )
    .deduplicate("24h")
    .reorder()
)

flow = Flow(
    "gps",
    positions.to("gps.positions.v1.clean")
    .fold(VehicleState(), to="vehicles.state.v1")
    .window(VehicleMinute(), size="1m", grace="30s", to="vehicles.minutes.v1")
    .session(VehicleTrip(), gap="5m", grace="30s", to="vehicles.trips.v1"),
)

GPS = flow.pipeline
