"""GPS positions: unique, ordered per device, folded into a row per vehicle and one per vehicle and minute.

`speed_kmh` is the speed over ground in km/h; null or a negative number (trackers send -1) when unknown.
"""

from logistics.folds.vehicle_minute import VehicleMinute
from logistics.folds.vehicle_state import VehicleState
from streams.flow.declaration import Pipeline, Table, Window

GPS = Pipeline(
    name="gps",
    source="gps.positions.v1",
    key_field="device_id",
    payload_fields=("latitude", "longitude", "speed_kmh", "heading_deg"),
    field_ranges={"latitude": (-90.0, 90.0), "longitude": (-180.0, 180.0)},
    tables=(Table("vehicles.state.v1", VehicleState()),),
    windows=(Window("vehicles.minutes.v1", VehicleMinute(), size_ms=60_000, grace_ms=30_000),),
)
