"""Compares two versions of a subject, and its files with the registry."""

from collections.abc import Mapping
from dataclasses import dataclass

from streams.errors import UsageError
from streams.schemas.catalog import Catalog, SchemaVersion
from streams.schemas.client import Registry, RegistryUnavailable
from streams.schemas.gate.agreement import registry_state
from streams.schemas.gate.changes import Difference, differences
from streams.schemas.located import located


class UnknownVersion(UsageError):
    """The subject has no such version."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A version whose file differs from what the registry holds under its number."""

    version: int
    changes: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed between two versions of a subject, and where its files and the registry differ."""

    subject: str
    before: int | None
    """Version that `after` is compared with; None: `after` is the first version."""
    after: int
    changes: tuple[Difference, ...]
    drift: tuple[Drift, ...]
    why_not_asked: str | None
    """Why there is no comparison with the registry; None: there is one."""


def compared_versions(
    catalog: Catalog, registry: Registry, subject: str, before: int | None = None, after: int | None = None
) -> Comparison:
    """Compare `before` (by default the version before `after`) with `after` (by default the newest).

    Raises:
        UsageError: there is no such subject.
        UnknownVersion: there is no such version.

    """
    versions = {each.version: each for each in catalog.versions(subject)}
    new = versions.get(after or max(versions))
    old = versions.get(before or (new.version if new else 1) - 1) if (before or (new and new.version > 1)) else None
    if new is None or (before and old is None):
        raise UnknownVersion(f"{subject} has versions {', '.join(map(str, versions))}")
    changes = differences(old.parsed, new.parsed) if old else []
    drift, why_not_asked = _drift(registry, subject, versions)
    return Comparison(subject, old.version if old else None, new.version, tuple(changes), drift, why_not_asked)


def _drift(
    registry: Registry, subject: str, versions: Mapping[int, SchemaVersion]
) -> tuple[tuple[Drift, ...], str | None]:
    """Differences between the registry's versions and the files of the same number; or why it was not asked."""
    try:
        state = registry_state(registry, subject)
    except RegistryUnavailable as error:
        return (), str(error)
    if not state.versions:
        return (), f"{subject} is not in the registry yet"
    found = []
    for each in state.versions:
        file = versions.get(each.version)
        if each.version in state.unreadable:
            changes = [Difference("", "registered as", state.unreadable[each.version], "Avro")]
        else:
            changes = differences(located(each.text), file.parsed) if file else []
        if changes:
            found.append(Drift(each.version, tuple(changes)))
    return tuple(found), None
