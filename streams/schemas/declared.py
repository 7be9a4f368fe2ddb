"""Declared flows against the newest committed schemas: fields that are read, rows that are published."""

from streams.errors import StreamsError
from streams.flow.discover import Declared, declared_flows
from streams.schemas.catalog import Catalog
from streams.schemas.gate.findings import Finding
from streams.schemas.gate.row_schemas import unfit_rows
from streams.schemas.gate.usage import unmet_needs


def flows_that_fit(catalog: Catalog | None = None) -> tuple[Declared, ...]:
    """The flows of the app in force, each of which fits its schemas (default: those of the app).

    Raises:
        UsageError: there is no app, no schema, or as `declared_flows`.
        StreamsError: a flow reads a field that its source's schema lacks or has of another type, or publishes rows that
            the schema of their topic does not take; the message names file, field and what to do.

    """
    declared = declared_flows()
    schemas = catalog or Catalog.load()
    for each in declared:
        for finding in misfits(schemas, each):
            place = f"{finding.file}: {finding.field}" if finding.field else f"{finding.file}"
            raise StreamsError(f"{place}: {finding.message}; {finding.fix}")
    return declared


def misfits(catalog: Catalog, declared: Declared) -> list[Finding]:
    """Fields that a flow reads or publishes and that the newest schemas lack, or have with another type.

    Raises:
        UsageError: there is no schema for its source or an output.

    """
    pipeline = declared.flow.pipeline
    found = unmet_needs(catalog.latest(pipeline.subject), [pipeline])
    for subject in dict.fromkeys(written.subject for written in pipeline.row_outputs):
        found += unfit_rows(catalog.latest(subject), [pipeline])
    return found
