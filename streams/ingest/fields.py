"""Columns of a file to columns of a schema: type conversion, whole columns at a time, reasons value by value.

A column that converts as a whole costs one Arrow cast. Where that fails, each value is tried alone, so that the rows
at fault get their reason and the others go on.
"""

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from streams.errors import UsageError

Values: TypeAlias = pa.Array | list[Any]
"""A column as a reader gives it: Arrow from typed files, plain Python values from others."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_CONVERSION_ERRORS: Final = (pa.ArrowException, ValueError, TypeError, OverflowError)


class Kind(StrEnum):
    """What a field of a schema holds."""

    TEXT = "string"
    LONG = "long"
    INT = "int"
    DOUBLE = "double"
    FLOAT = "float"
    BOOLEAN = "boolean"
    TIME = "timestamp-millis"
    ENUM = "enum"


ARROW: Final[Mapping[Kind, Any]] = {
    Kind.TEXT: pa.string(),
    Kind.LONG: pa.int64(),
    Kind.INT: pa.int32(),
    Kind.DOUBLE: pa.float64(),
    Kind.FLOAT: pa.float32(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.TIME: pa.int64(),
    Kind.ENUM: pa.string(),
}
"""Arrow type that values of a kind are converted to; times are milliseconds since 1970-01-01 UTC."""

_BITS: Final = {Kind.INT: 31, Kind.LONG: 63, Kind.TIME: 63}
_WHOLE: Final = r"^[+-]?[0-9]+$"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the reader schema."""

    name: str
    kind: Kind
    nullable: bool = False
    symbols: tuple[str, ...] = ()
    has_default: bool = False
    default: Any = None


def fields_of(schema: Mapping[str, Any]) -> tuple[Field, ...]:
    """Fields of a record schema, in its order.

    Raises:
        UsageError: a field has a type that a flat file cannot fill.

    """
    return tuple(_field(field) for field in schema["fields"])


def _field(field: Mapping[str, Any]) -> Field:
    kind: Any = field["type"]
    nullable = False
    if isinstance(kind, list):
        others = [one for one in kind if one != "null"]
        nullable = len(others) < len(kind)
        kind = others[0] if len(others) == 1 else None
    symbols: tuple[str, ...] = ()
    match kind:
        case {"type": "long", "logicalType": "timestamp-millis"}:
            found = Kind.TIME
        case {"type": "enum", "symbols": [*names]}:
            found, symbols = Kind.ENUM, tuple(map(str, names))
        case "string" | "long" | "int" | "double" | "float" | "boolean":
            found = Kind(kind)
        case _:
            raise UsageError(f"field {field['name']}: type {field['type']!r} cannot be filled from a file")
    return Field(field["name"], found, nullable, symbols, "default" in field, field.get("default"))


def convert(values: Values, field: Field) -> tuple[pa.Array, dict[int, str]]:
    """Column as the field's Arrow type, and the reason of each row that does not convert (null in the column).

    Text becomes numbers and times, whole numbers become text. Times: any timestamp, ISO 8601 text (without a zone: UTC)
    or milliseconds since 1970; what is finer than a millisecond is cut off.

    Raises:
        UsageError: the whole column is of a type that never converts.

    """
    array = values if isinstance(values, pa.Array) else _inferred(values)
    if array is not None:
        try:
            whole = _cast(array, field)
        except _CONVERSION_ERRORS:
            whole = None
        if whole is not None:
            return whole, {}
    if isinstance(values, pa.Array):
        if not _is_simple(values.type):
            raise UsageError(f"a column of type {values.type} cannot become {field.name} ({field.kind})")
        values = values.to_pylist()
    return _one_by_one(values, field)


def _inferred(values: Sequence[Any]) -> pa.Array | None:
    kinds = set(map(type, values)) - {type(None)}
    if len(kinds) > 1 and kinds != {int, float}:
        return None  # Arrow would take false among numbers for 0
    try:
        return pa.array(values)
    except _CONVERSION_ERRORS:
        return None


def _is_simple(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_primitive(kind) and not pa.types.is_temporal(kind)) or _is_text(kind)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _cast(array: pa.Array, field: Field) -> pa.Array | None:
    """The whole column at once; None or an exception when that cannot be."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind, target = array.type, ARROW[field.kind]
    if pa.types.is_null(kind):
        return pa.nulls(len(array), target)
    if not any(accepts(kind) for accepts in _ACCEPTED[field.kind]):
        return None
    if pa.types.is_temporal(kind):
        array = array.cast(pa.timestamp("ms", getattr(kind, "tz", None)), safe=False)
    elif _is_text(kind) and field.kind in _BITS and pc.all(pc.match_substring_regex(array, _WHOLE)).as_py() is False:
        return None  # Arrow would take 0x1F for a number
    result = array.cast(target, safe=field.kind not in {Kind.DOUBLE, Kind.FLOAT} or _is_text(kind))
    if field.symbols:
        known = pc.is_in(result, pa.array(field.symbols, target))
        if pc.all(pc.or_(known, result.is_null())).as_py() is False:
            return None
    return result


_ACCEPTED: Final[Mapping[Kind, tuple[Callable[[pa.DataType], bool], ...]]] = {
    Kind.TEXT: (_is_text, pa.types.is_integer),
    Kind.ENUM: (_is_text,),
    Kind.BOOLEAN: (pa.types.is_boolean,),
    Kind.TIME: (pa.types.is_timestamp, pa.types.is_date, pa.types.is_integer),
    **dict.fromkeys(
        (Kind.DOUBLE, Kind.FLOAT, Kind.LONG, Kind.INT),
        (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, _is_text),
    ),
}
"""Arrow types of which a whole column becomes a kind by one cast."""


def _one_by_one(values: Sequence[Any], field: Field) -> tuple[pa.Array, dict[int, str]]:
    converter = _CONVERTERS[field.kind]
    converted: list[Any] = []
    reasons: dict[int, str] = {}
    for row, value in enumerate(values):
        try:
            converted.append(None if value is None else converter(value, field))
        except (ValueError, TypeError, ArithmeticError):
            converted.append(None)
            expected = f"one of {', '.join(field.symbols)}" if field.symbols else _EXPECTED[field.kind]
            reasons[row] = f"{field.name} is {_shown(value)}, expected {expected}"
    return pa.array(converted, ARROW[field.kind]), reasons


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return f"{text[:60]!r}{'...' if len(text) > 60 else ''}"


def _text(value: Any, _: Field) -> str:
    if isinstance(value, str):
        value.encode("utf-8")  # a lone surrogate is no text
        return value
    if isinstance(value, uuid.UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise ValueError


def _double(value: Any, _: Field) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        raise TypeError
    if isinstance(value, str) and "_" in value:
        raise ValueError
    return float(value)


def _integer(value: Any, field: Field) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        raise TypeError
    if isinstance(value, str):
        if "_" in value:
            raise ValueError
        number = int(value)
    else:
        number = int(value)
        if number != value:
            raise ValueError
    limit = 1 << _BITS[field.kind]
    if not -limit <= number < limit:
        raise ValueError
    return number


def _time_ms(value: Any, field: Field) -> int:
    if isinstance(value, str) and not value.strip().removeprefix("-").isdecimal():
        value = datetime.fromisoformat(value.strip())
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (aware - _EPOCH) // _MILLISECOND
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError
    return _integer(value, field)


def _boolean(value: Any, _: Field) -> bool:
    known = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
    key = value.lower() if isinstance(value, str) else value
    if not isinstance(key, (str, bool)) or key not in known:
        raise ValueError
    return known[key]


def _enum(value: Any, field: Field) -> str:
    if value not in field.symbols:
        raise ValueError
    return str(value)


_CONVERTERS: Final[Mapping[Kind, Callable[[Any, Field], Any]]] = {
    Kind.TEXT: _text,
    Kind.LONG: _integer,
    Kind.INT: _integer,
    Kind.DOUBLE: _double,
    Kind.FLOAT: _double,
    Kind.BOOLEAN: _boolean,
    Kind.TIME: _time_ms,
    Kind.ENUM: _enum,
}
_EXPECTED: Final[Mapping[Kind, str]] = {
    Kind.TEXT: "text",
    Kind.LONG: "a whole number of 64 bits",
    Kind.INT: "a whole number of 32 bits",
    Kind.DOUBLE: "a number",
    Kind.FLOAT: "a number",
    Kind.BOOLEAN: "true or false",
    Kind.TIME: "a time (ISO 8601, or milliseconds since 1970)",
    Kind.ENUM: "a known word",
}
