"""The same task as a Faust user would write it by the book: an agent per event, two RocksDB tables, an output topic.

aiokafka transport, fastavro through a codec of its own, a table of ids seen and one of vehicle states, both with the
changelog topic that Faust keeps; at least once; no reordering, no validation, no dead letters. It does less than
the worker, which is in its favour. Everything is Faust's default but the commit interval, shortened from 2.8 s so that
the end of a short run can be told. Configured by `BASELINE_*` variables; run with the argument `worker`.
"""

import io
import json
import math
import os
from typing import Any, Final

import fastavro
import faust
from faust.serializers.codecs import Codec

EARTH_RADIUS_KM: Final = 6371.0088
STOPPED_KMH_BELOW: Final = 3.0


class FramedAvro(Codec):
    """Confluent-framed Avro with one schema, whose id is already known."""

    def __init__(self, schema: Any, schema_id: int) -> None:
        super().__init__()
        self._schema = fastavro.parse_schema(schema)
        self._frame = b"\0" + schema_id.to_bytes(4, "big")

    def _loads(self, s: bytes) -> Any:
        return fastavro.schemaless_reader(io.BytesIO(s[5:]), self._schema, None)

    def _dumps(self, obj: Any) -> bytes:
        buffer = io.BytesIO(self._frame)
        buffer.seek(0, io.SEEK_END)
        fastavro.schemaless_writer(buffer, self._schema, obj)
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
    if speed is not None:
        row["speed_sum"] += speed
        row["speeds"] += 1
        row["speed_max_kmh"] = max(speed, row["speed_max_kmh"] or 0.0)
        if speed >= STOPPED_KMH_BELOW:
            row["stopped_since"] = None
        elif row["stopped_since"] is None:
            row["stopped_since"] = time_ms
    return row


def build(environment: dict[str, str]) -> faust.App:
    """The application, from `BASELINE_*` variables."""
    partitions = int(environment["BASELINE_PARTITIONS"])
    app = faust.App(
        environment["BASELINE_ID"],
        broker="kafka://" + environment["BASELINE_BOOTSTRAP"],
        store="rocksdb://",
        datadir=environment["BASELINE_DATA_DIR"],
        topic_partitions=partitions,
        topic_replication_factor=1,
        web_enabled=False,
        broker_commit_interval=0.5,
        consumer_auto_offset_reset="earliest",
    )
    avro = FramedAvro(json.loads(environment["BASELINE_SCHEMA"]), int(environment["BASELINE_SCHEMA_ID"]))
    source = app.topic(environment["BASELINE_SOURCE"], key_type=bytes, key_serializer="raw", value_serializer=avro)
    target = app.topic(environment["BASELINE_TARGET"], key_type=bytes, key_serializer="raw", value_serializer=avro)
    seen = app.Table("seen", partitions=partitions)
    vehicles = app.Table("vehicles", partitions=partitions)

    @app.agent(source)
    async def positions(stream: faust.StreamT) -> None:
        async for key, event in stream.items():
            if event["event_id"] in seen:
                continue
            seen[event["event_id"]] = 1
            device_id = event["device_id"]
            vehicles[device_id] = fold(vehicles.get(device_id), event)
            await target.send(key=key, value=event)

    return app


if __name__ == "__main__":
    build(dict(os.environ)).main()
