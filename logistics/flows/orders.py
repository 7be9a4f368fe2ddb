"""Orders: every step of an order, unique and in order, folded into a row per order."""

from logistics.folds.order_state import OrderState
from streams.flow.declaration import Pipeline, Table

ORDERS = Pipeline(
    name="orders",
    source="orders.events.v1",
    key_field="order_id",
    payload_fields=("kind", "destination_latitude", "destination_longitude", "promised_time"),
    text_fields=("vehicle_id", "depot_id"),
    field_ranges={"destination_latitude": (-90.0, 90.0), "destination_longitude": (-180.0, 180.0)},
    tables=(Table("orders.state.v1", OrderState()),),
)
