"""Orders: every step of an order, unique and in order, folded into a row per order."""

from logistics.folds.order_state import OrderState
from streams import Flow, source

events = (
    source(
        "orders.events.v1",
        key="order_id",
        fields=("kind", "destination_latitude", "destination_longitude", "promised_time"),
        texts=("vehicle_id", "depot_id"),
        ranges={"destination_latitude": (-90.0, 90.0), "destination_longitude": (-180.0, 180.0)},
        out_of_orderness="5s",
    )
    .deduplicate("24h")
    .reorder()
)

flow = Flow("orders", events.to("orders.events.v1.clean").fold(OrderState(), to="orders.state.v1"))

ORDERS = flow.pipeline
