"""`streams schemas diff` and `new-version`: versions of a subject compared, and a topic's next one."""

from typing import Annotated, Any

import typer

from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.errors import FoundSomething
from streams.flow.discover import declared_flows
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from streams.schemas.comparison import Comparison, UnknownVersion, compared_versions
from streams.schemas.gate.changes import Difference
from streams.schemas.gate.findings import shown
from streams.schemas.scaffold import plan_new_version, write_scaffold
from streams.settings import load_settings


def diff_command(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="Subject to show.")],
    *,
    before: Annotated[
        int | None, typer.Option("--from", min=1, help="Version to compare from. Default: the one before --to.")
    ] = None,
    after: Annotated[
        int | None, typer.Option("--to", min=1, help="Version to compare to. Default: the newest.")
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show what differs between two versions of a subject, field by field, and between its files and the registry.

    Exit status 100 when the registry's version differs from the file of the same number.
    """
    try:
        found = compared_versions(Catalog.load(), Registry(load_settings()), subject, before, after)
    except UnknownVersion as error:
        raise typer.BadParameter(str(error)) from None
    if output is Format.JSON:
        echo_json(
            {
                "subject": subject,
                "from": found.before,
                "to": found.after,
                "changes": [_change_row(each) for each in found.changes],
                "registry": {
                    "asked": found.why_not_asked is None,
                    "why_not": found.why_not_asked,
                    "drift": [
                        {"version": each.version, "changes": [_change_row(change) for change in each.changes]}
                        for each in found.drift
                    ],
                },
            }
        )
    else:
        _echo_comparison(found)
    if found.drift:
        raise FoundSomething(f"{subject}: files and registry differ")


def new_version_command(
    topic: Annotated[
        str, typer.Argument(metavar="TOPIC", help="Topic whose change is incompatible: gps.positions.v1.")
    ],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written; write nothing.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Scaffold the next version of a topic: schemas, and a flow that runs beside the old one while producers move.

    Use it for a change that no compatible new version of the schema can make. docs/evolve-a-schema.md walks through it.
    """
    made = plan_new_version(Catalog.load(), topic, declared_flows())
    if not dry_run:
        write_scaffold(made)
    if output is Format.JSON:
        files = [shown(path) for path, _ in made.files]
        echo_json({"topic": made.topic, "pipeline": made.pipeline, "files": files, "next_steps": list(made.next_steps)})
        return
    for path, _ in made.files:
        echo_line(f"{'would write' if dry_run else 'wrote'} {shown(path)}")
    echo_line("Next:")
    for number, step in enumerate(made.next_steps, 1):
        echo_line(f"  {number}. {step}")


def _echo_comparison(found: Comparison) -> None:
    if found.before is None:
        echo_line(f"{found.subject}: version {found.after} is the first one")
    else:
        echo_line(f"{found.subject}: version {found.before} -> {found.after}")
        for change in found.changes:
            echo_line(f"  {change.in_words()}")
        if not found.changes:
            echo_line("  nothing differs")
    for drift in found.drift:
        echo_line(f"{found.subject}: the registry's version {drift.version} -> the file {drift.version}.avsc")
        for change in drift.changes:
            echo_line(f"  {change.in_words()}")
    if found.why_not_asked:
        echo_line(found.why_not_asked, err=True)


def _change_row(change: Difference) -> dict[str, Any]:
    return {"field": change.field, "change": change.what, "before": change.before, "after": change.after}
