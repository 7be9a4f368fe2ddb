"""The verdict from the committed files alone: what each new version of a subject breaks.

What a registry adds to it is in `agreement`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from streams.avro.matching import named_types
from streams.avro.resolve import unbounded, without_logical_types
from streams.flow.declaration import Pipeline
from streams.schemas.catalog import Catalog, SchemaVersion
from streams.schemas.gate import compatibility
from streams.schemas.gate.compatibility import InvalidSchema, Misfit, Schema
from streams.schemas.gate.defaults import unfit_defaults
from streams.schemas.gate.explain import explained, merged
from streams.schemas.gate.findings import Direction, Finding, Rule
from streams.schemas.gate.modes import Mode
from streams.schemas.gate.row_schemas import unfit_rows
from streams.schemas.gate.usage import unmet_needs
from streams.schemas.gate.verdict import ParsedSchemas, Verdict
from streams.schemas.lock import Lock, edited, unlocked


def check_subject(
    catalog: Catalog, subject: str, lock: Lock, flows: Iterable[Pipeline], *, mode: Mode | None = None
) -> Verdict:
    """The verdict by the committed files alone.

    Every version that is not in the lock yet is held against those before it, the newest one always.

    Raises:
        UsageError: there is no such subject.

    """
    versions = catalog.versions(subject)
    mode = mode or catalog.settings(subject).compatibility
    new = unlocked(catalog, lock, subject)
    findings = edited(catalog, lock, subject)
    parsed = ParsedSchemas()
    for position, version in enumerate(versions):
        if version is versions[-1] or version in new:
            before = versions[:position]
            compared = set(mode.compared([each.version for each in before]))
            findings += _incompatible(parsed, version, [each for each in before if each.version in compared], mode)
            findings += [*unfit_defaults(version), *_undecodable(parsed, version), *_ambiguous(version)]
    flows = tuple(flows)
    findings += [*unmet_needs(versions[-1], flows), *unfit_rows(versions[-1], flows)]
    numbers = tuple(each.version for each in versions)
    return Verdict(subject, mode, numbers, tuple(findings), tuple(each.version for each in new))


def not_locked(catalog: Catalog, verdict: Verdict) -> list[Finding]:
    """A finding for each version that is not in the lock, for checks that allow no unlocked version."""
    return [
        Finding(
            version.subject, version.version, Rule.UNLOCKED, "not in schemas/versions.lock",
            breaks="nobody yet: but an edit of it would go unnoticed",
            fix="`streams schemas lock`, and commit the line that it adds", file=version.path,
        )
        for version in catalog.versions(verdict.subject)
        if version.version in verdict.unlocked
    ]  # fmt: skip


def _incompatible(
    parsed: ParsedSchemas, version: SchemaVersion, before: Sequence[SchemaVersion], mode: Mode
) -> list[Finding]:
    """What a version breaks, by Avro's rules and beyond them."""
    try:
        new = parsed.of(version.text)
        old = [(each.version, parsed.of(each.text)) for each in before]
    except InvalidSchema as error:
        return [
            Finding(
                version.subject, version.version, Rule.PARSE, f"not a valid Avro schema: {error}", file=version.path
            )
        ]
    found: list[Finding] = []
    for number, schema in old:
        for direction in mode.directions:
            reader, writer = (new, schema) if direction is Direction.BACKWARD else (schema, new)
            found += broken_by(version, number, reader, writer, direction)
    return merged(found)


def broken_by(version: SchemaVersion, old: int, reader: Schema, writer: Schema, direction: Direction) -> list[Finding]:
    """What a new version breaks of an old one in one direction, by Avro's rules and beyond them."""
    return [
        *(explained(version, old, each, direction) for each in compatibility.misfits(reader, writer)),
        *(_text_of_bytes(version, old, each, direction) for each in compatibility.texts_of_bytes(reader, writer)),
        *(_changed_meaning(version, old, each, direction) for each in compatibility.changed_meanings(reader, writer)),
    ]


def _changed_meaning(version: SchemaVersion, old: int, misfit: Misfit, direction: Direction) -> Finding:
    before, after = (
        (misfit.writer, misfit.reader) if direction is Direction.BACKWARD else (misfit.reader, misfit.writer)
    )
    return replace(
        explained(version, old, misfit, direction),
        direction=None,
        message=f"{before} became {after}: the same stored bytes now mean another value",
        breaks="every reader of the other version: it decodes, and is wrong, or it refuses the events",
        fix="keep the type, and add a field with the new one beside it, with a default",
    )


def _text_of_bytes(version: SchemaVersion, old: int, misfit: Misfit, direction: Direction) -> Finding:
    return replace(
        explained(version, old, misfit, direction),
        message="bytes read as a string: allowed by Avro, but bytes that are no UTF-8 cannot be read",
        fix="keep bytes, and add a string field beside it, with a default",
    )


def _undecodable(parsed: ParsedSchemas, version: SchemaVersion) -> Iterator[Finding]:
    """Schemas that Avro libraries may decode, but this engine does not, since a small record could exhaust it."""
    try:
        parsed.of(version.text)
    except InvalidSchema:
        return
    why = unbounded(without_logical_types(version.parsed))
    if why is not None:
        yield Finding(
            version.subject, version.version, Rule.UNBOUNDED, why, file=version.path,
            breaks="workers: they send every record of this version to the dead letters",
            fix="bound it: use a list of records instead of a record that contains itself, and items with a value",
        )  # fmt: skip


def _ambiguous(version: SchemaVersion) -> Iterator[Finding]:
    """Aliases that are the name of another field: libraries differ in whose value they read."""
    for record in named_types(version.parsed):
        names = [str(each["name"]) for each in record.get("fields", ())]
        for each in record.get("fields", ()):
            for alias in each.get("aliases", ()):
                if alias in names:
                    yield Finding(
                        version.subject, version.version, Rule.AMBIGUOUS_ALIAS,
                        f"its alias {alias!r} is the name of another field", field=str(each["name"]),
                        breaks="readers in other languages: they take the value of either field",
                        fix="take the alias away", file=version.path, line=getattr(each, "line", 1),
                    )  # fmt: skip
