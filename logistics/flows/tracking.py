"""Tracking: orders meet the positions of the vehicles that carry them.

Where each order is and when it will arrive, and whether the vehicle was at the destination when it was delivered. Reads
the steps of orders by vehicle, which the flow `dispatch` writes, and the clean positions of the flow `gps`.
"""

import pyarrow as pa
import pyarrow.compute as pc

from logistics.operators.dispatch import DELIVERED
from logistics.operators.tracking import ORDERS, POSITIONS, OrderTracking
from logistics.operators.tracking_rows import verified_rows
from streams import Flow, merge, source
from streams.batch.events import Fields
from streams.operators.join.latest import JoinLatest
from streams.operators.join.side import Side

WITHIN_MS = 600_000
"""How old a position may be that says where a vehicle is."""
GAP_MS = 300_000
"""A trip is over after so long without a position, as in `vehicles.trips.v1`."""

orders = (
    source(
        "orders.bound.v1",
        key="bound_to",
        fields=("kind", "destination_latitude", "destination_longitude", "promised_time"),
        texts=("order_id", "vehicle_id"),
        out_of_orderness="30s",
    )
    .deduplicate("24h")
    .reorder()
)
positions = (
    source(
        "gps.positions.v1.clean",
        subject="gps.positions.v1-value",
        key="device_id",
        fields=("latitude", "longitude"),
        out_of_orderness="5s",
    )
    .deduplicate("1h")
    .reorder()
)
merged = merge(**{ORDERS: orders, POSITIONS: positions})


def deliveries_and_positions(batch: pa.RecordBatch) -> pa.Array:
    """What a delivery is verified by: itself, and the positions of its vehicle."""
    is_delivery = pc.equal(batch.column(f"{ORDERS}.kind"), DELIVERED)
    return pc.or_kleene(pc.equal(batch.column("merge.input"), 1), is_delivery)


def _side(name: str) -> Side:
    read = (orders if name == ORDERS else positions).source
    return Side(name, Fields(read.fields, read.texts))


verified = JoinLatest(
    topic="deliveries.verified.v1",
    left=_side(ORDERS),
    right=_side(POSITIONS),
    columns=verified_rows,
    outer=True,
    within_ms=WITHIN_MS,
)

flow = Flow(
    "tracking",
    merged.process(OrderTracking("orders.tracking.v1", "vehicles.orders.v1", WITHIN_MS, GAP_MS)),
    merged.filter(deliveries_and_positions).process(verified),
)

TRACKING = flow.pipeline
