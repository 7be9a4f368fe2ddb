"""A flow of two stages: orders meet the vehicle that they name. Its schemas, and events to feed it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streams import Flow, join_latest, source
from streams.batch.columns import Objects
from streams.batch.rows import Rows
from streams.flow.builder import Stream

PLACED = "orders.placed.v1"
INTERNAL = "tracking.key_by.vehicle_id"


def orders_of(**options: Any) -> Stream:
    declared: dict[str, Any] = {"key": "order_id", "texts": ("vehicle_id",), "out_of_orderness": "2s"} | options
    return source("orders.v1", **declared).deduplicate("1h").reorder()


def positions_of() -> Stream:
    fields: Any = {"fields": ("speed",), "out_of_orderness": "2s", "idle": "2s"}
    return source("positions.v1", key="vehicle_id", **fields).deduplicate("1h").reorder()


def columns(keys: Objects, rows: Rows) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "vehicle_id": pa.array(keys, pa.binary()).cast(pa.string()),
            "order_id": pa.array(rows["orders.order_id"], pa.binary()).cast(pa.string()),
            "speed": pa.array(np.ascontiguousarray(rows["positions.speed"]), from_pandas=True),
        }
    )


def tracking(*, apart: str = "2s") -> Flow:
    """`apart`: how far events of one vehicle may be apart after `key_by`."""
    orders = orders_of(idle="2s").key_by("vehicle_id", out_of_orderness=apart)
    joined = join_latest(orders=orders, positions=positions_of(), within="10m", to=PLACED, columns=columns, outer=True)
    return Flow("tracking", joined)


def schemas_of(directory: Path) -> Path:
    """Schemas of the topics, below a directory."""
    common: list[dict[str, Any]] = [
        {"name": "event_id", "type": "string"},
        {"name": "sequence", "type": "long"},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ]
    maybe = {"type": ["null", "string"], "default": None}
    declared = {
        "orders.v1": [*common, {"name": "order_id", "type": "string"}, {"name": "vehicle_id", **maybe}],
        "positions.v1": [*common, {"name": "vehicle_id", "type": "string"}, {"name": "speed", "type": "double"}],
        PLACED: [
            {"name": "vehicle_id", "type": "string"}, {"name": "order_id", **maybe},
            {"name": "speed", "type": ["null", "double"]},
        ],
    }  # fmt: skip
    for topic, fields in declared.items():
        place = directory / f"{topic}-value"
        place.mkdir(parents=True)
        name = "".join(part.capitalize() for part in topic.split("."))
        (place / "1.avsc").write_text(
            json.dumps({"type": "record", "name": name, "namespace": "test", "doc": name, "fields": fields})
        )
    return directory


def order(number: int, vehicle: str | None, time_s: int) -> dict[str, Any]:
    return {
        "event_id": f"o{number}", "order_id": f"order-{number}", "vehicle_id": vehicle, "sequence": 1,
        "event_time": time_s * 1_000,
    }  # fmt: skip


def position(vehicle: str, time_s: int) -> dict[str, Any]:
    return {
        "event_id": f"{vehicle}-{time_s}", "vehicle_id": vehicle, "sequence": time_s, "event_time": time_s * 1_000,
        "speed": float(time_s),
    }  # fmt: skip
