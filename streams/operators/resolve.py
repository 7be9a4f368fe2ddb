"""Schema resolution, once per writer schema: from writer and reader schema to a decoding plan.

Follows the Avro 1.12 specification, "Schema Resolution": fields are matched by name (or the reader's alias), missing
ones take the reader's default, unknown ones are skipped, numbers are promoted. A writer schema that uses only simple
types gets a columnar plan; any other one is decoded record by record by fastavro, which is the judge in both cases.

Logical types are annotations of the stored type: they are taken off before decoding, so that a timestamp is its number
on the columnar path and on the exact one alike.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

Schema = Any
"""A schema as JSON: a name, a union's list, or an object."""

_PROMOTIONS: Final[Mapping[str, frozenset[str]]] = {
    "int": frozenset({"int", "long", "float", "double"}),
    "long": frozenset({"long", "float", "double"}),
    "float": frozenset({"float", "double"}),
    "double": frozenset({"double"}),
    "string": frozenset({"string"}),
    "boolean": frozenset({"boolean"}),
}
ENUM: Final = "enum"
FRAME_FIELDS: Final = (
    {"name": "__frame_magic", "type": "boolean"},
    {"name": "__frame_schema_id", "type": "float"},
)
"""The five bytes of Confluent's frame as Avro: the magic byte 0 is `false`, the id's four bytes are a float's bits.
Decoding them with the value saves cutting them off every record, and brings the ids as a column."""


class IncompatibleSchema(Exception):
    """What is written with the writer schema cannot be read with the reader schema."""


@dataclass(frozen=True, slots=True)
class Column:
    """How a reader field is got from the decoded writer columns: by position, or its default for every record."""

    position: int | None
    default: Any = None
    codes: tuple[int, ...] | None = None
    """Of an enum: for each symbol of the writer its position in the reader, -1 where the reader has no such symbol."""


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
    """Type of each writer field, `?` behind a nullable one: what its encoded size follows from."""
    columns: Mapping[str, Column] | None = None
    symbols: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Symbols of the reader's enum fields."""


def without_logical_types(schema: Schema) -> Schema:
    """The schema with `logicalType` taken off everywhere, and single-branch objects (`{"type": "long"}`) unwrapped."""
    if isinstance(schema, list):
        return [without_logical_types(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: value for key, value in schema.items() if key not in {"logicalType", "precision", "scale", "doc"}}
    if isinstance(plain.get("type"), str) and plain["type"] in {*_PROMOTIONS, "bytes", "null"}:
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

    Raises:
        IncompatibleSchema: no value of this writer schema can be read, and the message names the field.

    """
    try:
        writer = without_logical_types(json.loads(writer_text))
        reader = without_logical_types(json.loads(reader_text))
        parsed_writer = fastavro.parse_schema(writer)
        parsed_reader = fastavro.parse_schema(reader)
    except (ValueError, SchemaParseException, UnknownType, TypeError, KeyError, RecursionError) as error:
        raise IncompatibleSchema(f"schema {schema_id} is not a usable Avro schema: {error}") from None
    if not isinstance(writer, dict) or writer.get("type") != "record":
        raise IncompatibleSchema(f"schema {schema_id} is not a record")
    names = {str(writer["name"]), _last_name(writer["name"])}
    if not names & {_last_name(reader["name"]), *reader.get("aliases", ())}:
        raise IncompatibleSchema(f"schema {schema_id} is of {writer['name']!r}, not of {reader['name']!r}")
    writer_fields = {field["name"]: position for position, field in enumerate(writer["fields"])}
    columns: dict[str, Column] = {}
    simple = True
    for field in reader["fields"]:
        name = next((n for n in (field["name"], *field.get("aliases", ())) if n in writer_fields), None)
        if name is None:
            if "default" not in field:
                raise IncompatibleSchema(f"schema {schema_id} lacks field {field['name']!r}, which has no default")
            columns[field["name"]] = Column(None, field["default"])
            continue
        position = writer_fields[name]
        written = writer["fields"][position]["type"]
        simple &= _is_simple_pair(written, field["type"])
        columns[field["name"]] = Column(position, codes=_codes(written, field["type"]))
    kinds = tuple(column_kind(each["type"]) for each in writer["fields"])
    symbols = {each["name"]: found for each in reader["fields"] if (found := symbols_of(each["type"])) is not None}
    if not simple or "" in kinds:
        if (why := unbounded(writer)) is not None:
            raise IncompatibleSchema(f"schema {schema_id}: {why}")
        _refuse_hopeless(schema_id, parsed_writer, parsed_reader)
        return Plan(schema_id, parsed_writer, parsed_reader, None, None, kinds=kinds, symbols=symbols)
    wide = [{**field, "type": _widened(field["type"])} for field in writer["fields"]]
    bare, framed = {**writer, "fields": wide}, {**writer, "fields": [*FRAME_FIELDS, *wide]}
    return Plan(schema_id, parsed_writer, parsed_reader, json.dumps(framed), json.dumps(bare), kinds, columns, symbols)


def _widened(schema: Schema) -> Schema:
    """Every int and every enum's symbol as a long: the same bytes.

    An int out of range is thus not cut to 32 bits but read as fastavro reads it, and an enum comes as a number.
    """
    if isinstance(schema, list):
        return [_widened(branch) for branch in schema]
    return "long" if schema == "int" or symbols_of(schema) is not None else schema


def symbols_of(schema: Schema) -> tuple[str, ...] | None:
    """Symbols of an enum, nullable or not; None for any other type."""
    if isinstance(schema, list):
        return next((found for branch in schema if (found := symbols_of(branch)) is not None), None)
    if isinstance(schema, dict) and schema.get("type") == "enum":
        return tuple(schema["symbols"])
    return None


def _codes(writer: Schema, reader: Schema) -> tuple[int, ...] | None:
    written, read = symbols_of(writer), symbols_of(reader)
    if written is None or read is None:
        return None
    return tuple(read.index(symbol) if symbol in read else -1 for symbol in written)


def unbounded(schema: Schema) -> str | None:
    """Why a small value of a schema (logical types off) may keep a decoder busy or overflow its stack; None: it may not.

    That is a type that contains itself (fastavro recurses in C), and an array of items without bytes (its count alone
    says how often it loops).
    """
    empty: dict[str, bool] = {}

    def takes_no_bytes(schema: Schema, inside: frozenset[str]) -> bool:
        if isinstance(schema, list):
            return not [takes_no_bytes(branch, inside) for branch in schema]
        if isinstance(schema, str):
            if _last_name(schema) in inside:
                raise _Unbounded(f"type {schema!r} contains itself")
            return schema == "null" or empty.get(_last_name(schema), False)
        kind, name = schema["type"], _last_name(schema.get("name", ""))
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
    """A schema of which a small value may cost without bound."""


def _last_name(name: str) -> str:
    """A name without its namespace."""
    return name.rpartition(".")[2]


def column_kind(schema: Schema) -> str:
    """Name of a type that the columnar path knows, `?` behind a nullable one, "" for any other.

    An enum's is `enum` and the number of its symbols.
    """
    if isinstance(schema, str):
        return schema if schema in _PROMOTIONS else ""
    if isinstance(schema, list) and len(schema) == 2 and "null" in schema:
        other = column_kind(schema[1] if schema[0] == "null" else schema[0])
        return f"{other}?" if other and not other.endswith("?") else ""
    symbols = symbols_of(schema)
    return "" if symbols is None else f"{ENUM}{len(symbols)}"


def _is_simple_pair(writer: Schema, reader: Schema) -> bool:
    """Whether every value of `writer` becomes one of `reader` by a plain cast of its column."""
    written, read = column_kind(writer), column_kind(reader)
    if not written or not read or (written.endswith("?") and not read.endswith("?")):
        return False
    if written.startswith(ENUM) or read.startswith(ENUM):
        return written.startswith(ENUM) and read.startswith(ENUM) and _enum_name(writer) == _enum_name(reader)
    return read.removesuffix("?") in _PROMOTIONS[written.removesuffix("?")]


def _enum_name(schema: Schema) -> str:
    if isinstance(schema, list):
        return next(_enum_name(branch) for branch in schema if branch != "null")
    return _last_name(str(schema["name"]))


def _refuse_hopeless(schema_id: int, writer: Schema, reader: Schema) -> None:
    """Refuse pairs of simple types between which no promotion exists; what is left is judged record by record."""
    reader_types = {field["name"]: (field["type"], field.get("aliases", ())) for field in reader["fields"]}
    for field in writer["fields"]:
        for name, (read, aliases) in reader_types.items():
            if field["name"] != name and field["name"] not in aliases:
                continue
            written_kind, read_kind = column_kind(field["type"]), column_kind(read)
            if written_kind.startswith(ENUM) or read_kind.startswith(ENUM):
                continue
            if not written_kind or not read_kind or {"string"} <= {written_kind, "bytes"} & {read_kind}:
                continue
            if read_kind.removesuffix("?") not in _PROMOTIONS[written_kind.removesuffix("?")]:
                raise IncompatibleSchema(f"schema {schema_id}: field {name!r} is {written_kind}, not {read_kind}")
