"""Registering the committed schemas: idempotent, and read back before it is called done."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from streams.errors import StreamsError
from streams.registry.catalog import Catalog, SchemaVersion
from streams.registry.client import Registry, SchemaRefused, UnknownSchema, same_schema

COMPATIBILITY: Final = "BACKWARD_TRANSITIVE"
"""A new version can read everything ever written with any version before it: workers upgrade first."""


class Outcome(StrEnum):
    """What became of a schema version."""

    REGISTERED = "registered"
    UNCHANGED = "unchanged"
    INCOMPATIBLE = "incompatible"
    WOULD_REGISTER = "would register"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Registration:
    """One committed schema version, its id in the registry (None: not there), and why not, if not."""

    subject: str
    version: int
    outcome: Outcome
    schema_id: int | None = None
    reasons: tuple[str, ...] = ()


def register_schemas(catalog: Catalog, registry: Registry, subjects: Sequence[str] = ()) -> list[Registration]:
    """Register all versions of `subjects` (default: all), oldest first, under BACKWARD_TRANSITIVE.

    What is registered already stays as it is. The versions of a subject after a refused one are not tried. Each id is
    fetched again and its schema compared with the file, so that the ids returned are the ids consumers will resolve.

    Raises:
        UsageError: there is no such subject.
        RegistryUnavailable: no usable answer; what was registered before stays registered.
        StreamsError: the registry gives back another schema than it was given.

    """
    done: list[Registration] = []
    for subject in subjects or catalog.subjects():
        versions = catalog.versions(subject)
        if registry.compatibility(subject) != COMPATIBILITY:
            registry.set_compatibility(subject, COMPATIBILITY)
        for version in versions:
            result = _register(registry, version)
            done.append(result)
            if result.outcome is Outcome.INCOMPATIBLE:
                break
    return done


def preview_schemas(catalog: Catalog, registry: Registry, subjects: Sequence[str] = ()) -> list[Registration]:
    """What `register_schemas` would do; changes nothing.

    The registry judges each version against what it has now, under the mode it has now.
    """
    done: list[Registration] = []
    for subject in subjects or catalog.subjects():
        for version in catalog.versions(subject):
            try:
                known = registry.lookup(subject, version.text)
                done.append(Registration(subject, version.version, Outcome.UNCHANGED, known))
            except UnknownSchema:
                reasons = tuple(registry.check(subject, version.text))
                outcome = Outcome.INCOMPATIBLE if reasons else Outcome.WOULD_REGISTER
                done.append(Registration(subject, version.version, outcome, None, reasons))
    return done


def list_schemas(catalog: Catalog, registry: Registry) -> list[Registration]:
    """Every committed schema version and its id in the registry."""
    done: list[Registration] = []
    for subject in catalog.subjects():
        for version in catalog.versions(subject):
            try:
                known = registry.lookup(subject, version.text)
                done.append(Registration(subject, version.version, Outcome.REGISTERED, known))
            except UnknownSchema:
                done.append(Registration(subject, version.version, Outcome.MISSING))
    return done


def _register(registry: Registry, version: SchemaVersion) -> Registration:
    subject = version.subject
    try:
        schema_id, outcome = registry.lookup(subject, version.text), Outcome.UNCHANGED
    except UnknownSchema:
        try:
            schema_id, outcome = registry.register(subject, version.text), Outcome.REGISTERED
        except SchemaRefused as refused:
            return Registration(subject, version.version, Outcome.INCOMPATIBLE, None, (str(refused),))
    if not same_schema(registry.schema_by_id(schema_id), version.text):
        raise StreamsError(
            f"{version.path}: the registry's schema {schema_id} is another one than this file: "
            "was a committed version edited? Add a new version instead"
        )
    return Registration(subject, version.version, outcome, schema_id)
