"""The same task as a Faust user would write it by the book: an agent per event, two RocksDB tables, an output topic.

aiokafka transport, fastavro through a codec of its own, a table of ids seen and one of vehicle states, both with the
changelog topic that Faust keeps; at least once; no reordering, no validation, no dead letters. It does less than
the worker, which is in its favour. Everything is Faust's default but the commit interval, shortened from 2.8 s so that
the end of a short run can be told. Configured by `BASELINE_*` variables; run with the argument `worker`.
"""

import json
import os
from typing import Any

import faust
from faust.serializers.codecs import Codec

from loadtest.baselines.vehicle import FramedAvro, fold


class AvroCodec(Codec):
    """A codec of Faust's for the events."""

    def __init__(self, avro: FramedAvro) -> None:
        super().__init__()
        self._avro = avro

    def _loads(self, s: bytes) -> Any:
        return self._avro.loads(s)

    def _dumps(self, obj: Any) -> bytes:
        return self._avro.dumps(obj)


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
    avro = AvroCodec(FramedAvro(json.loads(environment["BASELINE_SCHEMA"]), int(environment["BASELINE_SCHEMA_ID"])))
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
