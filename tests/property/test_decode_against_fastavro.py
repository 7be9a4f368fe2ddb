"""Decoding against fastavro: whatever was written with whatever schema, the columns hold what fastavro resolves."""

import io
import json
import math
import struct
from collections.abc import Callable
from typing import Any

import fastavro
import numpy as np
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from loadtest.oracle.model import Event, classify
from logistics.flows.gps import GPS
from streams.avro.resolve import IncompatibleSchema, Plan, build_plan
from streams.batch.columns import Headers
from streams.batch.records import Records
from streams.schemas.catalog import Catalog
from tests.examples import examples
from tests.twin import TwinDecoder

SCHEMA_ID = 77
FRAME = b"\0" + SCHEMA_ID.to_bytes(4, "big")
SKEW_MS_MAX = 60_000
RECORD_BYTES_MAX = 1 << 20
READER_TEXT = Catalog.load().latest("gps.positions.v1-value").text
READER = json.loads(READER_TEXT)
for _field in READER["fields"]:
    if isinstance(_field["type"], dict):
        _field["type"] = _field["type"]["type"]  # the logical type off: a timestamp is its number
PARSED_READER = fastavro.parse_schema(READER)

SIMPLE = ("int", "long", "float", "double", "string", "boolean")
UNUSUAL = (
    "bytes",
    ["null", "bytes"],
    ["string", "long"],
    ["null", "string", "long"],
    {"type": "array", "items": "long"},
    {"type": "map", "values": "string"},
    {"type": "enum", "name": "Kind", "symbols": ["A", "B"]},
    {"type": "fixed", "name": "Four", "size": 4},
    {"type": "record", "name": "Part", "fields": [{"name": "n", "type": "int"}]},
)
USUAL = {
    "event_id": ("string",),
    "device_id": ("string",),
    "sequence": ("long", "int"),
    "event_time": ("long", {"type": "long", "logicalType": "timestamp-millis"}, "int"),
}
NUMBERS = ("double", "float", "long", "int")
NULLABLE = (["null", "double"], ["double", "null"], ["null", "float"], ["null", "long"], "double", "int")


@st.composite
def writers(draw: st.DrawFn, *, unusual: bool = True) -> dict[str, Any]:
    """Schemas near the reader's: fields promoted, made nullable, moved, left out, added; some are impossible."""
    fields = []
    for field in READER["fields"]:
        name = field["name"]
        usual: Any = USUAL.get(name) or (NULLABLE if "default" in field else NUMBERS)
        chance = draw(st.integers(0, 59))
        if "default" in field and chance % 3 == 0:
            continue
        if unusual and chance == 1:
            continue
        kind = draw(st.sampled_from(usual))
        if unusual and chance == 2:
            kind = draw(st.sampled_from([*SIMPLE, *UNUSUAL]))
        if unusual and chance == 4 and isinstance(kind, str):
            kind = ["null", kind]
        fields.append({"name": name, "type": kind})
    extra = st.sampled_from([*SIMPLE, *(["null", kind] for kind in SIMPLE), *(UNUSUAL if unusual else ())])
    kinds = draw(st.lists(extra, max_size=2, unique_by=str))
    fields += [{"name": f"extra_{i}", "type": kind} for i, kind in enumerate(kinds)]
    for field in fields:  # a name is defined once in a schema
        kind = field["type"]
        if isinstance(kind, dict) and "name" in kind:
            field["type"] = {**kind, "name": f"{kind['name']}_{field['name']}"}
    name = draw(st.sampled_from(("GpsPosition",) * 9 + ("Other",))) if unusual else "GpsPosition"
    return {"type": "record", "name": name, "namespace": "logistics", "fields": draw(st.permutations(fields))}


PRIMITIVE = {
    "null": st.none(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32),
    "double": st.floats(),
    "string": st.text(max_size=12),
    "bytes": st.binary(max_size=12),
    "boolean": st.booleans(),
}
LIKELY = {
    "event_id": st.uuids().map(str) | st.text(min_size=1, max_size=40),
    "device_id": st.sampled_from(("d1", "é")),
    "sequence": st.integers(0, 300),
    "event_time": st.integers(0, 2**31 - 1),
    "latitude": st.integers(-90, 90),
    "longitude": st.integers(-180, 180),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, str):
        return PRIMITIVE[kind]
    if isinstance(kind, list):
        return st.sampled_from(kind).flatmap(values)
    complex_types: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "array": lambda: st.lists(values(kind["items"]), max_size=3),
        "map": lambda: st.dictionaries(st.text(max_size=3), values(kind["values"]), max_size=3),
        "enum": lambda: st.sampled_from(kind["symbols"]),
        "fixed": lambda: st.binary(min_size=kind["size"], max_size=kind["size"]),
        "record": lambda: st.fixed_dictionaries({field["name"]: values(field["type"]) for field in kind["fields"]}),
    }
    made = complex_types.get(kind["type"])
    return values(kind["type"]) if made is None else made()


def value_of(field: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that may become an event, or any value of the type."""
    kind = field["type"]["type"] if isinstance(field["type"], dict) else field["type"]
    likely = LIKELY.get(field["name"])
    if likely is None or kind not in ("string", "int", "long", "float", "double"):
        return values(field["type"])
    if (kind == "string") != (field["name"] in ("event_id", "device_id")):
        return values(field["type"])
    return st.integers(0, 9).flatmap(lambda chance: likely if chance else values(kind))


def encode(writer: dict[str, Any], datum: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(writer), datum)
    return stream.getvalue()


def resolved(writer: dict[str, Any], body: bytes) -> dict[str, Any] | str:
    """The record as fastavro resolves it, or the reason why there is none; as a whole it is one of the writer's."""
    stream = io.BytesIO(body)
    try:
        fastavro.schemaless_reader(stream, fastavro.parse_schema(plain(writer)), handle_unicode_errors="ignore")
        if stream.tell() != len(body):
            return "malformed"
        stream.seek(0)
        record = fastavro.schemaless_reader(stream, fastavro.parse_schema(plain(writer)), PARSED_READER)
    except fastavro.read.SchemaResolutionError:
        return "incompatible_schema"
    except Exception:  # noqa: BLE001 - whatever it says of garbage
        return "malformed"
    return record if stream.tell() == len(body) else "malformed"


def plain(writer: dict[str, Any]) -> dict[str, Any]:
    kinds = ((field, field["type"]) for field in writer["fields"])
    fields = [
        {**field, "type": kind["type"] if isinstance(kind, dict) and "logicalType" in kind else kind}
        for field, kind in kinds
    ]
    return {**writer, "fields": fields}


def expected(writer: dict[str, Any], bodies: list[bytes], key: bytes, timestamp: int) -> dict[int, Any]:
    """Row to the event's fields or the reject's reason, by fastavro and the oracle's rules."""
    result = {}
    for row, body in enumerate(bodies):
        record = resolved(writer, body)
        if isinstance(record, dict):
            columns = (record[field["name"]] for field in READER["fields"][:8])
            event_id, device_id, sequence, time, *doubles = columns
            latitude, longitude, speed, heading = doubles
            event = Event(
                row, timestamp, key, event_id, device_id, sequence, time, latitude, longitude, speed, body, heading
            )
            reason = classify(event, skew_ms_max=SKEW_MS_MAX, record_bytes_max=RECORD_BYTES_MAX)
            fields = (event_id.encode(), device_id.encode(), sequence, time, *map(bits, doubles))
            result[row] = reason if reason is not None else fields
        else:
            result[row] = record
    return result


def bits(number: float | None) -> bytes | None:
    """A double by its bits; null is None, as is the NaN that stands for it."""
    if number is None or math.isnan(number):
        return None
    return struct.pack("<d", number)


def decoded(
    decoder: TwinDecoder, plan: Plan, bodies: list[bytes], key: bytes, timestamp: int, *, framed: bool = True
) -> dict[int, Any]:
    """Row to what the decoder makes of it."""
    values = [FRAME + body for body in bodies] if framed else list(bodies)
    count = len(bodies)
    headers: list[Headers | None] | None = None if framed else [[("__value_schema_id", FRAME)]] * count
    times = np.full(count, timestamp, dtype=np.int64)
    records = Records(np.zeros(count, np.int64), np.arange(count), times, [key] * count, [*values], headers)
    result = decoder.decode(records, {SCHEMA_ID: plan})
    assert result.unresolved == {}
    found: dict[int, Any] = {reject.row: reject.reason.value for reject in result.rejects}
    assert [reject.row for reject in result.rejects] == sorted(found)
    events = result.events
    assert events.row.tolist() == sorted(set(range(count)) - found.keys())
    for i, row in enumerate(events.row.tolist()):
        assert events.value[i] == values[row]
        doubles = [bits(number) for number in events.payload[:, i].tolist()]
        found[row] = (events.event_id[i], events.key[i], int(events.sequence[i]), int(events.event_time[i]), *doubles)
    return found


def decoder() -> TwinDecoder:
    return TwinDecoder(GPS, record_bytes_max=RECORD_BYTES_MAX, skew_ms_max=SKEW_MS_MAX)


TIMESTAMP = 2**31
QUICK = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    max_examples=examples(150),
    phases=[Phase.explicit, Phase.generate],
)


def a_batch(data: st.DataObject, writer: dict[str, Any], *, size_max: int = 30) -> list[bytes]:
    datum = st.fixed_dictionaries({field["name"]: value_of(field) for field in writer["fields"]})
    return [encode(writer, one) for one in data.draw(st.lists(datum, min_size=1, max_size=size_max))]


@QUICK
@given(writers(), st.data())
def test_any_writer_schema_gives_what_fastavro_resolves(writer: dict[str, Any], data: st.DataObject) -> None:
    bodies = a_batch(data, writer)
    reference = expected(writer, bodies, b"d1", TIMESTAMP)
    try:
        plan = build_plan(SCHEMA_ID, json.dumps(writer), READER_TEXT)
    except IncompatibleSchema:
        nullable = any(isinstance(field["type"], list) for field in writer["fields"])
        assert nullable or set(reference.values()) <= {"incompatible_schema", "malformed"}
        return
    subject = decoder()
    for framed in (True, False, True):  # the third time as the schema that is usual
        assert decoded(subject, plan, bodies, b"d1", TIMESTAMP, framed=framed) == reference


def mutated(data: st.DataObject, body: bytes) -> bytes:
    match data.draw(st.integers(0, 4)):
        case 0:
            at = data.draw(st.integers(0, len(body) - 1))
            return body[:at] + bytes([data.draw(st.integers(0, 255))]) + body[at + 1 :]
        case 1:
            return body[: data.draw(st.integers(0, len(body) - 1))]
        case 2:
            return body + data.draw(st.binary(min_size=1, max_size=4))
        case 3:
            at = data.draw(st.integers(0, len(body)))
            return body[:at] + data.draw(st.binary(min_size=1, max_size=10)) + body[at:]
        case _:
            return data.draw(st.binary(max_size=60))


@QUICK
@given(writers(unusual=False), st.data())
def test_mutated_records_are_accepted_only_if_fastavro_accepts_them_and_cost_nobody_else(
    writer: dict[str, Any], data: st.DataObject
) -> None:
    plan = build_plan(SCHEMA_ID, json.dumps(writer), READER_TEXT)
    bodies = a_batch(data, writer, size_max=25)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(bodies) - 1))
        bodies[at] = mutated(data, bodies[at]) if bodies[at] else b"\xff"
    reference = expected(writer, bodies, b"d1", TIMESTAMP)
    subject = decoder()
    for _ in range(2):
        assert decoded(subject, plan, bodies, b"d1", TIMESTAMP) == reference


@QUICK
@given(writers(), st.data())
def test_mutated_records_of_unusual_schemas_never_crash(writer: dict[str, Any], data: st.DataObject) -> None:
    try:
        plan = build_plan(SCHEMA_ID, json.dumps(writer), READER_TEXT)
    except IncompatibleSchema:
        return
    bodies = [mutated(data, body) if body else b"\0" for body in a_batch(data, writer, size_max=5)]
    reference = expected(writer, bodies, b"d1", TIMESTAMP)
    assert decoded(decoder(), plan, bodies, b"d1", TIMESTAMP) == reference


@QUICK
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20))
@example([b"\x00\x00\x00\x00\x4d" + b"\xff" * 9 + b"\x01"])
def test_arbitrary_bytes_never_crash(values: list[bytes]) -> None:
    plan = build_plan(SCHEMA_ID, READER_TEXT, READER_TEXT)
    count = len(values)
    times = np.zeros(count, dtype=np.int64)
    records = Records(times, np.arange(count), times, [None] * count, [*values])
    result = decoder().decode(records, {SCHEMA_ID: plan})
    waiting = [row for rows in result.unresolved.values() for row in rows]
    rejected = [reject.row for reject in result.rejects]
    assert sorted([*waiting, *rejected, *result.events.row.tolist()]) == list(range(count))


@QUICK
@given(st.data(), st.binary(min_size=1, max_size=3), st.integers(0, 40))
def test_trailing_bytes_are_always_malformed(data: st.DataObject, trailing: bytes, good: int) -> None:
    writer = json.loads(READER_TEXT)
    plan = build_plan(SCHEMA_ID, READER_TEXT, READER_TEXT)
    bodies = a_batch(data, writer, size_max=3)
    reference = expected(writer, bodies, b"d1", TIMESTAMP)
    mixed = [*bodies, *(bodies[:1] * good), bodies[0] + trailing]
    found = decoded(decoder(), plan, mixed, b"d1", TIMESTAMP)
    assert found[len(mixed) - 1] == "malformed"
    assert {row: found[row] for row in reference} == reference
