"""`streams schemas`: the committed schemas and the registry."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.output import Format, FormatOption, echo_json
from streams.errors import FoundSomething

if TYPE_CHECKING:
    from streams.registry.registration import Registration

schemas_app = typer.Typer(help="Committed schemas and the registry.", no_args_is_help=True)


@schemas_app.command("register")
def register_command(
    subjects: Annotated[
        list[str] | None, typer.Argument(metavar="[SUBJECT]...", help="Subjects to register; default: all.")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Register the committed schemas, all versions in order, under BACKWARD_TRANSITIVE; print their ids.

    What is registered already stays as it is. A schema that the registry refuses is reported with its reasons, and the
    exit status is then 100.
    """
    from streams.registry.catalog import Catalog  # noqa: PLC0415 - start-up time of the command line
    from streams.registry.client import Registry  # noqa: PLC0415 - as above
    from streams.registry.registration import preview_schemas, register_schemas  # noqa: PLC0415 - as above
    from streams.settings import load_settings  # noqa: PLC0415 - as above

    act = preview_schemas if dry_run else register_schemas
    schemas = act(Catalog.load(), Registry(load_settings()), tuple(dict.fromkeys(subjects or ())))
    _echo(schemas, output)
    fail_on_incompatible(schemas)


@schemas_app.command("list")
def list_command(output: FormatOption = Format.TEXT) -> None:
    """Show every committed schema version and its id in the registry."""
    from streams.registry.catalog import Catalog  # noqa: PLC0415 - start-up time of the command line
    from streams.registry.client import Registry  # noqa: PLC0415 - as above
    from streams.registry.registration import list_schemas  # noqa: PLC0415 - as above
    from streams.settings import load_settings  # noqa: PLC0415 - as above

    _echo(list_schemas(Catalog.load(), Registry(load_settings())), output)


def _echo(schemas: "Sequence[Registration]", output: Format) -> None:
    if output is Format.JSON:
        echo_json(schema_rows(schemas))
    else:
        echo_schemas(schemas)


def schema_rows(schemas: "Sequence[Registration]") -> list[dict[str, Any]]:
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


def echo_schemas(schemas: "Sequence[Registration]") -> None:
    """Print one line per schema version, reasons indented below it."""
    width = max(len(one.subject) for one in schemas)
    for one in schemas:
        shown_id = "-" if one.schema_id is None else str(one.schema_id)
        typer.echo(f"{one.subject:<{width}}  {one.version:>3}  id {shown_id:>4}  {one.outcome.value}")
        for reason in one.reasons:
            typer.echo(f"{'':<{width}}       {reason}")


def fail_on_incompatible(schemas: "Sequence[Registration]") -> None:
    """End with exit status 100 when the registry refused a schema.

    Raises:
        FoundSomething: it did.

    """
    refused = [f"{one.subject} version {one.version}" for one in schemas if one.reasons]
    if refused:
        raise FoundSomething(f"refused by the registry: {', '.join(refused)}")
