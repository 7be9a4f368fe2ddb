"""Writes out schema references: one self-contained Avro schema from a schema and those that it refers to.

A registered schema may name types that are defined under other subjects (Confluent's schema references), which may
refer to further ones. Reading or checking a schema needs these definitions.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Schema = Any

_BUILT_IN: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string", "array", "map"})
_NAMED: Final = frozenset({"record", "error", "enum", "fixed"})


@dataclass(frozen=True, slots=True)
class Reference:
    """Where the definition of a type is registered."""

    name: str
    """The full name of the type; for other kinds of schema, what their import says."""
    subject: str
    version: int


def inlined(text: str, referenced: Sequence[str]) -> str:
    """The schema `text` with each type that it takes from `referenced` defined where it is first used.

    `referenced` are the texts of all schemas that it refers to, directly or through others, in any order. A type that
    several of them define or use (a diamond) is defined once. A name that none of them defines is left as it is. With
    nothing referenced the text is returned as it is.

    Raises:
        ValueError: a text is no JSON, or nested too deeply.

    """
    if not referenced:
        return text
    try:
        writer = _Writer()
        for each in referenced:
            writer.collect(json.loads(each), "")
        return json.dumps(writer.written(json.loads(text), ""))
    except RecursionError:
        raise ValueError("nested too deeply") from None


class _Writer:
    """Writes a schema with definitions in place of names."""

    def __init__(self) -> None:
        self._available: dict[str, tuple[Schema, str]] = {}
        """Definitions by full name, each with the namespace that surrounds it."""
        self._defined: set[str] = set()
        """Full names of the types defined so far."""

    def collect(self, schema: Schema, namespace: str) -> None:
        """Make every type that a schema defines available."""
        if isinstance(schema, list):
            for branch in schema:
                self.collect(branch, namespace)
        elif isinstance(schema, dict):
            if _is_definition(schema):
                inner, name = _named(schema, namespace)
                self._available.setdefault(_full(name, inner), (schema, namespace))
                namespace = inner
            for part in _parts(schema):
                self.collect(part, namespace)

    def written(self, schema: Schema, namespace: str) -> Schema:
        """A schema within `namespace`, written out."""
        if isinstance(schema, list):
            return [self.written(branch, namespace) for branch in schema]
        if isinstance(schema, str):
            return self._by_name(schema, namespace)
        if not isinstance(schema, dict):
            return schema
        made = dict(schema)
        if _is_definition(schema):
            namespace, name = _named(schema, namespace)
            full = _full(name, namespace)
            if full in self._defined:
                return full
            self._defined.add(full)
            made |= {"name": name, "namespace": namespace}
        for part in ("type", "items", "values"):
            if part in schema and not (part == "type" and _is_definition(schema)):
                made[part] = self.written(schema[part], namespace)
        if isinstance(schema.get("fields"), list):
            made["fields"] = [
                {**field, "type": self.written(field["type"], namespace)}
                if isinstance(field, dict) and "type" in field
                else field
                for field in schema["fields"]
            ]
        return made

    def _by_name(self, name: str, namespace: str) -> Schema:
        if name in _BUILT_IN:
            return name
        candidates = (_full(name, namespace), name)
        full = next((each for each in candidates if each in self._defined or each in self._available), candidates[0])
        if full in self._defined or full not in self._available:
            return full
        definition, around = self._available[full]
        return self.written(definition, around)


def _is_definition(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return isinstance(kind, str) and kind in _NAMED and isinstance(schema.get("name"), str)


def _named(schema: Mapping[str, Any], namespace: str) -> tuple[str, str]:
    """Namespace and name of a definition within `namespace`."""
    before, _, name = str(schema["name"]).rpartition(".")
    return before or str(schema.get("namespace", namespace) or ""), name


def _full(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _parts(schema: Mapping[str, Any]) -> list[Schema]:
    """The types within a type."""
    fields = schema.get("fields")
    parts = [field.get("type") for field in fields if isinstance(field, dict)] if isinstance(fields, list) else []
    return parts + [schema[part] for part in ("type", "items", "values") if isinstance(schema.get(part), dict | list)]
