"""Schema resolution, once per writer schema: makes a decoding plan from writer and reader schema.

Follows the Avro 1.12 specification, "Schema Resolution": fields are matched by name (or the reader's alias), missing
ones take the reader's default, unknown ones are skipped, numbers are promoted. If every value of the writer's schema
can be read as the reader's, and the flow reads only simple columns, the plan is columnar, whatever else is in the
schema. Otherwise fastavro decodes records one by one; it decides in both cases.

Logical types are annotations of the stored type: they are removed before decoding, so that a timestamp is its number on
both paths.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

from streams.avro.logical import differences, misuse
from streams.avro.matching import (
    PROMOTIONS,
    Types,
    is_named_for,
    kind_of,
    last_name,
    matched_fields,
    may_skip,
    resolves,
    unexpected_fields,
    unshadowed,
)
from streams.avro.wire import Shape, wire_fields

Schema = Any
"""A schema as JSON: a name, a union's list, or an object."""

ENUM: Final = "enum"
_NUMBER_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "int": (-(2**31), 2**31 - 1),
    "long": (-(2**63), 2**63 - 1),
    "float": (-sys.float_info.max, sys.float_info.max),
    "double": (-sys.float_info.max, sys.float_info.max),
}
FRAME_FIELDS: Final = (
    {"name": "__frame_magic", "type": "boolean"},
    {"name": "__frame_schema_id", "type": "float"},
)
"""The five bytes of Confluent's frame as Avro: the magic byte 0 is `false`, the id's four bytes are a float's bits.
Decoding them with the value saves cutting them off every record, and brings the ids as a column."""


class IncompatibleSchema(Exception):
    """Data written with the writer schema cannot be read with the reader schema."""


@dataclass(frozen=True, slots=True)
class Column:
    """How a reader field is got from the decoded writer columns: by position, or its default for every record."""

    position: int | None
    default: Any = None
    codes: tuple[int, ...] | None = None
    """For an enum: the reader's position of each of the writer's symbols, or of the reader's default symbol; -1
    where there is neither."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How values written with one schema become the reader's columns."""

    schema_id: int
    writer: Schema
    """Parsed for fastavro, logical types off."""
    reader: Schema
    framed_json: str | None
    """Writer schema with the frame in front, for columnar decoding; None: record by record only."""
    bare_json: str | None
    kinds: tuple[str, ...] = ()
    """Type of each writer field, `?` after a nullable one; empty for types that are not simple columns."""
    shapes: tuple[Shape, ...] = ()
    """What the values of each writer field are made of: their encoded size follows from it."""
    columns: Mapping[str, Column] | None = None
    symbols: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Symbols of the reader's enum fields."""
    longs: frozenset[str] = frozenset()
    """The reader's fields of type long, nullable or not."""
    is_skipping: bool = False
    """Whether the writer has fields, at any depth, that the reader may not know: fastavro skips them without looking at
    their lengths."""
    others: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """If the writer's schema is a union: by position, the branches that are not events of the reader."""
    unexpected: tuple[str, ...] = ()
    """Paths of the writer's fields that the reader does not know: skipped, and counted."""


def parsed_with_units(text: str) -> Schema:
    """A schema as `fastavro.parse_schema` gives it, with its logical types on where they have a meaning.

    Raises:
        IncompatibleSchema: it is no Avro schema.

    """
    return _parsed(text, _with_units)


def _parsed(text: str, prepared: Callable[[Schema], Schema]) -> Schema:
    try:
        return fastavro.parse_schema(prepared(json.loads(text)))
    except (
        ValueError,
        SchemaParseException,
        UnknownType,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise IncompatibleSchema(f"not a usable Avro schema: {error}") from None


def _with_units(schema: Schema) -> Schema:
    """The schema without the logical types that readers ignore; fastavro refuses some of them."""
    if isinstance(schema, list):
        return [_with_units(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    plain = schema if misuse(schema) is None else {key: schema[key] for key in schema if key != "logicalType"}
    made = {part: _with_units(plain[part]) for part in ("type", "items", "values") if part in plain}
    if "fields" in plain:
        made["fields"] = [{**field, "type": _with_units(field["type"])} for field in plain["fields"]]
    return {**plain, **made}


def without_logical_types(schema: Schema) -> Schema:
    """The schema with `logicalType` taken off everywhere, and single-branch objects (`{"type": "long"}`) unwrapped."""
    if isinstance(schema, list):
        return [without_logical_types(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: value for key, value in schema.items() if key not in {"logicalType", "precision", "scale", "doc"}}
    if isinstance(plain.get("type"), str) and plain["type"] in {*PROMOTIONS, "bytes", "null"}:
        return plain["type"]
    for part in ("type", "items", "values"):
        if part in plain:
            plain[part] = without_logical_types(plain[part])
    if "fields" in plain:
        plain["fields"] = [
            {**{k: v for k, v in field.items() if k != "doc"}, "type": without_logical_types(field["type"])}
            for field in plain["fields"]
        ]
    return plain


def build_plan(schema_id: int, writer_text: str, reader_text: str) -> Plan:
    """Plan for values written with `writer_text`, read with `reader_text` (a record).

    A writer's schema may be a union of records: a record of the branch that is the reader's is read, others are not.

    Raises:
        IncompatibleSchema: no value of this writer schema can be read, and the message names the field.

    """
    try:
        writer, reader = _parsed(writer_text, without_logical_types), _parsed(reader_text, without_logical_types)
    except IncompatibleSchema as error:
        raise IncompatibleSchema(f"schema {schema_id} is {error}") from None
    types = Types(writer, reader)
    records, others = _records_of(schema_id, writer, reader, types)
    if (why := unbounded(writer)) is not None:
        raise IncompatibleSchema(f"schema {schema_id}: {why}")
    for each in differences(parsed_with_units(writer_text), parsed_with_units(reader_text)):
        raise IncompatibleSchema(f"schema {schema_id}: field {each.path!r} is {each.words}")
    resolved = [_columns(schema_id, each, reader, types) for each in records]
    columns, is_total = resolved[0]
    plan = Plan(
        schema_id,
        writer,
        unshadowed(writer, reader),
        framed_json=None,
        bare_json=None,
        kinds=() if isinstance(writer, list) else tuple(column_kind(each["type"]) for each in writer["fields"]),
        columns=columns,
        symbols={each["name"]: found for each in reader["fields"] if (found := symbols_of(each["type"])) is not None},
        longs=frozenset(each["name"] for each in reader["fields"] if column_kind(each["type"]) in {"long", "long?"}),
        is_skipping=may_skip(writer, reader),
        others=others,
        unexpected=unexpected_fields(writer, reader),
    )
    made = wire_fields(writer) if is_total and not isinstance(writer, list) else None
    if made is None:
        for each in records:
            _refuse_hopeless(schema_id, each, reader)
        return dataclasses.replace(plan, columns=None)
    shapes, fields = made
    bare = {"type": "record", "name": "wire", "fields": fields}
    framed = {**bare, "fields": [*FRAME_FIELDS, *fields]}
    return dataclasses.replace(plan, framed_json=json.dumps(framed), bare_json=json.dumps(bare), shapes=shapes)


def _records_of(schema_id: int, writer: Schema, reader: Schema, types: Types) -> tuple[list[Schema], dict[int, str]]:
    """The writer's record, or the branches of its union that are events of the reader; and the other branches.

    Raises:
        IncompatibleSchema: there is none.

    """
    branches = [types.written(branch) for branch in (writer if isinstance(writer, list) else [writer])]
    names = [last_name(each["name"]) if kind_of(each) == "record" else kind_of(each) for each in branches]
    mine = {at for at, each in enumerate(branches) if kind_of(each) == "record" and is_named_for(each, reader)}
    if mine:
        return [branches[at] for at in sorted(mine)], {at: name for at, name in enumerate(names) if at not in mine}
    wanted = last_name(reader["name"])
    if isinstance(writer, list):
        raise IncompatibleSchema(f"schema {schema_id} is a union of {', '.join(names)}; none of them is {wanted!r}")
    if kind_of(writer) != "record":
        raise IncompatibleSchema(f"schema {schema_id} is not a record")
    raise IncompatibleSchema(f"schema {schema_id} is of {names[0]!r}, not of {wanted!r}")


def _columns(schema_id: int, writer: Schema, reader: Schema, types: Types) -> tuple[dict[str, Column], bool]:
    """Where the reader's fields come from, and whether each of the writer's values can be read (or is a symbol).

    Raises:
        IncompatibleSchema: a field comes from nowhere.

    """
    positions = {field["name"]: position for position, field in enumerate(writer["fields"])}
    columns: dict[str, Column] = {}
    is_total = True
    for written, field in matched_fields(writer, reader):
        if written is None:
            if "default" not in field:
                raise IncompatibleSchema(f"schema {schema_id} lacks field {field['name']!r}, which has no default")
            if (why := misfit_default(field)) is not None:
                raise IncompatibleSchema(f"schema {schema_id} lacks field {field['name']!r}, and {why}")
            columns[field["name"]] = Column(None, field["default"])
            continue
        if column_kind(field["type"]):  # a field that the flow may read: its column must be usable unchanged
            is_total &= _is_simple_pair(written["type"], field["type"])
        else:
            is_total &= resolves(written["type"], field["type"], types)
        columns[field["name"]] = Column(positions[written["name"]], codes=_codes(written["type"], field["type"]))
    return columns, is_total


def misfit_default(field: Mapping[str, Any]) -> str | None:
    """Why a field's default is a number that does not fit its type (logical types removed); None when it fits."""
    default = field.get("default")
    if isinstance(default, bool) or not isinstance(default, int | float):
        return None
    kind = column_kind(field["type"]).removesuffix("?")
    low, high = _NUMBER_RANGES.get(kind, (-math.inf, math.inf))
    return None if low <= default <= high else f"its default {default} does not fit into {kind}"


def symbols_of(schema: Schema) -> tuple[str, ...] | None:
    """Symbols of an enum, nullable or not; None for any other type."""
    enum = _enum_of(schema)
    return None if enum is None else tuple(enum["symbols"])


def _enum_of(schema: Schema) -> dict[str, Any] | None:
    if isinstance(schema, list):
        return next((found for branch in schema if (found := _enum_of(branch)) is not None), None)
    return schema if isinstance(schema, dict) and schema.get("type") == "enum" else None


def _codes(writer: Schema, reader: Schema) -> tuple[int, ...] | None:
    written, read = symbols_of(writer), _enum_of(reader)
    if written is None or read is None or not _is_simple_pair(writer, reader):
        return None
    symbols, default = read["symbols"], read.get("default")
    otherwise = symbols.index(default) if default in symbols else -1
    return tuple(symbols.index(symbol) if symbol in symbols else otherwise for symbol in written)


def unbounded(schema: Schema) -> str | None:
    """Why a small value of a schema could keep a decoder busy or overflow its stack; else None.

    That is a type that contains itself (fastavro recurses in C), and an array of items without bytes (its count alone
    says how often it loops).
    """
    empty: dict[str, bool] = {}

    def takes_no_bytes(schema: Schema, inside: frozenset[str]) -> bool:
        if isinstance(schema, list):
            return not [takes_no_bytes(branch, inside) for branch in schema]
        if isinstance(schema, str):
            if last_name(schema) in inside:
                raise _Unbounded(f"type {schema!r} contains itself")
            return schema == "null" or empty.get(last_name(schema), False)
        kind, name = schema["type"], last_name(schema.get("name", ""))
        match kind:
            case "record":
                parts = [takes_no_bytes(field["type"], inside | {name}) for field in schema["fields"]]
                empty[name] = all(parts)
            case "fixed":
                empty[name] = schema["size"] == 0
            case "array" | "map":
                if takes_no_bytes(schema["items" if kind == "array" else "values"], inside) and kind == "array":
                    raise _Unbounded("it has an array of items that take no bytes")
            case _:
                return kind != "enum" and takes_no_bytes(kind, inside)
        return kind in {"record", "fixed"} and empty[name]

    try:
        takes_no_bytes(schema, frozenset())
    except _Unbounded as found:
        return str(found)
    return None


class _Unbounded(Exception):
    """A schema of which a small value may cost unbounded work."""


def column_kind(schema: Schema) -> str:
    """Name of a type (logical type off) that is a simple column, `?` after a nullable one, "" for any other.

    An enum's is `enum` and the number of its symbols.
    """
    if isinstance(schema, str):
        return schema if schema in PROMOTIONS else ""
    if isinstance(schema, list) and len(schema) == 2 and "null" in schema:
        other = column_kind(schema[1] if schema[0] == "null" else schema[0])
        return f"{other}?" if other and not other.endswith("?") else ""
    symbols = symbols_of(schema) if isinstance(schema, dict) else None
    return "" if symbols is None else f"{ENUM}{len(symbols)}"


def _is_simple_pair(writer: Schema, reader: Schema) -> bool:
    """Whether every value of `writer` becomes one of `reader` by a plain cast of its column."""
    written, read = column_kind(writer), column_kind(reader)
    if not written or not read or (written.endswith("?") and not read.endswith("?")):
        return False
    if written.startswith(ENUM) or read.startswith(ENUM):
        return written.startswith(ENUM) and read.startswith(ENUM) and _is_same_enum(writer, reader)
    return read.removesuffix("?") in PROMOTIONS[written.removesuffix("?")]


def _is_same_enum(writer: Schema, reader: Schema) -> bool:
    written, read = _enum_of(writer), _enum_of(reader)
    return written is not None and read is not None and is_named_for(written, read)


def _refuse_hopeless(schema_id: int, writer: Schema, reader: Schema) -> None:
    """Refuse pairs of simple types without a promotion; others are decided record by record."""
    for written, field in matched_fields(writer, reader):
        if written is None:
            continue
        written_kind, read_kind = column_kind(written["type"]), column_kind(field["type"])
        if not written_kind or not read_kind or written_kind.startswith(ENUM) or read_kind.startswith(ENUM):
            continue
        if read_kind.removesuffix("?") not in PROMOTIONS[written_kind.removesuffix("?")]:
            raise IncompatibleSchema(f"schema {schema_id}: field {field['name']!r} is {written_kind}, not {read_kind}")
