"""Logical types and what they may annotate (Avro 1.12, "Logical Types"). Readers ignore a misused one in silence."""

from collections.abc import Mapping
from typing import Any, Final

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


def misuse(schema: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with a type's logical type, and what to do; None if nothing is, or it has none."""
    name, base = schema.get("logicalType"), schema.get("type")
    if name is None:
        return None
    if name not in _BASES:
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
