"""Lints a single schema: naming, units, docs, defaults, logical types.

Consumers rely on names, docs and units. A null branch without a default makes the next version impossible; a logical
type in the wrong place changes the meaning of this one. `schemas/subjects.toml` exempts a field from a rule.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from streams.avro.resolve import without_logical_types
from streams.flow.declaration import Pipeline
from streams.schemas.catalog import SchemaVersion, SubjectSettings
from streams.schemas.gate.defaults import unfit_defaults
from streams.schemas.gate.explain import field_shown
from streams.schemas.gate.findings import Finding, Rule
from streams.schemas.gate.logical import misuse
from streams.schemas.gate.usage import fits
from streams.schemas.located import ITEMS, VALUES, Located, line_of

_SNAKE_CASE: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_PASCAL_CASE: Final = re.compile(r"[A-Z][A-Za-z0-9]*")
_UPPER_CASE: Final = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
_NAMESPACE: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
_SUBJECT: Final = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*\.v[1-9][0-9]*-(value|key)")
_NUMBERS: Final = frozenset({"int", "long", "float", "double"})

_UNIT_WORDS: Final = """
    ns us ms s min h d mm cm m km m2 m3 l ml g kg t c k f deg rad mps ms2 kmh mph kn hz khz mhz rpm v mv a ma w kw wh
    kwh j n nm pa hpa kpa bar percent pct ratio ppm bytes kb mb gb bits bps kbps db dbm eur usd gbp cents lux
"""
_UNITLESS_WORDS: Final = """
    count number sequence revision version index events records retries attempts items size port latitude longitude
    factor score rank level code
"""
UNITS: Final = frozenset(_UNIT_WORDS.split())
"""Words that name a unit, at the end of a field's name."""
UNITLESS: Final = frozenset(_UNITLESS_WORDS.split())
"""Words at the end of a name that need none: counts, ordinals, and coordinates, which are degrees by convention."""
_SAYS_UNIT: Final = re.compile(
    r"\b(a count|counter|count of|number of|in (degrees|metres|meters|km|seconds|milliseconds|percent))\b"
)
_USUAL: Final = {field.name: str(field.default) for field in dataclasses.fields(Pipeline)}
_TIME_WORDS: Final = frozenset({"time", "at", "since", "until", "timestamp"})


def lint(version: SchemaVersion, flows: Sequence[Pipeline], settings: SubjectSettings) -> list[Finding]:
    """All findings of lint about a version, in the order of the file."""
    check = _Lint(version)
    found = [
        *check.whole(),
        *check.type(version.parsed, (), top=True),
        *unfit_defaults(version),
        *check.event_fields(flows),
    ]
    return [
        f
        for f in sorted(found, key=lambda finding: finding.line)
        if f"{f.rule}:{f.field}" not in settings.lint_ignore and f.rule not in settings.lint_ignore
    ]


class _Lint:
    """The rules, over one schema."""

    def __init__(self, version: SchemaVersion) -> None:
        self._version = version

    def _finding(self, rule: Rule, path: Sequence[str], message: str, fix: str) -> Finding:
        version = self._version
        return Finding(
            version.subject, version.version, rule, message, fix=fix, field=field_shown(path), file=version.path,
            line=line_of(version.parsed, path),
        )  # fmt: skip

    def whole(self) -> Iterator[Finding]:
        """Apply the rules that judge the schema as a whole."""
        subject, schema = self._version.subject, self._version.parsed
        if not _SUBJECT.fullmatch(subject):
            yield self._finding(
                Rule.SUBJECT_NAME, (), f"{subject!r} is not <topic>.v<number>-value",
                "name it after a versioned topic, like gps.positions.v1-value: an incompatible change is a new topic",
            )  # fmt: skip
        namespace = str(schema.get("namespace") or str(schema.get("name", "")).rpartition(".")[0])
        if not _NAMESPACE.fullmatch(namespace):
            shown = f"namespace {namespace!r}" if namespace else "no namespace"
            yield self._finding(Rule.NAMESPACE, (), shown, 'give the record a lower-case one: "namespace": "logistics"')

    def type(self, schema: Any, path: tuple[str, ...], *, top: bool = False) -> Iterator[Finding]:
        """Rules about a type and everything in it."""
        if isinstance(schema, list):
            for branch in schema:
                yield from self.type(branch, path)
            return
        if not isinstance(schema, dict):
            return
        yield from self._repeated(schema, path)
        wrong = misuse(schema)
        if wrong is not None:
            yield self._finding(Rule.LOGICAL_TYPE, path, *wrong)
        kind = schema.get("type")
        if kind in ("record", "enum", "fixed"):
            yield from self._named(schema, path, top=top)
        if kind == "record":
            for field in schema["fields"]:
                yield from self._field(field, (*path, str(field.get("name"))))
        elif kind in ("array", "map"):
            inner, step = ("items", ITEMS) if kind == "array" else ("values", VALUES)
            yield from self.type(schema[inner], (*path, step))
        elif isinstance(kind, dict | list):
            yield from self.type(kind, path)

    def _named(self, schema: dict[str, Any], path: tuple[str, ...], *, top: bool) -> Iterator[Finding]:
        name = str(schema["name"]).rpartition(".")[2]
        if not _PASCAL_CASE.fullmatch(name):
            yield self._finding(
                Rule.NAME_STYLE, path, f"type {name!r} is not in PascalCase", "name it like GpsPosition"
            )
        if schema["type"] != "fixed" and not str(schema.get("doc") or "").strip():
            what = "the record" if top else f"{schema['type']} {name}"
            yield self._finding(Rule.DOC, path, f"{what} has no doc", "say in one sentence what it is")
        for symbol in schema.get("symbols", ()):
            if not _UPPER_CASE.fullmatch(str(symbol)):
                yield self._finding(
                    Rule.NAME_STYLE, path, f"symbol {symbol!r} is not in UPPER_CASE", "name it like PICKED_UP"
                )

    def _field(self, field: dict[str, Any], path: tuple[str, ...]) -> Iterator[Finding]:
        name, kind = path[-1], field["type"]
        yield from self._repeated(field, path)
        if not _SNAKE_CASE.fullmatch(name):
            yield self._finding(Rule.NAME_STYLE, path, f"{name!r} is not in snake_case", "name it like speed_kmh")
        if not str(field.get("doc") or "").strip():
            yield self._finding(Rule.DOC, path, "no doc", "say what it is, in which unit, and when it is null")
        if "logicalType" in field:
            yield self._finding(
                Rule.LOGICAL_TYPE, path, "logicalType stands beside the type, where it is ignored",
                f'put it into the type: "type": {{"type": {_json(kind)}, "logicalType": "{field["logicalType"]}"}}',
            )  # fmt: skip
        yield from self._default(field, path)
        yield from self._unit(field, path)
        yield from self.type(kind, path)

    def _repeated(self, schema: dict[str, Any], path: tuple[str, ...]) -> Iterator[Finding]:
        for name in schema.repeated if isinstance(schema, Located) else ():
            yield self._finding(
                Rule.REPEATED_ATTRIBUTE, path, f"{name!r} is said twice; the last one counts", "say it once"
            )

    def _default(self, field: dict[str, Any], path: tuple[str, ...]) -> Iterator[Finding]:
        kind = field["type"]
        if isinstance(kind, list) and "null" in kind and ("default" not in field or kind[0] != "null"):
            missing = "no default" if "default" not in field else f"its default is {_json(field['default'])}, not null"
            yield self._finding(
                Rule.OPTIONAL_DEFAULT, path, f"optional, but {missing}",
                'put "null" first, with "default": null: otherwise no later version can read without it, or drop it',
            )  # fmt: skip

    def _unit(self, field: dict[str, Any], path: tuple[str, ...]) -> Iterator[Finding]:
        kind, name, doc = without_logical_types(field["type"]), path[-1], str(field.get("doc") or "").lower()
        branches = kind if isinstance(kind, list) else [kind]
        if not any(branch in _NUMBERS for branch in branches if isinstance(branch, str)):
            return
        words = name.split("_")
        if "logicalType" in field or _has_logical_type(field["type"]):
            return
        if words[-1] in _TIME_WORDS:
            yield self._finding(
                Rule.LOGICAL_TYPE, path, "a time without a logical type: unit and epoch are not known",
                'make it {"type": "long", "logicalType": "timestamp-millis"}',
            )  # fmt: skip
        elif not (set(words[-2:]) & UNITS or words[-1] in UNITLESS or _SAYS_UNIT.search(doc)):
            yield self._finding(
                Rule.UNIT_SUFFIX, path, "a number whose name does not say its unit",
                f"name it like {name}_km or {name}_ms; for a count say in the doc that it is one",
            )  # fmt: skip

    def event_fields(self, flows: Sequence[Pipeline]) -> Iterator[Finding]:
        """An event has an id, a time and a key; in a flow's source under the declared names."""
        subject = self._version.subject
        if subject.endswith("-key") or any(
            topic.subject == subject and topic.name not in {one.topic for one in flow.inputs}
            for flow in flows
            for topic in flow.topics()
        ):
            return  # flows write rows, not events
        reader = next((flow for flow in flows if flow.subject == subject), None)
        needed: dict[str, tuple[str, str]] = {
            reader.id_field if reader else _USUAL["id_field"]: ("string", "the id: copies of an event are told by it"),
            reader.time_field if reader else _USUAL["time_field"]: ("long", "the event time: a timestamp-millis"),
        }
        fields = {field["name"]: field for field in self._version.parsed["fields"]}
        if reader is not None:
            needed[reader.key_field] = ("string", "the key: events are ordered and folded by it")
        elif not any(
            name.endswith("_id") and name not in needed and f["type"] == "string" for name, f in fields.items()
        ):
            yield self._finding(
                Rule.EVENT_FIELD, (), "no key: a field such as device_id, of type string",
                "add the field that events are ordered and folded by",
            )  # fmt: skip
        for name, (kind, role) in needed.items():
            field = fields.get(name)
            if field is None:
                yield self._finding(Rule.EVENT_FIELD, (name,), f"missing: {role}", f"add {name} of type {kind}")
            elif not fits(field["type"], frozenset({kind}), nullable=False):
                yield self._finding(
                    Rule.EVENT_FIELD, (name,), f"not a {kind}: {role}", f"make it a {kind} that is never null"
                )
            elif kind == "long" and _logical_types(field["type"]) != ["timestamp-millis"]:
                yield self._finding(
                    Rule.EVENT_FIELD,
                    (name,),
                    "not a timestamp-millis",
                    'add "logicalType": "timestamp-millis" to the type',
                )


def _has_logical_type(schema: Any) -> bool:
    return bool(_logical_types(schema))


def _logical_types(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for branch in schema for name in _logical_types(branch)]
    if isinstance(schema, dict) and "logicalType" in schema:
        return [str(schema["logicalType"])]
    return []


def _json(value: Any) -> str:
    return json.dumps(value)
