"""`streams ingest`: batch files feed the same stream as live producers."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.output import Format, FormatOption, echo_json
from streams.errors import FoundSomething, UsageError

if TYPE_CHECKING:
    from streams.ingest import IngestResult, Progress

ingest_app = typer.Typer(help="Files into topics.", no_args_is_help=True)


class FileFormat(StrEnum):
    """Format of the file (the values of `streams.ingest.InputFormat`, repeated so that --help needs no imports)."""

    PARQUET = "parquet"
    CSV = "csv"
    NDJSON = "ndjson"
    AVRO = "avro"


@ingest_app.callback()
def _root() -> None:
    """Files into topics."""


@ingest_app.command("file")
def file_command(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Parquet, CSV, NDJSON or Avro container file.")],
    *,
    topic: Annotated[str, typer.Option(help="Source topic of a pipeline.")],
    input_format: Annotated[
        FileFormat | None, typer.Option(help="Format of the file, where its extension does not say it.")
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="FIELD=COLUMN", help="Fill a field from a column of another name; repeatable."),
    ] = None,
    rebase_time: Annotated[
        bool, typer.Option("--rebase-time", help="Move all times so that the newest event happens now.")
    ] = False,
    rate: Annotated[int | None, typer.Option(min=1, help="Events a second at most.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of the file.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Send all rows, also those sent before.")] = False,
    bad_rows: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write every bad row there, one JSON object a line.")
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Send the rows of a file to a topic: each valid row exactly once.

    Running it again, also after it was killed, goes on where it stopped and sends nothing twice. It is the same work
    when the content of the file, the topic, the format, the mapping and --rebase-time are the same; the file may be
    renamed. A run with --limit is the beginning of the run without. With --rebase-time the times move by what the first
    run decided. Kafka remembers for as long as it keeps offsets of idle groups (7 days by default) how far a file got.

    Rows that the pipeline would reject are not sent but reported, and the exit status is then 100.

    An event id that the file does not give is derived from the row's content; a sequence counts the rows of each key.
    Times: timestamps, ISO 8601 (without a zone: UTC) or milliseconds since 1970.
    """
    from streams.ingest import InputFormat, ingest_file  # noqa: PLC0415 - start-up time of the command line
    from streams.logs import configure_logging  # noqa: PLC0415 - as above
    from streams.settings import load_settings  # noqa: PLC0415 - as above

    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.CRITICAL + 1)  # errors are raised
    with _progress_bar() as progress:
        result = ingest_file(
            settings,
            path,
            topic,
            input_format=InputFormat(input_format.value) if input_format else None,
            mapping=_parsed(mapping or []),
            rebase_time=rebase_time,
            rate=rate,
            limit=limit,
            again=again,
            bad_rows=bad_rows,
            progress=progress,
        )
    _report(result, output)
    if result.bad:
        written = f", all of them in {bad_rows}" if bad_rows else "; --bad-rows PATH writes them all"
        raise FoundSomething(f"{result.bad} of {result.rows} rows are bad and were not sent{written}")


def _parsed(mapping: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in mapping:
        name, equals, column = entry.partition("=")
        if not (name and equals and column):
            raise UsageError(f"--map {entry}: must be FIELD=COLUMN")
        if name in found:
            raise UsageError(f"--map {entry}: the field {name} is mapped twice")
        found[name] = column
    return found


def _report(result: "IngestResult", output: Format) -> None:
    from streams.ingest import bad_row_json  # noqa: PLC0415 - start-up time of the command line

    figures = {
        "rows": result.rows,
        "sent": result.sent,
        "already_sent": result.skipped,
        "bad": result.bad,
        "seconds": round(result.seconds, 3),
        "events_per_second": round(result.events_per_second),
        "shift_ms": result.shift_ms,
    }
    if output is Format.JSON:
        rows = [json.loads(json.dumps(bad_row_json(row), default=str)) for row in result.bad_rows]
        echo_json({**figures, "bad_rows": rows})
        return
    for row in result.bad_rows:
        typer.echo(f"row {row.number}: {row.reason}", err=True)
    if result.bad > len(result.bad_rows):
        typer.echo(f"... and {result.bad - len(result.bad_rows)} more", err=True)
    typer.echo(
        f"{result.rows:,} rows: {result.sent:,} sent, {result.skipped:,} already sent before, {result.bad:,} bad; "
        f"{result.seconds:.1f} s, {result.events_per_second:,.0f} events/s"
    )


@contextmanager
def _progress_bar() -> "Iterator[Progress | None]":
    """A bar on standard error, if that is a terminal."""
    from rich.console import Console  # noqa: PLC0415 - start-up time of the command line
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    note = TextColumn("{task.fields[rows]:,} rows, {task.fields[sent]:,} sent")
    with Progress(*columns, note, console=console, transient=True) as bar:
        task = bar.add_task("opening", total=1.0, rows=0, sent=0)
        yield lambda now: bar.update(task, description=now.phase, completed=now.part_done, rows=now.rows, sent=now.sent)
