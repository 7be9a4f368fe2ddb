"""The differences between two schemas, in words: information for people, not a verdict."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from streams.schemas.gate.explain import field_shown
from streams.schemas.located import ITEMS, VALUES

_NAMED: Final = ("record", "enum", "fixed")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs."""

    field: str
    """Path of the field; empty: the schema itself."""
    what: str
    before: Any = None
    after: Any = None

    def in_words(self) -> str:
        """`speed_kmh: type double -> float`."""
        place = f"{self.field}: " if self.field else ""
        if self.what in {"added", "removed", "reordered"}:
            detail = self.after if self.before is None else self.before
            return f"{place}{self.what}" + (f" ({_text(detail)})" if detail is not None else "")
        return f"{place}{self.what} {_text(self.before)} -> {_text(self.after)}"


def differences(before: Any, after: Any) -> list[Difference]:
    """All differences between two schemas, field by field."""
    return list(_type(before, after, ()))


def _type(before: Any, after: Any, path: tuple[str, ...]) -> Iterator[Difference]:
    """Differences of two types."""
    before, after = _unwrapped(before), _unwrapped(after)
    if before == after:
        return
    if isinstance(before, list) and isinstance(after, list):
        yield from _union(before, after, path)
        return
    if not (isinstance(before, dict) and isinstance(after, dict) and before.get("type") == after.get("type")):
        yield Difference(field_shown(path), "type", _brief(before), _brief(after))
        return
    for attribute in sorted((before.keys() | after.keys()) - {"type", "fields", "items", "values", "symbols"}):
        yield from _attribute(before, after, attribute, path)
    match before["type"]:
        case "record":
            yield from _fields(before["fields"], after["fields"], path)
        case "enum":
            yield from _symbols(before["symbols"], after["symbols"], path)
        case "array":
            yield from _type(before["items"], after["items"], (*path, ITEMS))
        case "map":
            yield from _type(before["values"], after["values"], (*path, VALUES))


def _union(before: list[Any], after: list[Any], path: tuple[str, ...]) -> Iterator[Difference]:
    names_before, names_after = [_brief(each) for each in before], [_brief(each) for each in after]
    if names_before != names_after:
        yield Difference(field_shown(path), "type", _brief(before), _brief(after))
    for branch, name in zip(after, names_after, strict=True):
        if name in names_before:
            yield from _type(before[names_before.index(name)], branch, path)


def _fields(before: list[Any], after: list[Any], path: tuple[str, ...]) -> Iterator[Difference]:
    old = {each["name"]: each for each in before}
    matched: list[str] = []  # names that the kept fields had, in their new order
    for field in after:
        at = (*path, field["name"])
        name = next((n for n in (field["name"], *field.get("aliases", ())) if n in old), None)
        if name is None:
            yield Difference(field_shown(at), "added", None, _signature(field))
            continue
        matched.append(name)
        if name != field["name"]:
            yield Difference(field_shown(at), "renamed", name, field["name"])
        yield from _type(old[name]["type"], field["type"], at)
        for attribute in sorted((old[name].keys() | field.keys()) - {"name", "type"}):
            yield from _attribute(old[name], field, attribute, at)
    for name, field in old.items():
        if name not in matched:
            yield Difference(field_shown((*path, name)), "removed", _signature(field), None)
    if matched != [each["name"] for each in before if each["name"] in matched]:
        yield Difference(field_shown(path), "reordered")


def _symbols(before: list[str], after: list[str], path: tuple[str, ...]) -> Iterator[Difference]:
    if before != after:
        yield Difference(field_shown(path), "symbols", ", ".join(before), ", ".join(after))


def _attribute(before: dict[str, Any], after: dict[str, Any], name: str, path: tuple[str, ...]) -> Iterator[Difference]:
    missing = object()
    one, other = before.get(name, missing), after.get(name, missing)
    if one is not other and one != other:
        absent = "(none)"
        yield Difference(
            field_shown(path), name, absent if one is missing else one, absent if other is missing else other
        )


def _unwrapped(schema: Any) -> Any:
    """`{"type": "long"}` as `long`."""
    while isinstance(schema, dict) and schema.keys() == {"type"}:
        schema = schema["type"]
    return schema


def _brief(schema: Any) -> str:
    """A type in one or two words."""
    schema = _unwrapped(schema)
    if isinstance(schema, list):
        return "[" + ", ".join(_brief(branch) for branch in schema) + "]"
    if not isinstance(schema, dict):
        return str(schema)
    kind = schema.get("type")
    if kind in _NAMED:
        return f"{kind} {schema.get('name')}"
    if kind in {"array", "map"}:
        return f"{kind} of {_brief(schema['items' if kind == 'array' else 'values'])}"
    logical = schema.get("logicalType")
    return f"{_brief(kind)} ({logical})" if logical else _brief(kind)


def _signature(field: dict[str, Any]) -> str:
    default = f", default {json.dumps(field['default'])}" if "default" in field else ", no default"
    return f"{_brief(field['type'])}{default}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
