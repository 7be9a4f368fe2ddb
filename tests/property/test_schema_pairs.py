"""Generated pairs of schemas: what the gate accepts, the engine decodes, and to what fastavro resolves.

A schema is generated with every kind of type, then changed: fields added, removed, moved, promoted, renamed, made
nullable; symbols and branches likewise; at any depth. The changed one reads what was written with the first one.
"""

import copy
import io
import json
import math
import struct
from typing import Any

import fastavro
import numpy as np
from hypothesis import HealthCheck, Phase, event, given, reject, settings
from hypothesis import strategies as st

from streams.avro.resolve import IncompatibleSchema, Plan, build_plan, column_kind, unbounded, without_logical_types
from streams.batch.columns import Headers
from streams.batch.records import Records
from streams.flow.declaration import Pipeline
from streams.schemas.gate.compatibility import InvalidSchema, changed_meanings, misfits, parsed, texts_of_bytes
from tests.examples import examples
from tests.twin import TwinDecoder

SCHEMA_ID = 9
FRAME = b"\0" + SCHEMA_ID.to_bytes(4, "big")
PAYLOAD = ("value", "level", "kind", "flag")
THINGS = Pipeline(name="things", source="things.v1", payload_fields=PAYLOAD, text_fields=("label",))
PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "string", "bytes")
LOGICAL = (
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "int", "logicalType": "date"},
    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
    {"type": "string", "logicalType": "uuid"},
)
WIDER = {"int": ("long", "float", "double"), "long": ("float", "double"), "float": ("double",), "string": ("bytes",)}
QUICK = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    max_examples=examples(250),
    phases=[Phase.explicit, Phase.generate],
)


# --- schemas ----------------------------------------------------------------------------------------------------------


@st.composite
def types(draw: st.DrawFn, names: list[str], depth: int = 2) -> Any:
    """Any type; `names` counts the named ones."""
    kinds = ["primitive"] * 4 + ["logical", "enum", "fixed"] + (["record", "array", "map", "union"] if depth else [])
    match draw(st.sampled_from(kinds)):
        case "primitive":
            return draw(st.sampled_from(PRIMITIVES))
        case "logical":
            return copy.deepcopy(draw(st.sampled_from(LOGICAL)))
        case "enum":
            return {"type": "enum", "name": named(names), "symbols": ["A", "B", "C"][: draw(st.integers(1, 3))]}
        case "fixed":
            return {"type": "fixed", "name": named(names), "size": draw(st.sampled_from((1, 3, 4, 12, 16)))}
        case "record":
            return draw(records(names, depth - 1))
        case "array":
            return {"type": "array", "items": draw(types(names, depth - 1).filter(lambda kind: kind != "null"))}
        case "map":
            return {"type": "map", "values": draw(types(names, depth - 1))}
        case _:
            return draw(unions(names, depth - 1))


def named(names: list[str]) -> str:
    names.append(f"T{len(names)}")
    return names[-1]


@st.composite
def records(draw: st.DrawFn, names: list[str], depth: int) -> dict[str, Any]:
    name = named(names)
    inner = draw(st.lists(types(names, depth), min_size=1, max_size=3))
    return {"type": "record", "name": name, "fields": [{"name": f"f{i}", "type": kind} for i, kind in enumerate(inner)]}


@st.composite
def unions(draw: st.DrawFn, names: list[str], depth: int) -> list[Any]:
    found = draw(st.lists(types(names, depth), min_size=1, max_size=3))
    one_of_each = {key(kind): kind for kind in found if not isinstance(kind, list)}
    branches = draw(st.permutations([*one_of_each.values(), *(() if "null" in one_of_each else ["null"])]))
    return branches if len(branches) > 1 else ["null", "string"]


def key(kind: dict[str, Any] | str) -> str:
    """What may be in a union only once."""
    if isinstance(kind, dict):
        name: str = kind.get("name") or kind["type"]
        return name
    return kind if isinstance(kind, str) else "union"


@st.composite
def writers(draw: st.DrawFn) -> dict[str, Any]:
    """Events with everything that the pipeline reads, and more."""
    names: list[str] = []
    number = st.sampled_from(("int", "long", "float", "double"))
    nullable = number.map(lambda kind: ["null", kind]) | number.map(lambda kind: [kind, "null"]) | number
    kind = {"type": "enum", "name": "Kind", "symbols": ["A", "B", "C"][: draw(st.integers(1, 3))]}
    fields = [
        {"name": "event_id", "type": "string"},
        {"name": "device_id", "type": "string"},
        {"name": "sequence", "type": draw(st.sampled_from(("int", "long")))},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "value", "type": draw(number)},
        {"name": "level", "type": draw(nullable)},
        {"name": "kind", "type": draw(st.sampled_from((kind, ["null", kind])))},
        {"name": "flag", "type": "boolean"},
        {"name": "label", "type": ["null", "string"]},
    ]
    extra = draw(st.lists(types(names), max_size=3))
    fields += [{"name": f"extra_{i}", "type": each} for i, each in enumerate(extra)]
    if draw(st.booleans()) and any(isinstance(each, dict) and "name" in each for each in extra):
        again = next(each["name"] for each in extra if isinstance(each, dict) and "name" in each)
        fields.append({"name": "extra_again", "type": draw(st.sampled_from((again, ["null", again])))})
    return {"type": "record", "name": "Thing", "namespace": "tests", "fields": fields}


@st.composite
def changed(draw: st.DrawFn, schema: Any, *, top: bool = True) -> Any:
    """The type after some changes, most of them compatible."""
    chance = draw(st.integers(0, 29))
    if isinstance(schema, list):
        branches = [draw(changed(branch, top=False)) for branch in schema]
        branches = list({key(branch): branch for branch in branches if not isinstance(branch, list)}.values())
        if chance == 0 and len(branches) > 1:
            branches.pop()
        if chance in (1, 2) and "boolean" not in branches:
            branches.append("boolean")
        return draw(st.permutations(branches)) if chance == 3 else branches
    if isinstance(schema, str):
        if chance < 3 and schema in WIDER:
            return draw(st.sampled_from(WIDER[schema]))
        if chance == 3 and schema in PRIMITIVES and schema != "null":
            return ["null", schema]
        return draw(st.sampled_from(PRIMITIVES)) if chance == 4 and schema in PRIMITIVES else schema
    match schema["type"]:
        case "record":
            return draw(changed_record(schema, top=top))
        case "array":
            return {**schema, "items": draw(changed(schema["items"], top=False))}
        case "map":
            return {**schema, "values": draw(changed(schema["values"], top=False))}
        case "enum":
            return draw(changed_enum(schema))
        case "fixed":
            return {**schema, "size": 8} if chance == 0 else schema
        case _:
            return schema


@st.composite
def changed_enum(draw: st.DrawFn, schema: dict[str, Any]) -> dict[str, Any]:
    symbols = list(schema["symbols"])
    match draw(st.integers(0, 12)):
        case 0:
            symbols.append("D")
        case 1:
            symbols = symbols[:-1] or symbols
        case 2:
            return {**schema, "symbols": symbols[:1], "default": symbols[0]}
        case 3:
            symbols.reverse()
        case 4:
            return {**schema, "name": schema["name"] + "x", "aliases": [schema["name"]]}
    return {**schema, "symbols": symbols}


READ = {"event_id", "device_id", "sequence", "event_time", *PAYLOAD, "label"}


@st.composite
def changed_record(draw: st.DrawFn, schema: dict[str, Any], *, top: bool) -> dict[str, Any]:
    fields = []
    for field in schema["fields"]:
        name, chance = field["name"], draw(st.integers(0, 19))
        is_read = top and name in READ
        if chance == 0 and not is_read:
            continue
        kind = field["type"] if is_read and chance > 6 else draw(changed(field["type"], top=False))
        if chance == 1 and not is_read:
            fields.append({"name": f"{name}_new", "type": kind, "aliases": [name]})
            continue
        fields.append({"name": name, "type": kind})
    if draw(st.booleans()):
        fields.append(draw(st.sampled_from(ADDED)))
    return {**schema, "fields": draw(st.permutations(fields))}


ADDED = (
    {"name": "added", "type": ["null", "long"], "default": None},
    {"name": "added", "type": "string", "default": "?"},
    {"name": "added", "type": {"type": "array", "items": "long"}, "default": []},
    {"name": "added", "type": "long"},
)

# --- values -----------------------------------------------------------------------------------------------------------

VALUES = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "string": st.text(max_size=6),
    "bytes": st.binary(max_size=6),
}


def values(kind: Any, known: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a type, a branch of a union chosen by fastavro's tuple notation where it is named."""
    if isinstance(kind, list):
        return st.sampled_from(kind).flatmap(lambda branch: values(branch, known))
    if isinstance(kind, str):
        return VALUES[kind] if kind in VALUES else values(known[kind], known)
    match kind["type"]:
        case "record":
            return st.fixed_dictionaries({field["name"]: values(field["type"], known) for field in kind["fields"]})
        case "array":
            return st.lists(values(kind["items"], known), max_size=3)
        case "map":
            return st.dictionaries(st.text(max_size=3), values(kind["values"], known), max_size=3)
        case "enum":
            return st.sampled_from(kind["symbols"])
        case "fixed":
            return st.binary(min_size=kind["size"], max_size=kind["size"])
        case inner:
            return values(inner, known)


USUAL = {
    "event_id": st.text(min_size=1, max_size=10),
    "device_id": st.just("d"),
    "sequence": st.integers(0, 1000),
    "event_time": st.integers(0, 2**40),
}


def events(writer: dict[str, Any]) -> st.SearchStrategy[Any]:
    known: dict[str, Any] = {}
    collect(writer, known)
    fields = {
        field["name"]: USUAL[field["name"]] if field["name"] in USUAL else values(field["type"], known)
        for field in writer["fields"]
    }
    return st.lists(st.fixed_dictionaries(fields), min_size=1, max_size=5)


def collect(kind: object, known: dict[str, Any]) -> None:
    if isinstance(kind, list):
        for branch in kind:
            collect(branch, known)
    elif isinstance(kind, dict):
        if "name" in kind:
            known[kind["name"]] = kind
        for inner in (*(field["type"] for field in kind.get("fields", ())), kind.get("items"), kind.get("values")):
            collect(inner, known)


# --- the judge --------------------------------------------------------------------------------------------------------


def encoded(writer: dict[str, Any], datum: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(without_logical_types(writer)), datum)
    return stream.getvalue()


def resolved(writer: dict[str, Any], reader: dict[str, Any], body: bytes) -> dict[str, Any] | None:
    """The record as fastavro resolves it; None if it does not."""
    plain = (fastavro.parse_schema(without_logical_types(schema)) for schema in (writer, reader))
    try:
        record: dict[str, Any] = fastavro.schemaless_reader(io.BytesIO(body), *plain)
        return record
    except (fastavro.read.SchemaResolutionError, UnicodeDecodeError):
        return None


def columns_of(record: dict[str, Any], reader: dict[str, Any]) -> tuple[object, ...] | str:
    """What the pipeline takes from a resolved record, or the reason why it does not: a long that no double holds."""
    kinds = {field["name"]: column_kind(without_logical_types(field["type"])) for field in reader["fields"]}
    longs = [record[name] for name in PAYLOAD if kinds[name].startswith("long") and record[name] is not None]
    if any(abs(number) > 2**53 for number in longs):
        return "invalid"
    symbols = next(symbols_of(field["type"]) for field in reader["fields"] if field["name"] == "kind")
    numbers = []
    for name in PAYLOAD:
        value = record[name]
        numbers.append(None if value is None else float(symbols.index(value) if name == "kind" else value))
    label = record["label"]
    texts = (None if label is None else label.encode(),)
    return (record["event_id"].encode(), record["sequence"], record["event_time"], *map(bits, numbers), *texts)


def symbols_of(kind: Any) -> list[str]:
    return next(each["symbols"] for each in (kind if isinstance(kind, list) else [kind]) if isinstance(each, dict))


def bits(number: float | None) -> bytes | None:
    return None if number is None or math.isnan(number) else struct.pack("<d", number)


def decoded(plan: Plan, bodies: list[bytes], *, in_header: list[bool]) -> list[tuple[object, ...] | str]:
    """Row to what the decoder makes of it: the pipeline's columns, or the reason of the reject."""
    count = len(bodies)
    headers: list[Headers | None] = [[("__value_schema_id", FRAME)] if flag else None for flag in in_header]
    records = Records(
        np.zeros(count, np.int64),
        np.arange(count),
        np.full(count, 2**41),
        [b"d"] * count,
        [body if flag else FRAME + body for body, flag in zip(bodies, in_header, strict=True)],
        headers if any(in_header) else None,
    )
    found: dict[int, tuple[object, ...] | str] = {}
    decoder = TwinDecoder(THINGS, record_bytes_max=1 << 20, skew_ms_max=0)
    for _ in range(2):  # the second time as the usual schema
        result = decoder.decode(records, {SCHEMA_ID: plan})
        found = {reject.row: str(reject.reason.value) for reject in result.rejects}
        got = result.events
        for i, row in enumerate(got.row.tolist()):
            numbers = [bits(number) for number in got.payload[:, i].tolist()]
            found[row] = (got.event_id[i], int(got.sequence[i]), int(got.event_time[i]), *numbers, *got.texts[:, i])
        noted = sum(len(rows) for _, rows in result.unexpected)
        unread = [reason for reason in found.values() if reason in ("malformed", "incompatible_schema")]
        assert noted == (count - len(unread) if plan.unexpected else 0)
    return [found[row] for row in range(count)]


@QUICK
@given(st.data())
def test_what_the_gate_accepts_the_engine_decodes_to_what_fastavro_resolves(data: st.DataObject) -> None:
    writer = data.draw(writers())
    reader = data.draw(changed(writer))
    try:
        new, old = parsed(json.dumps(reader)), parsed(json.dumps(writer))
    except InvalidSchema:  # the change has put a reference before its type, or a type into a union twice
        reject()
    accepted = not (misfits(new, old) or texts_of_bytes(new, old) or changed_meanings(new, old))
    bodies = [encoded(writer, datum) for datum in data.draw(events(writer))]
    reference = [resolved(writer, reader, body) for body in bodies]
    if accepted:
        assert None not in reference
    if unbounded(without_logical_types(writer)) is not None or not fits_the_pipeline(reader):
        return
    try:
        plan = build_plan(SCHEMA_ID, json.dumps(writer), json.dumps(reader))
    except IncompatibleSchema:
        assert not accepted
        return
    in_header = data.draw(st.lists(st.booleans(), min_size=len(bodies), max_size=len(bodies)))
    found = decoded(plan, bodies, in_header=in_header)
    event(f"{'accepted' if accepted else 'refused'}, {'columnar' if plan.framed_json else 'record by record'}")
    for got, record in zip(found, reference, strict=True):
        if record is None:
            assert got in ("incompatible_schema", "malformed")
        else:
            assert got == columns_of(record, reader)


def fits_the_pipeline(reader: dict[str, Any]) -> bool:
    """Whether the pipeline could run with it: what lint and check ask for."""
    kinds = {field["name"]: without_logical_types(field["type"]) for field in reader["fields"]}
    numbers = ("int", "long", "float", "double")
    if kinds["event_id"] != "string" or kinds["device_id"] != "string" or kinds["event_time"] != "long":
        return False
    branches = {name: kind if isinstance(kind, list) else [kind] for name, kind in kinds.items()}
    plain = {name: [each for each in found if each != "null"] for name, found in branches.items()}
    return (
        kinds["sequence"] in numbers[:2]
        and all(len(plain[name]) == 1 and plain[name][0] in numbers for name in ("value", "level"))
        and plain["flag"] == ["boolean"]
        and plain["label"] == ["string"]
        and len(plain["kind"]) == 1
    )
