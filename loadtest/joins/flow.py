"""The app under measurement: each step of an order with the latest position of the vehicle that carries it.

The steps are those that the flow `dispatch` writes, by vehicle. Its topics are the benchmark's own.
"""

from typing import Any, Final

import numpy as np
import pyarrow as pa

from streams import Flow, join_latest, source
from streams.batch.columns import Objects
from streams.batch.rows import Rows

POSITIONS: Final = "bench.positions.v1"
STEPS: Final = "bench.steps.v1"
JOINED: Final = "bench.joined.v1"
POSITION_SUBJECT: Final = "gps.positions.v1-value"
STEP_SUBJECT: Final = "orders.bound.v1-value"
WITHIN_MS: Final = 600_000


def columns(keys: Objects, rows: Rows) -> pa.RecordBatch:
    """Public rows: which step, and where the vehicle was."""
    unknown = ~np.ascontiguousarray(rows["matched"])

    def texts(column: Any) -> pa.Array:
        return pa.array(column, pa.binary()).cast(pa.string())

    def numbers(name: str) -> pa.Array:
        return pa.array(np.ascontiguousarray(rows[name]), from_pandas=True)

    return pa.RecordBatch.from_pydict(
        {
            "event_id": texts(rows["event_id"]),
            "vehicle_id": texts(keys),
            "order_id": texts(rows["steps.order_id"]),
            "event_time": pa.array(np.ascontiguousarray(rows["event_time"])).cast(pa.timestamp("ms")),
            "position_time": pa.array(np.ascontiguousarray(rows["positions.event_time"]), mask=unknown).cast(
                pa.timestamp("ms")
            ),
            "latitude": numbers("positions.latitude"),
            "longitude": numbers("positions.longitude"),
            "speed_kmh": numbers("positions.speed_kmh"),
        }
    )


positions = (
    source(
        POSITIONS, subject=POSITION_SUBJECT, key="device_id", fields=("latitude", "longitude", "speed_kmh"), idle="1s"
    )
    .deduplicate("24h")
    .reorder()
)
steps = source(STEPS, subject=STEP_SUBJECT, key="bound_to", texts=("order_id",), idle="1s").deduplicate("24h").reorder()
flow = Flow(
    "join",
    join_latest(steps=steps, positions=positions, within=f"{WITHIN_MS}ms", to=JOINED, columns=columns, outer=True),
)
