"""The verdict before deploy: what each new version of a subject breaks, by the committed versions and by the registry.

Offline first: the verdict needs nothing but the files. Where a registry answers, three more questions are put to it:
does it hold what the files say (versions are append-only), is there something in it that no file says, and does it come
to the same verdict as we do about what it would be given. It must: a disagreement means that one of the two is wrong
about what will be readable, and nothing is registered until somebody has looked.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from streams.operators.declaration import Pipeline
from streams.operators.matching import named_types
from streams.operators.resolve import unbounded, without_logical_types
from streams.registry import compatibility
from streams.registry.catalog import Catalog, SchemaVersion
from streams.registry.client import RegisteredVersion, Registry, same_schema
from streams.registry.compatibility import InvalidSchema, Misfit
from streams.registry.explain import explained, merged
from streams.registry.findings import Direction, Finding, Rule, versions_in_words
from streams.registry.lock import Lock, edited, unlocked
from streams.registry.modes import Mode
from streams.registry.usage import unmet_needs


@dataclass(frozen=True, slots=True)
class RegistryState:
    """What a registry says of a subject."""

    mode: Mode | None
    """The mode in force there, the registry's default included; None for one that we do not know."""
    is_own_mode: bool
    """Whether it is set for the subject itself."""
    versions: tuple[RegisteredVersion, ...] = ()

    def find(self, text: str) -> RegisteredVersion | None:
        """The registered version that says the same as a schema."""
        return next((each for each in self.versions if same_schema(each.text, text)), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about one subject."""

    subject: str
    mode: Mode
    versions: tuple[int, ...]
    findings: tuple[Finding, ...]
    unlocked: tuple[int, ...] = ()
    registry: RegistryState | None = None
    agreed: tuple[int, ...] = field(default=())
    """Versions about which the registry was asked and said the same as we do."""


def check_subject(
    catalog: Catalog, subject: str, lock: Lock, pipelines: Iterable[Pipeline], *, mode: Mode | None = None
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
    parsed = _Parsed()
    for position, version in enumerate(versions):
        if version is versions[-1] or version in new:
            before = versions[:position]
            compared = set(mode.compared([each.version for each in before]))
            findings += _incompatible(parsed, version, [each for each in before if each.version in compared], mode)
            findings += [*_undecodable(parsed, version), *_ambiguous(version)]
    findings += unmet_needs(versions[-1], pipelines)
    numbers = tuple(each.version for each in versions)
    return Verdict(subject, mode, numbers, tuple(findings), tuple(each.version for each in new))


def not_locked(catalog: Catalog, verdict: Verdict) -> list[Finding]:
    """A finding for each version that is not in the lock: where that is asked for, nothing unlocked is committed."""
    return [
        Finding(
            version.subject, version.version, Rule.UNLOCKED, "not in schemas/versions.lock",
            breaks="nobody yet: but an edit of it would go unnoticed",
            fix="`streams schemas lock`, and commit the line that it adds", file=version.path,
        )
        for version in catalog.versions(verdict.subject)
        if version.version in verdict.unlocked
    ]  # fmt: skip


def with_registry(catalog: Catalog, registry: Registry, verdict: Verdict) -> Verdict:
    """The verdict, and what the registry adds to it.

    Raises:
        RegistryUnavailable: no usable answer.

    """
    state = registry_state(registry, verdict.subject)
    versions = catalog.versions(verdict.subject)
    findings = [*verdict.findings, *_contradicted(versions, state)]
    agreed: list[int] = []
    parsed = _Parsed()
    edited_there = {each.version for each in findings if each.rule is Rule.EDITED}
    for version in versions:
        if not state.versions or version.version in edited_there:
            continue
        if state.find(version.text) is None or version is versions[-1]:
            found = _disagreement(parsed, registry, state, version)
            agreed += [version.version] if found is None else []
            findings += [] if found is None else [found]
    return replace(verdict, findings=tuple(findings), registry=state, agreed=tuple(agreed))


def registry_state(registry: Registry, subject: str) -> RegistryState:
    """What the registry has of a subject.

    Raises:
        RegistryUnavailable: no usable answer.

    """
    own = registry.compatibility(subject)
    mode = own or registry.default_compatibility()
    known = Mode(mode) if mode in set(Mode) else None
    return RegistryState(known, own is not None, tuple(registry.registered(subject)))


class _Parsed:
    """Schemas parsed once each."""

    def __init__(self) -> None:
        self._known: dict[str, compatibility.Schema] = {}

    def of(self, text: str) -> compatibility.Schema:
        """The schema of a text.

        Raises:
            InvalidSchema: it is none.

        """
        if text not in self._known:
            self._known[text] = compatibility.parsed(text)
        return self._known[text]


def _incompatible(
    parsed: _Parsed, version: SchemaVersion, before: Sequence[SchemaVersion], mode: Mode
) -> list[Finding]:
    """What a version breaks, by Avro's rules and by what they do not say."""
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
            found += [explained(version, number, each, direction) for each in compatibility.misfits(reader, writer)]
            found += [
                _text_of_bytes(version, number, each, direction)
                for each in compatibility.texts_of_bytes(reader, writer)
            ]
        found += [_changed_meaning(version, number, each) for each in compatibility.changed_meanings(new, schema)]
    return merged(found)


def _changed_meaning(version: SchemaVersion, old: int, misfit: Misfit) -> Finding:
    return replace(
        explained(version, old, misfit, Direction.BACKWARD),
        direction=None,
        message=f"{misfit.writer} became {misfit.reader}: the same stored number now means another value",
        breaks="every reader of the other version: it decodes, and is wrong",
        fix="keep the logical type, and add a field with the new one beside it, with a default",
    )


def _text_of_bytes(version: SchemaVersion, old: int, misfit: Misfit, direction: Direction) -> Finding:
    return replace(
        explained(version, old, misfit, direction),
        message="bytes read as a string: allowed by Avro, but bytes that are no UTF-8 cannot be read",
        fix="keep bytes, and add a string field beside it, with a default",
    )


def _undecodable(parsed: _Parsed, version: SchemaVersion) -> Iterator[Finding]:
    """What every Avro library may decode, but this engine does not, since a small record could bring it down."""
    try:
        parsed.of(version.text)
    except InvalidSchema:
        return
    why = unbounded(without_logical_types(version.parsed))
    if why is not None:
        yield Finding(
            version.subject, version.version, Rule.UNBOUNDED, why, file=version.path,
            breaks="workers: they send every record of this version to the dead letters",
            fix="bound it: a list of records instead of a record in itself, items that have a value",
        )  # fmt: skip


def _ambiguous(version: SchemaVersion) -> Iterator[Finding]:
    """Aliases that are the name of another field: whose value is read is up to the library."""
    for record in named_types(version.parsed):
        names = [str(field["name"]) for field in record.get("fields", ())]
        for field in record.get("fields", ()):
            for alias in field.get("aliases", ()):
                if alias in names:
                    yield Finding(
                        version.subject, version.version, Rule.AMBIGUOUS_ALIAS,
                        f"its alias {alias!r} is the name of another field", field=str(field["name"]),
                        breaks="readers in other languages: they take the value of either field",
                        fix="take the alias away", file=version.path, line=getattr(field, "line", 1),
                    )  # fmt: skip


# --- the registry -----------------------------------------------------------------------------------------------------


def _contradicted(versions: Sequence[SchemaVersion], state: RegistryState) -> Iterator[Finding]:
    """Where the registry holds something else than the files."""
    files = {each.version: each for each in versions}
    unknown = [each for each in state.versions if not any(same_schema(each.text, v.text) for v in versions)]
    for registered in unknown:
        version = files.get(registered.version)
        if version is not None and state.find(version.text) is None:
            yield Finding(
                version.subject, version.version, Rule.EDITED,
                f"edited after it was registered: the registry has something else as version {registered.version} "
                f"(id {registered.schema_id})",
                breaks="events that were written with what is registered",
                fix=f"restore the file, and put the change into version {versions[-1].version + 1}",
                file=version.path,
            )  # fmt: skip
        else:
            subject = versions[0].subject
            yield Finding(
                subject, registered.version, Rule.NOT_COMMITTED,
                f"the registry's version {registered.version} (id {registered.schema_id}) is in no file",
                breaks="whoever changes the schema next without knowing of it",
                fix=f"commit it as {versions[-1].path.parent.name}/{versions[-1].version + 1}.avsc, or delete it there",
                file=versions[-1].path,
            )  # fmt: skip


def _disagreement(parsed: _Parsed, registry: Registry, state: RegistryState, version: SchemaVersion) -> Finding | None:
    """Whether the registry and we think differently of a version, given what it holds and the mode it has."""
    if state.mode is None:
        return None
    numbers = state.mode.compared([each.version for each in state.versions])
    try:
        new = parsed.of(version.text)
        old = [(each.version, parsed.of(each.text)) for each in state.versions if each.version in numbers]
    except InvalidSchema:
        return None
    misread = [
        number
        for number, schema in old
        for direction in state.mode.directions
        if not compatibility.can_read(*((new, schema) if direction is Direction.BACKWARD else (schema, new)))
    ]
    reasons = registry.check(version.subject, version.text)
    if bool(misread) == bool(reasons):
        return None
    ours = f"incompatible with its {versions_in_words(misread)}" if misread else "compatible"
    theirs = f"incompatible ({'; '.join(reasons)})" if reasons else "compatible"
    return Finding(
        version.subject, version.version, Rule.DISAGREEMENT,
        f"under {state.mode} the gate says {ours}, the registry says {theirs}",
        breaks="nobody yet: which of the two is right decides who",
        fix="register nothing; look at the difference (`streams schemas diff`) and report it",
        file=version.path,
    )  # fmt: skip
