"""`streams delta`: maintenance of the Delta tables of sinks."""

from typing import Annotated, Final

import typer

from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.errors import UsageError
from streams.flow.discover import select_sink
from streams.settings import load_settings
from streams.sink.targets import delta_upkeep, delta_url
from streams.sinks.spec import DeltaSpec
from streams.text import counted

RETENTION_HOURS: Final = 168
SinkName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the sink; `streams flows show` lists them.")]


def compact_command(name: SinkName, output: FormatOption = Format.TEXT) -> None:
    """Merge the small files of a sink's Delta table; the sink may write meanwhile."""
    done = delta_upkeep().compact(_url(name))
    if output is Format.JSON:
        echo_json({"files_before": done.files_before, "files_after": done.files_after, "version": done.version})
    else:
        echo_line(f"{counted(done.files_before, 'file')} before, {done.files_after:,} now; version {done.version}")


def vacuum_command(
    name: SinkName,
    retention_hours: Annotated[
        int, typer.Option("--retention-hours", min=1, help="Keep files that a version of the last hours needs.")
    ] = RETENTION_HOURS,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files, remove none.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Remove files of a sink's Delta table that no version of the last hours needs."""
    found = delta_upkeep().vacuum(_url(name), retention_hours=retention_hours, dry_run=dry_run)
    if output is Format.JSON:
        echo_json({"files": found, "dry_run": dry_run})
    else:
        echo_line(f"{counted(len(found), 'file')} {'would be' if dry_run else 'were'} removed")


def _url(name: str) -> str:
    settings = load_settings()
    _, spec = select_sink(name, prefix=settings.streams_topic_prefix)
    if not isinstance(spec, DeltaSpec):
        raise UsageError(f"sink {name} has no Delta table: it writes to {spec.kind}")
    return delta_url(spec, settings)
