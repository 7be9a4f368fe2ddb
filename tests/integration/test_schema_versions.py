"""Producers of several schema versions on one topic, ids in prefix and header: all flows, what is odd is counted."""

import io
import json
import time
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Producer

from loadtest.fleet.traffic import UNKNOWN_SCHEMA_ID
from logistics.flows.gps import GPS
from streams.avro.resolve import without_logical_types
from streams.local.stack import Stack
from streams.schemas.client import Registry
from tests.integration.kafka_helpers import committed_records, settings_of
from tests.integration.workers import fresh_world, position_schema, wait_drained, workers

pytestmark = pytest.mark.kafka

DEVICES = 7
ROUNDS = 6
START_MS = int(time.time() * 1000) - 600_000
NEWER_SUBJECT = "tests.newer-value"
CODES = {
    "type": "record",
    "name": "Codes",
    "fields": [{"name": "maker", "type": "string"}, {"name": "raw", "type": "bytes"}],
}
NEW_FIELDS = [
    {"name": "codes", "type": ["null", CODES], "default": None},
    {"name": "satellites", "type": {"type": "array", "items": "int"}, "default": []},
]
MISMATCHES = "streams_schema_mismatches_total"
UNEXPECTED = "streams_schema_unexpected_fields_total"


def newer(text: str) -> str:
    """A version that no worker knows yet: fields added, all others in another order, an int where a long was."""
    schema = json.loads(text)
    for field in schema["fields"]:
        if field["name"] == "sequence":
            field["type"] = "int"
    schema["fields"] = [*NEW_FIELDS, *reversed(schema["fields"])]
    return json.dumps(schema)


def position(number: int) -> dict[str, Any]:
    return {
        "event_id": f"event-{number}",
        "device_id": f"car-{number % DEVICES}",
        "sequence": number,
        "event_time": START_MS + number * 1_000,
        "latitude": 52.5,
        "longitude": 13.4,
        "speed_kmh": None if number % 2 else 50.0,
        "heading_deg": None,
        "altitude_m": 34.5,
        "codes": {"maker": "Acme", "raw": b"\xff\x00"},
        "satellites": list(range(number % 4)),
    }


def test_every_version_flows_and_what_is_odd_is_counted_by_schema_id(stack: Stack, tmp_path: Path) -> None:
    probe = fresh_world(stack)
    (first, first_id), (second, second_id) = (position_schema(stack, version) for version in (1, 2))
    third = newer(second)
    third_id = Registry(settings_of(stack)).register(NEWER_SUBJECT, third)
    producer = Producer(
        {"bootstrap.servers": stack.bootstrap_servers, "partitioner": "murmur2_random", "enable.idempotence": True}
    )
    sent = []
    for number in range(ROUNDS * 6):
        text, schema_id = ((first, first_id), (second, second_id), (third, third_id))[number % 3]
        stream = io.BytesIO()
        fastavro.schemaless_writer(
            stream, fastavro.parse_schema(without_logical_types(json.loads(text))), position(number)
        )
        frame = b"\0" + schema_id.to_bytes(4, "big")
        by_header = number % 6 >= 3
        value = stream.getvalue() if by_header else frame + stream.getvalue()
        headers: list[tuple[str, str | bytes | None]] | None
        headers = [("__value_schema_id", frame)] if by_header else [("trace", b"1")] if number % 2 else None
        key = f"car-{number % DEVICES}".encode()
        producer.produce(GPS.source, value, key, headers=headers)
        sent.append((key, value))
    for schema_id in (third_id, third_id, UNKNOWN_SCHEMA_ID):
        producer.produce(GPS.source, b"\0" + schema_id.to_bytes(4, "big") + b"\xff", b"car-1")
    assert producer.flush(30) == 0

    with workers(stack, tmp_path, "versions") as (worker,):
        worker.start().wait_ready()
        wait_drained(probe, worker)
        records = ROUNDS * 2
        counted = {
            f'{UNEXPECTED}{{field="codes",pipeline="gps",schema_id="{third_id}"}}': records,
            f'{UNEXPECTED}{{field="satellites",pipeline="gps",schema_id="{third_id}"}}': records,
            f'{MISMATCHES}{{pipeline="gps",reason="malformed",schema_id="{third_id}"}}': 2,
            f'{MISMATCHES}{{pipeline="gps",reason="unknown_schema",schema_id="{UNKNOWN_SCHEMA_ID}"}}': 1,
        }
        for name, count in counted.items():
            worker.wait_metric(name, count)
        assert len(worker.said("fields that the reader's schema does not know")) == 1
        assert (
            len([line for line in worker.said("do not match their schema") if f'"schema_id": {third_id}' in line]) == 1
        )
    clean = [(record.key, record.value) for record in committed_records(stack, GPS.clean)]
    assert sorted(clean) == sorted(sent)
    assert len(committed_records(stack, GPS.dlq)) == 3
