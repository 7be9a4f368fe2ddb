"""The same task as a Quix Streams user would write it by the book: a streaming dataframe, stateful filter and update.

State is per message key, in RocksDB with the changelog topic that Quix keeps: the ids seen of a device, and its row. At
least once (its default); no reordering, no validation, no dead letters. It does less than the worker, which is in its
favour. Everything is its default but the commit interval, shortened from 5 s so that the end of a short run shows.
Configured by `BASELINE_*` variables; `BASELINE_GUARANTEE=exactly-once` commits in transactions. It runs in an
environment of its own (`requirements/baseline-quix.lock`) and imports nothing of the product.
"""

import json
import os
from typing import Any

from quixstreams import Application, State
from quixstreams.models import Deserializer, SerializationContext, Serializer

from loadtest.baselines.vehicle import FramedAvro, fold


class AvroDeserializer(Deserializer):
    """Framed Avro in."""

    def __init__(self, avro: FramedAvro) -> None:
        super().__init__()
        self._avro = avro

    def __call__(self, value: bytes, ctx: SerializationContext) -> Any:  # noqa: ARG002 - Quix's signature
        """Return the event of a message."""
        return self._avro.loads(value)


class AvroSerializer(Serializer):
    """Framed Avro out."""

    def __init__(self, avro: FramedAvro) -> None:
        super().__init__()
        self._avro = avro

    def __call__(self, value: Any, ctx: SerializationContext) -> bytes:  # noqa: ARG002 - as above
        """The record's value."""
        return self._avro.dumps(value)


def is_first(event: dict[str, Any], state: State) -> bool:
    """Whether the device has not sent this event before; from now on it has."""
    key = "seen-" + event["event_id"]
    if state.exists(key):
        return False
    state.set(key, 1)
    return True


def remember(event: dict[str, Any], state: State) -> None:
    """Bring the vehicle's row forward."""
    state.set("vehicle", fold(state.get("vehicle"), event))


def build(environment: dict[str, str]) -> Application:
    """The application, from `BASELINE_*` variables."""
    app = Application(
        environment["BASELINE_BOOTSTRAP"],
        consumer_group=environment["BASELINE_ID"],
        auto_offset_reset="earliest",
        commit_interval=0.5,
        state_dir=environment["BASELINE_DATA_DIR"],
        processing_guarantee=environment.get("BASELINE_GUARANTEE", "at-least-once"),
    )
    avro = FramedAvro(json.loads(environment["BASELINE_SCHEMA"]), int(environment["BASELINE_SCHEMA_ID"]))
    source = app.topic(
        environment["BASELINE_SOURCE"], key_deserializer="bytes", value_deserializer=AvroDeserializer(avro)
    )
    target = app.topic(environment["BASELINE_TARGET"], key_serializer="bytes", value_serializer=AvroSerializer(avro))
    positions = app.dataframe(source)
    positions = positions.filter(is_first, stateful=True)
    positions = positions.update(remember, stateful=True)
    positions.to_topic(target)
    return app


if __name__ == "__main__":
    build(dict(os.environ)).run()
