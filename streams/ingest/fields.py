"""Columns of a file to columns of a schema: converts whole columns at a time, with a reason for each bad value.

A column that converts as a whole costs one Arrow cast. If that fails, each value is tried alone, so that bad rows get a
reason and the others are sent.
"""

import re
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from streams.avro.personal import personal_fields
from streams.errors import UsageError
from streams.ingest.quoting import outlined, quoted
from streams.ingest.reading import DEFAULT_READING, Reading
from streams.ingest.times import NotATime, column_ms, is_temporal, value_ms, values_of

Values: TypeAlias = pa.Array | list[Any]
"""A column as a reader gives it: Arrow from typed files, plain Python values from others."""

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

_BITS: Final = {Kind.INT: 31, Kind.LONG: 63}
_REAL: Final = frozenset({Kind.DOUBLE, Kind.FLOAT})
_WHOLE: Final = r"^[+-]?[0-9]+$"
_COMMA_NUMBER: Final = re.compile(r"[+-]?[0-9]+,[0-9]+")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the reader schema."""

    name: str
    kind: Kind
    nullable: bool = False
    symbols: tuple[str, ...] = ()
    has_default: bool = False
    default: Any = None
    is_quoted: bool = True
    """Whether reasons quote values; False where the schema has personal data, in whichever field."""


def fields_of(schema: Mapping[str, Any], personal: Collection[str] = ()) -> tuple[Field, ...]:
    """Fields of a record schema, in its order; `personal`: names of those with personal data, beside what it says.

    If there is such a field, no reason quotes a value of any: where columns are shifted, each of them may have it.

    Raises:
        UsageError: a field has a type that a flat file cannot fill.

    """
    is_quoted = not personal and not personal_fields(schema)
    return tuple(replace(_field(field), is_quoted=is_quoted) for field in schema["fields"])


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


def convert(values: Values, field: Field, reading: Reading = DEFAULT_READING) -> tuple[pa.Array, dict[int, str]]:
    """Column as the field's Arrow type, and the reason of each row that does not convert (null in the column).

    Text becomes numbers and times, whole numbers become text. Decimals, as text or typed, become the nearest double.
    Times are timestamps, dates, ISO 8601 text (in the zone of `reading` where they name none) or numbers in its unit;
    what is finer than a millisecond is cut off.

    Raises:
        UsageError: the whole column is of a type that never converts.

    """
    array = values if isinstance(values, pa.Array) else _inferred(values)
    if array is not None:
        try:
            whole = _cast(array, field, reading)
        except _CONVERSION_ERRORS:
            whole = None
        if whole is not None:
            return whole, {}
    if isinstance(values, pa.Array):
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if field.kind is Kind.TIME and is_temporal(values.type):
            values = values_of(values)
        elif _is_simple(values.type):
            values = values.to_pylist()
        else:
            raise UsageError(f"a column of type {values.type} cannot become {field.name} ({field.kind})")
    return _one_by_one(values, field, reading)


def _inferred(values: Sequence[Any]) -> pa.Array | None:
    kinds = set(map(type, values)) - {type(None)}
    if len(kinds) > 1 and kinds != {int, float}:
        return None  # Arrow would take false among numbers for 0
    try:
        return pa.array(values)
    except _CONVERSION_ERRORS:
        return None


def _is_simple(kind: pa.DataType) -> bool:
    is_number = pa.types.is_primitive(kind) and not pa.types.is_temporal(kind)
    return bool(is_number or pa.types.is_decimal(kind)) or _is_text(kind)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _cast(array: pa.Array, field: Field, reading: Reading) -> pa.Array | None:
    """Cast the whole column at once; None or an exception when that is impossible."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    target = ARROW[field.kind]
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), target)
    if field.kind is Kind.TIME:
        return column_ms(array, reading)
    if not any(accepts(array.type) for accepts in _ACCEPTED[field.kind]):
        return None
    if field.kind in _REAL:
        return _real(array, target, reading)
    if _is_text(array.type) and field.kind in _BITS and not _all(pc.match_substring_regex(array, _WHOLE)):
        return None  # Arrow would take 0x1F for a number
    result = array.cast(target)
    is_known = not field.symbols or _all(pc.is_in(result, pa.array(field.symbols, target)), result)
    return result if is_known else None


def _real(array: pa.Array, target: pa.DataType, reading: Reading) -> pa.Array | None:
    """Convert numbers to the nearest ones of the target type."""
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.string())  # Arrow rounds a decimal twice, but text once
    elif _is_text(array.type) and reading.decimal_comma:
        if pc.any(pc.match_substring(array, ".")).as_py():
            return None
        array = pc.replace_substring(array, ",", ".")
    return array.cast(target, safe=_is_text(array.type))


def _all(mask: pa.Array, values: pa.Array | None = None) -> bool:
    """Whether a mask holds for every value; null holds, and so does a null of `values`."""
    if values is not None:
        mask = pc.or_(mask, values.is_null())
    return pc.all(mask).as_py() is not False


_ACCEPTED: Final[Mapping[Kind, tuple[Callable[[pa.DataType], bool], ...]]] = {
    Kind.TEXT: (_is_text, pa.types.is_integer),
    Kind.ENUM: (_is_text,),
    Kind.BOOLEAN: (pa.types.is_boolean,),
    **dict.fromkeys(
        (Kind.DOUBLE, Kind.FLOAT, Kind.LONG, Kind.INT),
        (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, _is_text),
    ),
}
"""Arrow types of which a whole column converts to a kind with one cast."""


def _one_by_one(values: Sequence[Any], field: Field, reading: Reading) -> tuple[pa.Array, dict[int, str]]:
    converter = _CONVERTERS[field.kind]
    converted: list[Any] = []
    reasons: dict[int, str] = {}
    for row, value in enumerate(values):
        try:
            converted.append(None if value is None else converter(value, field, reading))
        except NotATime as error:
            converted.append(None)
            reasons[row] = f"{field.name} is {_shown(value, field)}, {error}"
        except (ValueError, TypeError, ArithmeticError):
            converted.append(None)
            expected = f"one of {', '.join(field.symbols)}" if field.symbols else _EXPECTED[field.kind]
            reasons[row] = f"{field.name} is {_shown(value, field)}, expected {expected}{_hint(value, field, reading)}"
    return pa.array(converted, ARROW[field.kind]), reasons


def _hint(value: Any, field: Field, reading: Reading) -> str:
    """A hint which option would read a text, for the end of its reason."""
    if not isinstance(value, str):
        return ""
    if any("\udc80" <= character <= "\udcff" for character in value):
        return f"; its bytes are no {reading.encoding or 'UTF-8'}: --encoding says what they are, for example cp1252"
    if field.kind in _REAL and _COMMA_NUMBER.fullmatch(value.strip()):
        return "" if reading.decimal_comma else "; --decimal-comma reads 48,1"
    return ""


def _shown(value: Any, field: Field) -> str:
    return quoted(value) if field.is_quoted else outlined(value)


def _text(value: Any, _: Field, __: Reading) -> str:
    if isinstance(value, str):
        value.encode("utf-8")  # a lone surrogate is no text
        return value
    if isinstance(value, uuid.UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise ValueError


def _double(value: Any, _: Field, reading: Reading) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        raise TypeError
    if isinstance(value, str):
        if "_" in value or (reading.decimal_comma and "." in value):
            raise ValueError
        if reading.decimal_comma:
            value = value.replace(",", ".")
    return float(value)


def _integer(value: Any, field: Field, _: Reading) -> int:
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


def _time_ms(value: Any, _: Field, reading: Reading) -> int:
    return value_ms(value, reading)


def _boolean(value: Any, _: Field, __: Reading) -> bool:
    known = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
    key = value.lower() if isinstance(value, str) else value
    if not isinstance(key, (str, bool)) or key not in known:
        raise ValueError
    return known[key]


def _enum(value: Any, field: Field, _: Reading) -> str:
    if value not in field.symbols:
        raise ValueError
    return str(value)


_CONVERTERS: Final[Mapping[Kind, Callable[[Any, Field, Reading], Any]]] = {
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
    Kind.TIME: "a time (ISO 8601, or a number since 1970)",
    Kind.ENUM: "a known word",
}
