"""Logical types: valid uses (Avro 1.12, "Logical Types"), and whether two of them mean the same number.

Avro's rules of compatibility look at the stored type only: a `timestamp-micros` resolves to a `timestamp-millis`, and
its value is a time 1000 times too large. This module decides that for the decoder and for the schema gate.

A logical type in the wrong place (`misuse`) is ignored, as every reader ignores it. A type without one has no unit and
fits any.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from streams.avro.matching import Types, first_choice, kind_of, matched_fields

Schema = Any
"""A schema as JSON: a name, a union's list, or an object."""

_BASES: Final[Mapping[str, frozenset[str]]] = {
    "decimal": frozenset({"bytes", "fixed"}),
    "big-decimal": frozenset({"bytes"}),
    "uuid": frozenset({"string", "fixed"}),
    "date": frozenset({"int"}),
    "time-millis": frozenset({"int"}),
    "time-micros": frozenset({"long"}),
    "timestamp-millis": frozenset({"long"}),
    "timestamp-micros": frozenset({"long"}),
    "timestamp-nanos": frozenset({"long"}),
    "local-timestamp-millis": frozenset({"long"}),
    "local-timestamp-micros": frozenset({"long"}),
    "local-timestamp-nanos": frozenset({"long"}),
    "duration": frozenset({"fixed"}),
}
_SIZES: Final[Mapping[str, int]] = {"uuid": 16, "duration": 12}
_DEBEZIUM: Final[Mapping[str, str]] = {
    "io.debezium.time.Date": "date",
    "io.debezium.time.Time": "time-millis",
    "io.debezium.time.MicroTime": "time-micros",
    "io.debezium.time.NanoTime": "time-nanos",
    "io.debezium.time.Timestamp": "timestamp-millis",
    "io.debezium.time.MicroTimestamp": "timestamp-micros",
    "io.debezium.time.NanoTimestamp": "timestamp-nanos",
}
"""Units that Debezium names in `connect.name`, on an int or a long without a logical type."""
_TEXT: Final = "text"
_IN_BYTES: Final = ("decimal", "big-decimal")
"""Stored as two's complement bytes: as text they are meaningless, and text is no such number."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A field whose stored value means one thing to the writer and another to the reader."""

    path: str
    """The reader's field, such as `stops[].arrived_at`; empty for the schema itself."""
    words: str
    """Both types: `written as timestamp-micros, read as timestamp-millis`."""


def unit(schema: Schema) -> str:
    """The unit of a stored value: its logical type, of a decimal with the scale; "" if it has none.

    `schema` is a type's name or object; a union, a record, an array or a map has no unit.
    """
    if not isinstance(schema, Mapping) or not isinstance(schema.get("type"), str):
        return ""
    name = schema.get("logicalType")
    if name is not None and misuse(schema) is None:
        return f"decimal of scale {schema.get('scale', 0)}" if name == "decimal" else str(name)
    if schema["type"] in {"int", "long"}:
        return _DEBEZIUM.get(str(schema.get("connect.name", "")), "")
    return ""


def difference(writer: Schema, reader: Schema) -> str | None:
    """How values written as `writer` would be misread as `reader`, in words; None if they would not.

    Both are types without parts (a name, or an object with `type`), between which Avro has a promotion or none is
    needed. The words are a predicate with both units, such as `written as date, read as timestamp-millis`.
    """
    written, read = unit(writer), unit(reader)
    if written.startswith(_IN_BYTES) and kind_of(reader) == "string":
        read = read or _TEXT
    if read.startswith(_IN_BYTES) and kind_of(writer) == "string":
        written = written or _TEXT
    return f"written as {written}, read as {read}" if written and read and written != read else None


def differences(writer: Schema, reader: Schema) -> list[Difference]:
    """Every place where values of `writer` would be read wrong as `reader`, in the reader's order.

    Both are whole schemas as `fastavro.parse_schema` gives them (names in full), with their logical types on. Parts
    that do not resolve at all are left out: they are no question of units. A pair of records that meets in several
    places is looked at in the first one.
    """
    return list(dict.fromkeys(_differences(writer, reader, "", Types(writer, reader), set())))


def _differences(
    writer: Schema, reader: Schema, path: str, types: Types, seen: set[tuple[int, int]]
) -> Iterator[Difference]:
    writer = types.written(writer)
    if isinstance(writer, list):
        for branch in writer:
            yield from _differences(branch, reader, path, types, seen)
        return
    chosen = first_choice(writer, reader if isinstance(reader, list) else [reader], types)
    if chosen is None:
        return
    match kind_of(writer):
        case "array":
            yield from _differences(writer["items"], chosen["items"], f"{path}[]", types, seen)
        case "map":
            yield from _differences(writer["values"], chosen["values"], f"{path}{{}}", types, seen)
        case "record":
            if (id(writer), id(chosen)) in seen:
                return
            seen.add((id(writer), id(chosen)))
            for written, field in matched_fields(writer, chosen):
                if written is not None:
                    name = f"{path}.{field['name']}" if path else str(field["name"])
                    yield from _differences(written["type"], field["type"], name, types, seen)
        case _:
            words = difference(writer, chosen)
            if words is not None:
                yield Difference(path, words)


def misuse(schema: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with a type's logical type, and what to do; None if nothing is, or it has none."""
    name, base = schema.get("logicalType"), schema.get("type")
    if name is None:
        return None
    if not isinstance(name, str) or name not in _BASES:
        known = ", ".join(sorted(_BASES))
        return f"no logical type {name!r}: readers ignore it", f"use one of {known}"
    if not isinstance(base, str) or base not in _BASES[name]:
        wanted = " or ".join(sorted(_BASES[name]))
        return f"{name} annotates {wanted}, not {base if isinstance(base, str) else 'this type'}: readers ignore it", (
            f"make the type {wanted}"
        )
    if base == "fixed" and name in _SIZES and schema.get("size") != _SIZES[name]:
        return f"{name} takes {_SIZES[name]} bytes, not {schema.get('size')}", f"make the size {_SIZES[name]}"
    return _misused_decimal(schema) if name == "decimal" else None


def _misused_decimal(schema: Mapping[str, Any]) -> tuple[str, str] | None:
    precision, scale = schema.get("precision"), schema.get("scale", 0)
    if not isinstance(precision, int) or isinstance(precision, bool) or precision < 1:
        return "decimal without a precision of 1 or more", 'say how many digits it has: "precision": 9'
    if not isinstance(scale, int) or isinstance(scale, bool) or not 0 <= scale <= precision:
        return (
            f"decimal with scale {scale!r} and precision {precision}",
            "make the scale a number from 0 to the precision",
        )
    if schema["type"] == "fixed":
        digits = len(str(2 ** (8 * int(schema["size"]) - 1) - 1)) - 1
        if precision > digits:
            return f"{schema['size']} bytes hold {digits} digits, not {precision}", "make the size larger"
    return None
