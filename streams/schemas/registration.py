"""Registers the committed schemas: judges them first, changes nothing twice, and reads back the result."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.schemas.catalog import Catalog, SchemaVersion
from streams.schemas.client import RegisteredVersion, Registry, SchemaRefused, same_schema
from streams.schemas.gate.agreement import registry_state, with_registry
from streams.schemas.gate.check import check_subject
from streams.schemas.gate.findings import Finding, Rule
from streams.schemas.gate.usage import Usage, usage_of
from streams.schemas.gate.verdict import RegistryState, Verdict
from streams.schemas.lock import read_lock


class Outcome(StrEnum):
    """Outcome for a schema version."""

    REGISTERED = "registered"
    UNCHANGED = "unchanged"
    INCOMPATIBLE = "incompatible"
    EDITED = "edited"
    WOULD_REGISTER = "would register"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Registration:
    """One committed schema version, its id in the registry (None: not there), and the findings about it."""

    subject: str
    version: int
    outcome: Outcome
    schema_id: int | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """The findings, a line each."""
        return tuple(in_one_line(finding) for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Listing:
    """A subject, its versions, where it is used, and how files and registry differ."""

    versions: tuple[Registration, ...]
    mode: str
    usage: Usage
    drift: tuple[str, ...]


def in_one_line(finding: Finding) -> str:
    """A finding with its field, who breaks, and what to do instead."""
    place = f"{finding.field}: " if finding.field else ""
    breaks = f"; breaks {finding.breaks}" if finding.breaks else ""
    return f"{place}{finding.message}{breaks}; {finding.fix}"


def register_schemas(
    catalog: Catalog, registry: Registry, subjects: Sequence[str] = (), *, flows: Iterable[Pipeline] = ()
) -> list[Registration]:
    """Register all versions of `subjects` (default: all), oldest first, under the subject's mode.

    What is registered already stays as it is. Nothing is registered that the gate refuses, and no version after it.
    Each id is fetched again and its schema compared with the file, so that the ids returned are the ids consumers will
    resolve.

    Raises:
        UsageError: there is no such subject.
        RegistryUnavailable: no usable answer; what was registered before stays registered.
        StreamsError: the registry gives back another schema than it was given.

    """
    done: list[Registration] = []
    for verdict, state in _judged(catalog, registry, subjects, flows):
        if state.mode is not verdict.mode or not state.is_own_mode:
            registry.set_compatibility(verdict.subject, verdict.mode)
        for version in catalog.versions(verdict.subject):
            result = _refused(version, verdict, catalog) or _register(registry, version, state)
            done.append(result)
            if result.findings:
                break
    return done


def preview_schemas(
    catalog: Catalog, registry: Registry, subjects: Sequence[str] = (), *, flows: Iterable[Pipeline] = ()
) -> list[Registration]:
    """What `register_schemas` would do; changes nothing."""
    done: list[Registration] = []
    for verdict, state in _judged(catalog, registry, subjects, flows):
        for version in catalog.versions(verdict.subject):
            result = _refused(version, verdict, catalog) or _found(
                version, state, Outcome.UNCHANGED, Outcome.WOULD_REGISTER
            )
            done.append(result)
            if result.findings:
                break
    return done


def list_schemas(catalog: Catalog, registry: Registry, *, flows: Sequence[Pipeline] = ()) -> list[Listing]:
    """Every committed subject: versions and their ids, use, and drift between files and registry."""
    lock = read_lock(catalog.root)
    listed: list[Listing] = []
    for subject in catalog.subjects():
        verdict = check_subject(catalog, subject, lock, ())
        verdict = with_registry(catalog, registry, verdict)
        state = verdict.registry or registry_state(registry, subject)
        found = [_found(version, state, Outcome.REGISTERED, Outcome.MISSING) for version in catalog.versions(subject)]
        drift = [f"version {f.version}: {f.message}" for f in verdict.findings if f.rule in _DRIFT]
        drift += [
            f"the registry's version {each.version} (id {each.schema_id}) is in no file{_unreadable(state, each)}"
            for each in verdict.not_committed
        ]
        missing = [str(each.version) for each in found if each.outcome is Outcome.MISSING]
        if missing:
            drift.append(f"not registered: version {', '.join(missing)}")
        if state.versions and state.mode is not verdict.mode:
            drift.append(f"the registry's mode is {state.mode or 'unknown'}, not {verdict.mode}")
        listed.append(Listing(tuple(found), verdict.mode, usage_of(subject, flows), tuple(drift)))
    return listed


def _unreadable(state: RegistryState, version: RegisteredVersion) -> str:
    why = state.unreadable.get(version.version)
    return f" and not readable: {why}" if why else ""


_DRIFT = frozenset({Rule.EDITED, Rule.REMOVED})


def _judged(
    catalog: Catalog, registry: Registry, subjects: Sequence[str], flows: Iterable[Pipeline]
) -> list[tuple[Verdict, RegistryState]]:
    """Verdicts on all subjects before anything is registered."""
    lock = read_lock(catalog.root)
    found: list[tuple[Verdict, RegistryState]] = []
    for subject in subjects or catalog.subjects():
        verdict = with_registry(catalog, registry, check_subject(catalog, subject, lock, flows))
        if verdict.registry is None:
            raise StreamsError(f"{subject}: the registry was not asked")
        found.append((verdict, verdict.registry))
    return found


def _refused(version: SchemaVersion, verdict: Verdict, catalog: Catalog) -> Registration | None:
    """The version as refused, if there are findings about it, or for the newest version about the subject."""
    is_newest = version is catalog.latest(verdict.subject)
    found = tuple(
        f for f in verdict.findings if f.version == version.version or (is_newest and f.version > version.version)
    )
    if not found:
        return None
    outcome = Outcome.EDITED if any(f.rule is Rule.EDITED for f in found) else Outcome.INCOMPATIBLE
    known = verdict.registry.find(version.text) if verdict.registry else None
    return Registration(version.subject, version.version, outcome, known.schema_id if known else None, found)


def _found(version: SchemaVersion, state: RegistryState, there: Outcome, absent: Outcome) -> Registration:
    known = state.find(version.text)
    if known is None:
        return Registration(version.subject, version.version, absent)
    return Registration(version.subject, version.version, there, known.schema_id)


def _register(registry: Registry, version: SchemaVersion, state: RegistryState) -> Registration:
    subject = version.subject
    known = state.find(version.text)
    if known is not None:
        schema_id, outcome = known.schema_id, Outcome.UNCHANGED
    else:
        try:
            schema_id, outcome = registry.register(subject, version.text), Outcome.REGISTERED
        except SchemaRefused as refused:
            return Registration(subject, version.version, Outcome.INCOMPATIBLE, None, (_against_us(version, refused),))
    if not same_schema(registry.schema_by_id(schema_id), version.text):
        raise StreamsError(
            f"{version.path}: the registry's schema {schema_id} is another one than this file: "
            "was a committed version edited? Add a new version instead"
        )
    return Registration(subject, version.version, outcome, schema_id)


def _against_us(version: SchemaVersion, refused: SchemaRefused) -> Finding:
    return Finding(
        version.subject, version.version, Rule.DISAGREEMENT, f"the gate says compatible, but {refused}",
        fix="look at the difference (`streams schemas diff`) and report it", file=Path(version.path),
    )  # fmt: skip
