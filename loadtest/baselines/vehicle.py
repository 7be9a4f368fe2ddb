"""The work of the baselines, an event at a time, in plain Python: framed Avro in and out, and a vehicle's row.

No imports but fastavro: each baseline runs in an environment of its own.
"""

import io
import math
from typing import Any, Final

import fastavro

EARTH_RADIUS_KM: Final = 6371.0088
STOPPED_KMH_BELOW: Final = 3.0


class FramedAvro:
    """Confluent-framed Avro with one schema, whose id is already known."""

    def __init__(self, schema: Any, schema_id: int) -> None:
        self._schema = fastavro.parse_schema(schema)
        self._frame = b"\0" + schema_id.to_bytes(4, "big")

    def loads(self, value: bytes) -> Any:
        """The event in a record's value."""
        return fastavro.schemaless_reader(io.BytesIO(value[5:]), self._schema, None)

    def dumps(self, event: Any) -> bytes:
        """A record's value with the event in it."""
        buffer = io.BytesIO(self._frame)
        buffer.seek(0, io.SEEK_END)
        fastavro.schemaless_writer(buffer, self._schema, event)
        return buffer.getvalue()


def _haversine_km(row: dict[str, Any], event: dict[str, Any]) -> float:
    phi_1, phi_2 = math.radians(row["latitude"]), math.radians(event["latitude"])
    half_dlambda = math.radians(event["longitude"] - row["longitude"]) / 2
    a = math.sin((phi_2 - phi_1) / 2) ** 2 + math.cos(phi_1) * math.cos(phi_2) * math.sin(half_dlambda) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(a)))


def fold(row: dict[str, Any] | None, event: dict[str, Any]) -> dict[str, Any]:
    """The vehicle's row after one more event."""
    time_ms = int(event["event_time"].timestamp() * 1000)
    if row is None:
        row = {"events": 0, "first_event_time": time_ms, "odometer_km": 0.0, "speed_sum": 0.0, "speeds": 0}
        row |= {"speed_max_kmh": None, "stopped_since": None}
    else:
        row = {**row, "odometer_km": row["odometer_km"] + _haversine_km(row, event)}
    row["events"] += 1
    row["last_event_time"] = time_ms
    row["last_sequence"] = event["sequence"]
    row["latitude"], row["longitude"] = event["latitude"], event["longitude"]
    speed = event["speed_kmh"]
    if speed is not None and speed >= 0:
        row["speed_sum"] += speed
        row["speeds"] += 1
        row["speed_max_kmh"] = max(speed, row["speed_max_kmh"] or 0.0)
        if speed >= STOPPED_KMH_BELOW:
            row["stopped_since"] = None
        elif row["stopped_since"] is None:
            row["stopped_since"] = time_ms
    return row
