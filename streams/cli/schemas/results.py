"""What commands on schemas share: an argument, and how registered schemas are printed."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from streams.cli.findings import FindingsFormat, echo_findings, fail_on_findings
from streams.cli.output import echo_line
from streams.schemas.registration import Registration

SubjectsArgument = Annotated[list[str] | None, typer.Argument(metavar="SUBJECT", help="Subjects; default: all.")]


def schema_rows(schemas: Sequence[Registration]) -> list[dict[str, Any]]:
    """Rows for JSON output."""
    return [
        {
            "subject": one.subject,
            "version": one.version,
            "status": one.outcome.value,
            "id": one.schema_id,
            "reasons": list(one.reasons),
        }
        for one in schemas
    ]


def echo_schemas(schemas: Sequence[Registration]) -> None:
    """Print one line per schema version, what was found against it below."""
    width = max(len(one.subject) for one in schemas)
    for one in schemas:
        shown_id = "-" if one.schema_id is None else str(one.schema_id)
        echo_line(f"{one.subject:<{width}}  {one.version:>3}  id {shown_id:>4}  {one.outcome.value}")
        if one.findings:
            echo_findings(one.findings, FindingsFormat.TEXT)


def fail_on_refused(schemas: Sequence[Registration]) -> None:
    """End with exit status 100 when a schema was refused, with 1 when the registry disagrees about one.

    Raises:
        FoundSomething: something was refused.
        StreamsError: gate and registry disagree.

    """
    fail_on_findings([finding for one in schemas for finding in one.findings], "refused")
