"""Compares the committed schemas with the registry, and adds the registry's verdict to that of the files.

It checks whether the registry's versions equal the files (versions are append-only), whether it has versions without a
file, and whether its verdict on new versions is the same. A different verdict means that one of the two is wrong about
what will be readable, and nothing is registered until somebody has looked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from streams.schemas.catalog import Catalog, SchemaVersion
from streams.schemas.client import RegisteredVersion, Registry, UnknownSchema, UnusableSchema, same_schema
from streams.schemas.gate import compatibility
from streams.schemas.gate.check import broken_by
from streams.schemas.gate.compatibility import InvalidSchema
from streams.schemas.gate.explain import merged
from streams.schemas.gate.findings import Direction, Finding, Rule, versions_in_words
from streams.schemas.gate.modes import Mode
from streams.schemas.gate.verdict import ParsedSchemas, RegistryState, Verdict


def with_registry(catalog: Catalog, registry: Registry, verdict: Verdict) -> Verdict:
    """The verdict, and what the registry adds to it.

    Raises:
        RegistryUnavailable: no usable answer.

    """
    state = registry_state(registry, verdict.subject)
    versions = catalog.versions(verdict.subject)
    foreign = [each for each in state.versions if not any(same_schema(each.text, v.text) for v in versions)]
    unreadable = [
        _unreadable(versions[0], each, state.unreadable[each.version])
        for each in foreign
        if each.version in state.unreadable
    ]
    readable = [each for each in foreign if each.version not in state.unreadable]
    contradicted = list(_contradicted(versions, state, readable))
    numbers = {finding.version for finding in contradicted}
    judged_elsewhere = {f.version for f in verdict.findings if f.rule in _BY_FILE_ALONE}
    uncommitted = tuple(each for each in foreign if each.version not in numbers)
    findings, agreed, parsed = [*verdict.findings, *unreadable, *contradicted], [], ParsedSchemas()
    for version in versions if state.versions and not unreadable else ():
        is_new = state.find(version.text) is None
        if version.version in numbers | judged_elsewhere or not (is_new or version is versions[-1]):
            continue
        dispute = _dispute(parsed, registry, state, version)
        if dispute is not None:
            findings.append(dispute)
        else:
            agreed.append(version.version)
            findings += _incompatible_with(parsed, state, version, foreign) if is_new else []
    return replace(verdict, findings=tuple(findings), registry=state, agreed=tuple(agreed), not_committed=uncommitted)


def registry_state(registry: Registry, subject: str) -> RegistryState:
    """State of a subject in the registry.

    Raises:
        RegistryUnavailable: no usable answer.

    """
    own = registry.compatibility(subject)
    mode = own or registry.default_compatibility()
    known = Mode(mode) if mode in set(Mode) else None
    versions: list[RegisteredVersion] = []
    unreadable: dict[int, str] = {}
    for each in registry.registered(subject):
        try:
            written_out = replace(each, text=registry.resolve(each, "it"))
            compatibility.parsed(written_out.text)
            versions.append(written_out)
        except (UnusableSchema, UnknownSchema, InvalidSchema) as error:
            versions.append(each)
            unreadable[each.version] = str(error)
    return RegistryState(known, own is not None, tuple(versions), unreadable)


_BY_FILE_ALONE: Final = frozenset({Rule.PARSE, Rule.DEFAULT_TYPE})
"""Rules that concern one version, whatever came before it.

Registries check these more or less closely, or not at all.
"""


def _unreadable(first: SchemaVersion, registered: RegisteredVersion, why: str) -> Finding:
    """Finding for the first committed version: after an unreadable one, nothing of the subject is registered."""
    return Finding(
        first.subject, first.version, Rule.NOT_READABLE,
        f"the registry's version {registered.version} (id {registered.schema_id}) is not readable: {why}",
        breaks="workers: they send every record that is written with it to the dead letters",
        fix="delete it from the registry once nobody writes with it, or register it under another subject",
        file=first.path,
    )  # fmt: skip


def _contradicted(
    versions: Sequence[SchemaVersion], state: RegistryState, foreign: Sequence[RegisteredVersion]
) -> Iterator[Finding]:
    """Files that differ from the registered version of their number, and are registered under no other."""
    files = {each.version: each for each in versions}
    for registered in foreign:
        version = files.get(registered.version)
        if version is not None and state.find(version.text) is None:
            yield Finding(
                version.subject, version.version, Rule.EDITED,
                f"edited after it was registered (or registered from elsewhere): the registry has something else as "
                f"version {registered.version} (id {registered.schema_id})",
                breaks="events that were written with what is registered",
                fix=f"restore the file, and put the change into version {versions[-1].version + 1}; "
                "a draft that nobody has written with can be taken back: `streams schemas unregister`",
                file=version.path,
            )  # fmt: skip


def _pairs(
    parsed: ParsedSchemas, state: RegistryState, version: SchemaVersion
) -> Iterator[tuple[int, Direction, compatibility.Schema, compatibility.Schema]]:
    """Pairs that the registry compares for a version: number, direction, reader and writer.

    Raises:
        InvalidSchema: one of the schemas is none.

    """
    if state.mode is None:
        return
    numbers = state.mode.compared([each.version for each in state.versions])
    new = parsed.of(version.text)
    for each in state.versions:
        for direction in state.mode.directions if each.version in numbers else ():
            old = parsed.of(each.text)
            yield each.version, direction, *((new, old) if direction is Direction.BACKWARD else (old, new))


def _incompatible_with(
    parsed: ParsedSchemas, state: RegistryState, version: SchemaVersion, foreign: Sequence[RegisteredVersion]
) -> list[Finding]:
    """What a new version breaks of versions that only the registry has."""
    wanted = {each.version for each in foreign}
    found = [
        replace(finding, breaks=f"the registry's version {number}, in no file")
        for number, direction, reader, writer in _pairs(parsed, state, version)
        if number in wanted
        for finding in broken_by(version, number, reader, writer, direction)
    ]
    return merged(found)


def _dispute(parsed: ParsedSchemas, registry: Registry, state: RegistryState, version: SchemaVersion) -> Finding | None:
    """Whether the registry and we disagree about a version, given its versions and its mode."""
    if state.mode is None:
        return None
    try:
        misread = [
            n for n, _, reader, writer in _pairs(parsed, state, version) if not compatibility.can_read(reader, writer)
        ]
    except InvalidSchema:
        return None
    reasons = registry.check(version.subject, version.text)
    if bool(misread) == bool(reasons):
        return None
    ours = f"incompatible with its {versions_in_words(misread)}" if misread else "compatible"
    theirs = f"incompatible ({'; '.join(reasons)})" if reasons else "compatible"
    return Finding(
        version.subject, version.version, Rule.DISAGREEMENT,
        f"under {state.mode} the gate says {ours}, the registry says {theirs}",
        breaks="nobody yet: it depends on which of the two is right",
        fix="register nothing; look at the difference (`streams schemas diff`) and report it",
        file=version.path,
    )  # fmt: skip
