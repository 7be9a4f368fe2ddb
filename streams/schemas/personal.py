"""Flows with the names of their fields that hold personal data, so that what people see of them can be masked."""

from collections.abc import Iterable
from dataclasses import replace

from streams.avro.personal import personal_fields
from streams.flow.declaration import Pipeline
from streams.schemas.catalog import Catalog


def personal_of(catalog: Catalog, subject: str) -> frozenset[str]:
    """Fields of a subject with personal data: of any version, by its schema or by `subjects.toml`.

    A subject without committed schemas has none.
    """
    if subject not in catalog.subjects():
        return frozenset()
    versions = (personal_fields(version.parsed) for version in catalog.versions(subject))
    return catalog.settings(subject).personal.union(*versions)


def with_personal(flows: Iterable[Pipeline], catalog: Catalog | None = None) -> list[Pipeline]:
    """The flows, each with its source's fields of personal data; `catalog`: default the app's.

    Raises:
        UsageError, StreamsError: as `Catalog.load`.

    """
    catalog = catalog or Catalog.load()
    return [replace(flow, personal=personal_of(catalog, flow.subject)) for flow in flows]


def any_personal(flows: Iterable[Pipeline]) -> bool:
    """Whether a flow has fields of personal data.

    Raises:
        UsageError, StreamsError: as `Catalog.load`.

    """
    return any(flow.personal for flow in with_personal(flows))
