"""GPS positions of vehicles: unique, ordered per device, folded into one row per vehicle."""

from streams.pipelines.declaration import Pipeline, Table, Topic

GPS = Pipeline(
    name="gps",
    source="gps.positions.v1",
    key_field="device_id",
    payload_fields=("latitude", "longitude", "speed_kmh", "heading_deg"),
    field_ranges={"latitude": (-90.0, 90.0), "longitude": (-180.0, 180.0)},
    tables=(Table(aggregate="vehicle_state", topic="vehicles.state.v1", subject="vehicles.state.v1-value"),),
    further_topics=(Topic("vehicles.minutes.v1", subject="vehicles.minutes.v1-value"),),
)
