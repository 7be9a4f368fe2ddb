"""GPS positions: unique, ordered per device, folded into a row per vehicle and one per vehicle and minute.

`speed_kmh` is the speed over ground in km/h; null or a negative number (trackers send -1) when unknown.
"""

from logistics.folds.vehicle_minute import VehicleMinute
from logistics.folds.vehicle_state import VehicleState
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
    .window(VehicleMinute(), size="1m", grace="30s", to="vehicles.minutes.v1"),
)

GPS = flow.pipeline
