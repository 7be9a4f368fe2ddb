"""From a topic's schema to the columns of a target."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from streams.avro.matching import named_types
from streams.avro.resolve import parsed_with_units
from streams.errors import UsageError
from streams.sinks.target import TargetColumn

DECIMAL_DIGITS_MAX: Final = 38
RESERVED: Final = ("streams_partition", "streams_offset")
"""Columns that every table of a sink has: where a row was read."""
_PLAIN: Final[Mapping[str, tuple[Any, ...]]] = {
    "boolean": ("boolean", pa.bool_()),
    "int": ("int", pa.int32()),
    "long": ("long", pa.int64()),
    "float": ("float", pa.float32()),
    "double": ("double", pa.float64()),
    "string": ("string", pa.string()),
    "bytes": ("bytes", pa.binary()),
    "fixed": ("bytes", pa.binary()),
    "enum": ("string", pa.string()),
}
_LOGICAL: Final[Mapping[tuple[str, str | None], tuple[Any, ...]]] = {
    ("int", "date"): ("date", pa.date32()),
    ("int", "time-millis"): ("time", pa.time32("ms")),
    ("long", "time-micros"): ("time", pa.time64("us")),
    ("long", "timestamp-millis"): ("timestamp", pa.timestamp("ms", "UTC")),
    ("long", "timestamp-micros"): ("timestamp", pa.timestamp("us", "UTC")),
    ("long", "local-timestamp-millis"): ("local_timestamp", pa.timestamp("ms")),
    ("long", "local-timestamp-micros"): ("local_timestamp", pa.timestamp("us")),
}


def columns_of(schema_text: str) -> tuple[TargetColumn, ...]:
    """A column for each field of a record schema, in its order.

    Numbers, text, bytes, times, dates and decimals of at most 38 digits have a type of their own, enums are text. All
    else (arrays, maps, records, unions of several types) is `json`.

    Raises:
        UsageError: a field has the name of a column that every sink has.

    """
    schema = parsed_with_units(schema_text)
    named = {each["name"]: each for each in named_types(schema)}
    found = tuple(_column(field["name"], field["type"], named) for field in schema["fields"])
    for column in found:
        if column.name in RESERVED:
            raise UsageError(f"the field {column.name} has the name of a column that every table of a sink has")
    return found


def subset(columns: Sequence[TargetColumn], names: Sequence[str], *, of: str) -> tuple[TargetColumn, ...]:
    """The columns with these names.

    Raises:
        UsageError: there is none of a name; `of` says whose they are.

    """
    by_name = {column.name: column for column in columns}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise UsageError(f"{of} has no field {unknown[0]!r}: there is {', '.join(by_name)}")
    return tuple(by_name[name] for name in names)


def _column(name: str, schema: Any, named: Mapping[str, Any]) -> TargetColumn:
    kinds = schema if isinstance(schema, list) else [schema]
    others = [kind for kind in kinds if kind != "null"]
    if len(others) != 1:
        return TargetColumn(name, "json", pa.string())
    kind = named.get(others[0], others[0]) if isinstance(others[0], str) else others[0]
    found, arrow, *digits = _kind(kind)
    return TargetColumn(name, found, arrow, len(others) < len(kinds), *digits)


def _kind(schema: Any) -> tuple[Any, ...]:
    """Kind and type of a column, and the digits of a decimal."""
    plain = schema if isinstance(schema, str) else schema["type"]
    logical = None if isinstance(schema, str) else schema.get("logicalType")
    if logical == "decimal" and plain in {"bytes", "fixed"}:
        precision, scale = int(schema["precision"]), int(schema.get("scale", 0))
        if precision > DECIMAL_DIGITS_MAX:
            return "string", pa.string(), precision, scale  # its digits as text
        return "decimal", pa.decimal128(precision, scale), precision, scale
    if not isinstance(plain, str):
        return "json", pa.string()
    return _LOGICAL.get((plain, logical)) or _PLAIN.get(plain, ("json", pa.string()))


def as_json_text(value: Any) -> str:
    """A value of several parts as JSON: bytes as hexadecimal digits, NaN and the infinities as text."""
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not value - value == 0:  # noqa: SIM201 - NaN and the infinities
        return str(value)
    return value
