"""Writers' schemas that are not the stream's own: references, unions, unread fields, other units and kinds, GUIDs."""

import copy
import io
import json
import time
import uuid
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Producer
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient

from logistics.flows.gps import GPS
from streams.avro.resolve import without_logical_types
from streams.local.stack import Stack
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry, UnknownSchema, UnusableSchema
from tests.integration.kafka_helpers import committed_records, decoded, headers_of, settings_of
from tests.integration.workers import fresh_world, read, wait_drained, workers

pytestmark = pytest.mark.kafka

NOW = int(time.time() * 1000) - 600_000
POSITION: dict[str, Any] = json.loads(Catalog.load().latest(GPS.subject).text)
COUNTRY = {"type": "enum", "name": "Country", "namespace": "logistics", "symbols": ["AT", "DE", "CZ"]}
SIM = {
    "type": "record",
    "name": "Sim",
    "namespace": "logistics",
    "fields": [{"name": "operator", "type": "string"}, {"name": "home", "type": "logistics.Country"}],
}
YARD = {
    "type": "record",
    "name": "Yard",
    "namespace": "logistics",
    "fields": [{"name": "code", "type": "string"}, {"name": "country", "type": "logistics.Country"}],
}
ORDER = {"type": "record", "name": "Order", "namespace": "logistics", "fields": [{"name": "id", "type": "string"}]}


class Subjects:
    """Registers schemas under subjects of this test, with what they refer to."""

    def __init__(self, stack: Stack) -> None:
        self._client = SchemaRegistryClient({"url": stack.registry_url})

    def register(self, name: str, schema: Any, *references: tuple[str, str], kind: str = "AVRO") -> int:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        named = [SchemaReference(type_name, f"tests.writers-{subject}", 1) for type_name, subject in references]
        return self._client.register_schema(f"tests.writers-{name}", Schema(text, kind, named))


def with_field(name: str, kind: Any) -> dict[str, Any]:
    schema = copy.deepcopy(POSITION)
    schema["fields"].append({"name": name, "type": kind})
    return schema


def with_time(kind: Any) -> dict[str, Any]:
    schema = copy.deepcopy(POSITION)
    for field in schema["fields"]:
        if field["name"] == "event_time":
            field["type"] = kind
    return schema


def encoded(schema: Any, **values: Any) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(without_logical_types(schema)), position(**values))
    return stream.getvalue()


def position(device: str, event_time: int = NOW, **more: Any) -> dict[str, Any]:
    return {
        "event_id": str(uuid.uuid4()), "device_id": device, "sequence": 0, "event_time": event_time,
        "latitude": 48.25, "longitude": 11.5, "speed_kmh": 50.0, "heading_deg": None, "altitude_m": None, **more,
    }  # fmt: skip


def framed(schema_id: int, body: bytes) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + body


def test_schemas_of_every_kind_are_read_or_refused_in_words(stack: Stack, tmp_path: Path) -> None:
    probe = fresh_world(stack)
    subjects = Subjects(stack)
    own = Registry(settings_of(stack)).lookup(GPS.subject, Catalog.load().latest(GPS.subject).text)
    subjects.register("country", COUNTRY)
    subjects.register("sim", SIM, ("logistics.Country", "country"))
    subjects.register("yard", YARD, ("logistics.Country", "country"))
    diamond = with_field("sim", ["null", "logistics.Sim"])
    diamond["fields"].append({"name": "yard", "type": ["null", "logistics.Yard"], "default": None})
    diamond_id = subjects.register("diamond", diamond, ("logistics.Sim", "sim"), ("logistics.Yard", "yard"))
    written_out = copy.deepcopy(diamond)
    written_out["fields"][-2]["type"] = [
        "null",
        {**SIM, "fields": [SIM["fields"][0], {"name": "home", "type": COUNTRY}]},
    ]
    written_out["fields"][-1]["type"] = ["null", YARD]
    union_id = subjects.register("union", [ORDER, POSITION])
    noted = with_field("note", "string")
    noted_id = subjects.register("noted", noted)
    micros = with_time({"type": "long", "logicalType": "timestamp-micros"})
    days = with_time({"type": "int", "logicalType": "date"})
    proto = 'syntax = "proto3"; message Position { string id = 1; }'

    sim, yard = {"operator": "x", "home": "AT"}, {"code": "Y1", "country": "CZ"}
    good = {
        "references": framed(diamond_id, encoded(written_out, device="references", sim=sim, yard=yard)),
        "union": framed(union_id, b"\x02" + encoded(POSITION, device="union")),
        "unread": framed(noted_id, encoded(noted, device="unread", note="whole")),
    }
    micros_id, days_id = subjects.register("micros", micros), subjects.register("days", days)
    proto_id = subjects.register("proto", proto, kind="PROTOBUF")
    json_id = subjects.register("json", '{"type": "object", "properties": {"id": {"type": "string"}}}', kind="JSON")
    bad = {
        "cut": (framed(noted_id, encoded(noted, device="cut", note="not whole")[:-4]), "malformed", "", noted_id),
        "micros": (framed(micros_id, encoded(micros, device="micros", event_time=NOW * 1_000)), "incompatible_schema",
                   "field 'event_time' is written as timestamp-micros, read as timestamp-millis", micros_id),
        "days": (framed(days_id, encoded(days, device="days", event_time=20_000)), "incompatible_schema",
                 "field 'event_time' is written as date, read as timestamp-millis", days_id),
        "order": (framed(union_id, b"\0\x02x"), "incompatible_schema", "the record is of 'Order'", union_id),
        "proto": (framed(proto_id, b"\0\x0a\x01x"), "incompatible_schema", "is Protobuf, not Avro", proto_id),
        "json": (framed(json_id, b'{"id":"x"}'), "incompatible_schema", "is JSON Schema, not Avro", json_id),
        "latitude": (framed(own, encoded(POSITION, device="latitude", latitude=91.0)), "invalid", "latitude", own),
        "other key": (framed(own, encoded(POSITION, device="car")), "key_mismatch", "", own),
        "bare": (encoded(POSITION, device="bare"), "not_framed", "", None),
    }  # fmt: skip
    guid: list[tuple[str, str | bytes | None]] = [("__value_schema_id", b"\x01" + uuid.uuid4().bytes)]
    producer = Producer(
        {"bootstrap.servers": stack.bootstrap_servers, "partitioner": "murmur2_random", "enable.idempotence": True}
    )
    for key, value in [*good.items(), *((key, sent[0]) for key, sent in bad.items())]:
        producer.produce(GPS.source, value, key)
    producer.produce(GPS.source, encoded(POSITION, device="guid"), "guid", headers=guid)
    assert producer.flush(30) == 0
    with workers(stack, tmp_path, "writers") as (worker,):
        worker.start().wait_ready()
        wait_drained(probe, worker)

    clean = {(record.key or b"").decode(): record.value for record in committed_records(stack, GPS.clean)}
    assert clean == good
    rows = {
        row["device_id"]: row
        for row in decoded(committed_records(stack, "vehicles.state.v1"), "vehicles.state.v1-value")
    }
    assert {device: row["last_event_time"] for device, row in rows.items()} == dict.fromkeys(good, NOW)
    letters = {(letter.key() or b"").decode(): dict(headers_of(letter)) for letter in read(stack, GPS.dlq)}
    assert letters.keys() == {*bad, "guid"}
    for key, (_, reason, message, schema_id) in bad.items():
        headers = {name: (value or b"").decode() for name, value in letters[key].items()}
        assert headers["dlq.reason"] == reason, key
        assert message in headers["__streams.errors.message"], key
        assert headers["dlq.schema_id"] == ("" if schema_id is None else str(schema_id)), key
    assert letters["guid"]["dlq.reason"] == b"unknown_schema"
    assert b"does not look schemas up by GUID" in (letters["guid"]["__streams.errors.message"] or b"")


def test_what_the_registry_has_is_resolved_for_whoever_asks(stack: Stack) -> None:
    subjects, registry = Subjects(stack), Registry(settings_of(stack))
    subjects.register("country", COUNTRY)
    schema_id = subjects.register("sim", SIM, ("logistics.Country", "country"))
    [version] = registry.registered("tests.writers-sim")
    assert [(each.name, each.subject, each.version) for each in version.references] == [
        ("logistics.Country", "tests.writers-country", 1)
    ]
    text = registry.resolve(version)
    assert json.loads(text) == json.loads(registry.schema_by_id(schema_id))
    assert json.loads(text)["fields"][1]["type"]["symbols"] == COUNTRY["symbols"]
    proto = subjects.register("proto", 'syntax = "proto3"; message Position { string id = 1; }', kind="PROTOBUF")
    with pytest.raises(UnusableSchema, match=f"schema {proto} is Protobuf, not Avro"):
        registry.schema_by_id(proto)
    [version] = registry.registered("tests.writers-proto")
    with pytest.raises(UnusableSchema, match="version 1 is Protobuf, not Avro"):
        registry.resolve(version, "tests.writers-proto version 1")
    with pytest.raises(UnknownSchema, match="does not look schemas up by GUID"):
        registry.id_of_guid(str(uuid.uuid4()))
