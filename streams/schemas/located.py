"""JSON with line numbers, so that a finding can name the line of the file."""

import json
import json.decoder
import json.scanner
from collections.abc import Sequence
from typing import Any, Final

ITEMS: Final = "[]"
VALUES: Final = "{}"


class Located(dict[str, Any]):
    """A JSON object, the line of its opening brace, and the names that it holds twice."""

    line: int = 1
    repeated: tuple[str, ...] = ()


class _LocatingDecoder(json.JSONDecoder):
    """The standard decoder with our own function for objects.

    Its C scanner has no such hook; the pure one, which it is itself checked against, has.
    """

    def __init__(self) -> None:
        super().__init__()
        plain = json.decoder.JSONObject  # type: ignore[attr-defined]

        def parse_object(s_and_end: tuple[str, int], *arguments: Any) -> tuple[Located, int]:
            text, start = s_and_end
            strict, scan_once, _hook, _pairs_hook, *memo = arguments
            pairs, end = plain(s_and_end, strict, scan_once, None, list, *memo)
            found = Located(pairs)
            found.line = text.count("\n", 0, start) + 1
            names = [name for name, _ in pairs]
            found.repeated = tuple(sorted({name for name in names if names.count(name) > 1}))
            return found, end

        self.parse_object = parse_object
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]


def located(text: str) -> Any:
    """The value of a JSON text, its objects as `Located`.

    Raises:
        json.JSONDecodeError: it is none; carries the line.
        RecursionError: it is nested too deeply.

    """
    return _LocatingDecoder().decode(text)


def line_of(schema: Any, path: Sequence[str]) -> int:
    """Line of the field that a path of field names, `[]` and `{}` leads to; as near as one gets to it."""
    line = schema.line if isinstance(schema, Located) else 1
    named: dict[str, Any] = {}
    _collect(schema, named)
    at: Any = schema
    for step in path:
        at = _below(at, step, named)
        if at is None:
            break
        if isinstance(at, Located):
            line = at.line
    return line


def _below(schema: Any, step: str, named: dict[str, Any]) -> Any:
    """The value after a step: a field (for a name), or the type of items or values."""
    if isinstance(schema, str):
        schema = named.get(schema.rpartition(".")[2])
    if isinstance(schema, list):
        return next((found for branch in schema if (found := _below(branch, step, named)) is not None), None)
    if not isinstance(schema, dict):
        return None
    if step in {ITEMS, VALUES}:
        inner = schema.get("items" if step == ITEMS else "values")
        return inner if inner is not None else _nested(schema, step, named)
    fields = schema.get("fields")
    if isinstance(fields, list):
        return next((each for each in fields if isinstance(each, dict) and each.get("name") == step), None)
    return _nested(schema, step, named)


def _nested(schema: dict[str, Any], step: str, named: dict[str, Any]) -> Any:
    """The same step within a field's type, or within a type written as an object."""
    return _below(schema["type"], step, named) if isinstance(schema.get("type"), dict | list | str) else None


def _collect(schema: Any, named: dict[str, Any]) -> None:
    """Types by their last name."""
    if isinstance(schema, list):
        for branch in schema:
            _collect(branch, named)
    elif isinstance(schema, dict):
        if isinstance(schema.get("name"), str) and schema.get("type") in ("record", "enum", "fixed"):
            named[schema["name"].rpartition(".")[2]] = schema
        for part in ("type", "items", "values", "fields"):
            if isinstance(schema.get(part), dict | list):
                _collect(schema[part], named)
