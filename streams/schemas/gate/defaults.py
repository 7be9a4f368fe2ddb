"""Whether the defaults of a schema are values of their types (Avro 1.12, "Complex Types": what a default may be).

Libraries differ in how much of this they check: a default that one of them accepts, another one, or a registry,
refuses, or reads as a value that no writer could have written. So defaults are checked against the whole rule.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from streams.schemas.catalog import SchemaVersion
from streams.schemas.gate.explain import field_shown
from streams.schemas.gate.findings import Finding, Rule
from streams.schemas.located import ITEMS, VALUES, line_of

_INTEGERS: Final[Mapping[str, tuple[int, int]]] = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_NUMBERS_MAX: Final[Mapping[str, float]] = {"float": 3.4028234663852886e38, "double": 1.7976931348623157e308}
_BYTE_MAX: Final = 255
"""In the JSON of a schema, bytes are text: one character for each byte."""


@dataclass(frozen=True, slots=True)
class WrongDefault:
    """A default that is not a value of its type."""

    path: tuple[str, ...]
    """Path of the field, or of the enum."""
    message: str


def wrong_defaults(schema: Any) -> list[WrongDefault]:
    """Every default in a valid schema that is no value of its type, at any depth, in the order of the schema.

    The default of a union is a value of its first branch: Avro 1.12 allows any branch, the libraries before it do not.
    """
    return list(_Defaults().of_type(schema, (), ""))


def unfit_defaults(version: SchemaVersion) -> list[Finding]:
    """A finding for each wrong default of a committed version."""
    return [
        Finding(
            version.subject, version.version, Rule.DEFAULT_TYPE, each.message, field=field_shown(each.path),
            breaks="readers and registries that check defaults refuse the schema; others read values that nobody wrote",
            fix="give it a default that is a value of its type", file=version.path,
            line=line_of(version.parsed, each.path),
        )
        for each in wrong_defaults(version.parsed)
    ]  # fmt: skip


class _Defaults:
    """One pass over a schema; remembers the named types defined so far."""

    def __init__(self) -> None:
        self._named: dict[str, tuple[dict[str, Any], str]] = {}
        """Definition and namespace within it, by full name."""

    def of_type(self, schema: Any, path: tuple[str, ...], namespace: str) -> Iterator[WrongDefault]:
        if isinstance(schema, list):
            for branch in schema:
                yield from self.of_type(branch, path, namespace)
            return
        if not isinstance(schema, dict):
            return
        kind = schema.get("type")
        if kind in ("record", "error", "enum", "fixed"):  # a list is no member of a set
            namespace = self._define(schema, namespace)
        if kind in ("record", "error"):
            for field in schema["fields"]:
                at = (*path, str(field["name"]))
                yield from self.of_type(field["type"], at, namespace)
                why = self._misfit(field["default"], field["type"], namespace) if "default" in field else None
                if why is not None:
                    yield WrongDefault(at, f"default {_json(field['default'])} is no value of its type: {why}")
        elif kind == "enum":
            if "default" in schema and schema["default"] not in schema["symbols"]:
                yield WrongDefault(path, f"default {_json(schema['default'])} is none of the enum's symbols")
        elif kind in ("array", "map"):
            inner, step = ("items", ITEMS) if kind == "array" else ("values", VALUES)
            yield from self.of_type(schema[inner], (*path, step), namespace)
        elif isinstance(kind, dict | list):
            yield from self.of_type(kind, path, namespace)

    def _define(self, schema: dict[str, Any], namespace: str) -> str:
        """Remember a named type; returns the namespace of what is in it."""
        before, _, name = str(schema["name"]).rpartition(".")
        namespace = before or str(schema.get("namespace") or namespace)
        self._named[f"{namespace}.{name}" if namespace else name] = schema, namespace
        return namespace

    def _misfit(self, value: Any, schema: Any, namespace: str) -> str | None:  # noqa: PLR0911 - one for each kind of type
        """Why a value does not fit a type; None if it does."""
        if isinstance(schema, list):
            why = self._misfit(value, schema[0], namespace) if schema else "the union has no branch"
            return why and f"{why} (the default of a union is a value of its first branch)"
        if isinstance(schema, str):
            if schema in _PRIMITIVES:
                return None if _PRIMITIVES[schema](value) else f"it is no {schema}"
            found = self._named.get(schema if "." in schema or not namespace else f"{namespace}.{schema}")
            found = found or self._named.get(schema)
            return None if found is None else self._misfit_of_named(value, *found)
        kind = schema["type"]
        match kind:
            case "record" | "error" | "enum" | "fixed":
                before, _, _ = str(schema["name"]).rpartition(".")
                return self._misfit_of_named(value, schema, before or str(schema.get("namespace") or namespace))
            case "array":
                inner = value if isinstance(value, list) else None
                return self._misfit_of_parts(inner, schema["items"], namespace, "array")
            case "map":
                inner = list(value.values()) if isinstance(value, dict) else None
                return self._misfit_of_parts(inner, schema["values"], namespace, "map")
            case _:
                return self._misfit(value, kind, namespace)

    def _misfit_of_parts(self, values: list[Any] | None, schema: Any, namespace: str, kind: str) -> str | None:
        if values is None:
            return f"it is no {kind}"
        reasons = (self._misfit(value, schema, namespace) for value in values)
        return next((f"in the {kind}: {why}" for why in reasons if why is not None), None)

    def _misfit_of_named(self, value: Any, schema: dict[str, Any], namespace: str) -> str | None:
        name = str(schema["name"]).rpartition(".")[2]
        match schema["type"]:
            case "enum":
                return None if value in schema["symbols"] else f"it is none of the symbols of {name}"
            case "fixed":
                fits = _is_bytes(value) and len(value) == schema["size"]
                return None if fits else f"it is no text of {schema['size']} characters, one for each byte of {name}"
        if not isinstance(value, dict):
            return f"it is no object with the fields of {name}"
        for field in schema["fields"]:
            if field["name"] not in value:
                if "default" not in field:
                    return f"field {field['name']!r} of {name} has no value and no default"
            elif (why := self._misfit(value[field["name"]], field["type"], namespace)) is not None:
                return f"field {field['name']!r} of {name}: {why}"
        return None


def _is_integer(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(greatest: float) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return abs(value) <= greatest and not (isinstance(value, float) and math.isnan(value))

    return fits


def _is_bytes(value: Any) -> bool:
    return isinstance(value, str) and all(ord(character) <= _BYTE_MAX for character in value)


def _is_text(value: Any) -> bool:
    """Whether text can be written as UTF-8: half of a surrogate pair cannot."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


_PRIMITIVES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    **{name: _is_integer(*limits) for name, limits in _INTEGERS.items()},
    **{name: _is_number(greatest) for name, greatest in _NUMBERS_MAX.items()},
    "bytes": _is_bytes,
    "string": _is_text,
}


def _json(value: Any) -> str:
    return json.dumps(value)
