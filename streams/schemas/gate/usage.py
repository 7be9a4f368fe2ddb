"""Which flows read or write a subject, and what they need of its schema."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from streams.avro.resolve import column_kind, misfit_default, without_logical_types
from streams.flow.checks import did_you_mean
from streams.flow.declaration import Pipeline
from streams.flow.inputs import Input
from streams.schemas.catalog import SchemaVersion
from streams.schemas.gate.findings import Finding, Rule

_INTEGERS: Final = frozenset({"int", "long"})
_NUMBERS: Final = frozenset({"int", "long", "float", "double", "boolean", "enum"})


@dataclass(frozen=True, slots=True)
class Usage:
    """Topics and flows that use a subject."""

    topics: tuple[str, ...]
    readers: tuple[str, ...]
    """Flows whose source has this subject."""
    writers: tuple[str, ...]
    """Flows that write records of this subject."""


def usage_of(subject: str, flows: Iterable[Pipeline]) -> Usage:
    """Topics and flows that use a subject; empty if none does."""
    topics: list[str] = []
    readers: list[str] = []
    writers: list[str] = []
    for flow in flows:
        for topic in flow.topics():
            if topic.subject == subject:
                topics.append(topic.name)
                read = {one.topic for one in flow.inputs}
                (readers if topic.name in read else writers).append(flow.name)
    return Usage(tuple(topics), tuple(readers), tuple(writers))


def unmet_needs(version: SchemaVersion, flows: Iterable[Pipeline]) -> list[Finding]:
    """Fields that a flow reads and that a version, the newest one, lacks or has with another type."""
    return [
        finding
        for flow in flows
        for one in flow.inputs
        if one.subject == version.subject
        for finding in _unmet(version, flow, one)
    ]


def _unmet(version: SchemaVersion, flow: Pipeline, one: Input) -> Iterable[Finding]:
    fields = {field["name"]: field for field in version.parsed["fields"]}
    needs: dict[str, tuple[frozenset[str], bool, str]] = {
        one.id_field: (frozenset({"string"}), False, "its id"),
        one.key_field: (frozenset({"string"}), one.is_internal, "its key"),
        one.time_field: (frozenset({"long"}), False, "its event time"),
        one.sequence_field: (_INTEGERS, False, "its sequence"),
        **dict.fromkeys(one.payload_fields, (_NUMBERS, True, "a number that it folds")),
        **{name: (frozenset({"string"}), True, "a text that it folds") for name in one.text_fields},
    }
    for name, (kinds, nullable, role) in needs.items():
        field = fields.get(name)
        message = None
        if field is None:
            hint = did_you_mean(name, fields)
            message = f"missing: flow {flow.name} reads it as {role}{hint}"
        elif not fits(field["type"], kinds, nullable=nullable):
            wanted = "number, boolean or enum" if kinds == _NUMBERS else " or ".join(sorted(kinds))
            message = f"no {wanted}{'' if nullable else ' that is never null'}: flow {flow.name} reads it as {role}"
        elif (why := misfit_default({**field, "type": without_logical_types(field["type"])})) is not None:
            message = f"{why}: a record that lacks it could not be read"
        if message is not None:
            yield Finding(
                version.subject, version.version, Rule.PIPELINE_FIELD, message, field=name, file=version.path,
                breaks=f"flow {flow.name}: its workers would not start",
                fix="keep the field, or first take it out of the flow's declaration",
                line=getattr(field, "line", 1),
            )  # fmt: skip


def fits(schema: Any, kinds: frozenset[str], *, nullable: bool) -> bool:
    """Whether a field's type is one of `kinds`, or null as well where that is allowed."""
    kind = column_kind(without_logical_types(schema))
    plain = kind.rstrip("?0123456789")
    return plain in kinds and (nullable or not kind.endswith("?"))
