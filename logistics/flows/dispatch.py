"""Dispatch: the steps of orders sent to the vehicles that carry them, and promises that were not kept.

Reads the clean events of the flow `orders`, by order; writes them by vehicle, so that they meet its positions in the
flow `tracking`.
"""

from logistics.operators.dispatch import Dispatch
from streams import Flow, source

events = (
    source(
        "orders.events.v1.clean",
        subject="orders.events.v1-value",
        key="order_id",
        fields=("kind", "destination_latitude", "destination_longitude", "promised_time"),
        texts=("vehicle_id",),
        out_of_orderness="5s",
    )
    .deduplicate("24h")
    .reorder()
)

flow = Flow("dispatch", events.process(Dispatch("orders.bound.v1", "orders.overdue.v1", "orders.dispatch.v1")))

DISPATCH = flow.pipeline
