"""`streams ingest`: sends files of records to the source topic of a flow."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.errors import FoundSomething, UsageError
from streams.ingest import (
    IngestOptions,
    IngestResult,
    InputFormat,
    Progress,
    Reading,
    TimeUnit,
    bad_row_json,
    ingest_files,
)
from streams.logs import configure_logging
from streams.settings import load_settings
from streams.text import counted

BAD_ROWS_SHOWN: Final = 20
COLUMNS_SHOWN: Final = 10


def file_command(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Parquet, CSV, NDJSON or Avro container files, patterns like 'day-*.csv.gz', addresses (https://, "
            "s3://, gs://, az://, with patterns in object stores), or - for standard input.",
        ),
    ],
    *,
    topic: Annotated[str, typer.Option(help="Source topic of a flow.")],
    input_format: Annotated[
        InputFormat | None, typer.Option(help="Format of the files, where their extensions do not say it.")
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="FIELD=COLUMN", help="Fill a field from a column of another name; repeatable."),
    ] = None,
    time_unit: Annotated[
        TimeUnit,
        typer.Option(help="What numbers in a time column count since 1970; auto: by size, and dates like 20240131."),
    ] = TimeUnit.AUTO,
    timezone: Annotated[
        str, typer.Option(metavar="ZONE", help="Zone of times that name none, for example Europe/Berlin.")
    ] = "UTC",
    decimal_comma: Annotated[
        bool, typer.Option("--decimal-comma", help="Numbers in text are written 48,1 (a dot is refused).")
    ] = False,
    delimiter: Annotated[
        str | None, typer.Option(help="Between the cells of CSV: one character, or `tab`. Without: by the header line.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of CSV and NDJSON, for example cp1252. Without: by byte order mark, else UTF-8.")
    ] = None,
    rebase_time: Annotated[
        bool, typer.Option("--rebase-time", help="Move all times so that the newest event happens now.")
    ] = False,
    rate: Annotated[int | None, typer.Option(min=1, help="Events a second at most.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of each file.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Send all rows, also those sent before.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and judge all rows, send none; needs no broker.")
    ] = False,
    bad_rows: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write every bad row there, one JSON object a line.")
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Send the rows of files to a topic: each valid row exactly once.

    Running it again, also after it was killed, continues where it stopped and sends nothing twice. It is the same work
    when the content of the file, the topic, the format, the mapping, how it is read and --rebase-time are the same; the
    file may be renamed. A run with --limit is the beginning of the run without. A run that continues uses the first
    run's shift of times, and its clock to judge times in the future. Kafka remembers the position in a file as long as
    it keeps offsets of idle groups (7 days by default).

    Rows that the flow would reject are not sent but reported, and the exit status is then 100. Columns that fill no
    field are named and left out.

    An event id that the file does not give is derived from the row's content; a sequence counts the rows of each key.
    Times: timestamps, ISO 8601 (without a zone: --timezone) or numbers since 1970. Files may be compressed by gzip or
    zstd.
    """
    reading = Reading(
        encoding=encoding,
        delimiter=delimiter,
        decimal_comma=decimal_comma,
        timezone=timezone,
        time_unit=time_unit,
    )
    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.CRITICAL + 1)  # errors are raised
    with _progress_bar() as progress:
        options = IngestOptions(
            input_format=input_format,
            mapping=parsed_mapping(mapping or []),
            reading=reading,
            rebase_time=rebase_time,
            rate=rate,
            limit=limit,
            again=again,
            dry_run=dry_run,
            bad_rows=bad_rows,
        )
        standard_input = sys.stdin.buffer if sys.stdin else None  # none: closed
        results = ingest_files(settings, paths, topic, options, standard_input=standard_input, progress=progress)
    _report(results, output, dry_run=dry_run)
    bad, rows = sum(one.bad for one in results), sum(one.rows for one in results)
    if bad:
        written = f", all of them in {bad_rows}" if bad_rows else "; --bad-rows PATH writes them all"
        are, were = ("is", "was") if bad == 1 else ("are", "were")
        sent = "would not be sent" if dry_run else f"{were} not sent"
        raise FoundSomething(f"{bad:,} of {counted(rows, 'row')} {are} bad and {sent}{written}")


def parsed_mapping(mapping: list[str]) -> dict[str, str]:
    """Column by field, of `FIELD=COLUMN` each.

    Raises:
        UsageError: one is something else, or a field is mapped twice.

    """
    found: dict[str, str] = {}
    for entry in mapping:
        name, equals, column = entry.partition("=")
        if not (name and equals and column):
            raise UsageError(f"--map {entry}: must be FIELD=COLUMN")
        if name in found:
            raise UsageError(f"--map {entry}: the field {name} is mapped twice")
        found[name] = column
    return found


def _report(results: list[IngestResult], output: Format, *, dry_run: bool) -> None:

    for result in results:
        _warn(result, several=len(results) > 1)
    if output is Format.JSON:
        rows = [
            bad_row_json(row, one.name, masks_values=one.is_personal) for one in results for row in one.bad_rows.first
        ][:BAD_ROWS_SHOWN]
        echo_json(
            {
                **_figures(results),
                "dry_run": dry_run,
                "bad_rows": [json.loads(json.dumps(row, default=str)) for row in rows],
                "files": [
                    {
                        "file": one.name,
                        **_figures([one]),
                        "columns_left_out": [column.column for column in one.left_out],
                    }
                    for one in results
                ],
            }
        )
        return
    for result in results:
        name = f"{result.name}: " if len(results) > 1 else ""
        for row in result.bad_rows.first:
            echo_line(f"{name}{result.row_word} {row.number}: {row.reason}", err=True)
        if result.bad > len(result.bad_rows.first):
            echo_line(f"{name}... and {result.bad - len(result.bad_rows.first):,} more", err=True)
        echo_line(f"{name}{_line([result], dry_run=dry_run)}")
    if len(results) > 1:
        echo_line(f"{counted(len(results), 'file')}: {_line(results, dry_run=dry_run)}")


def _warn(result: IngestResult, *, several: bool) -> None:
    """Name the columns that fill no field."""
    name = f"{result.name}: " if several else ""
    for one in result.left_out[:COLUMNS_SHOWN]:
        meant = f"; for {one.field} say --map {one.field}={one.column}" if one.field else ""
        echo_line(f"{name}the column {one.column!r} fills no field and is left out{meant}", err=True)
    if len(result.left_out) > COLUMNS_SHOWN:
        more = counted(len(result.left_out) - COLUMNS_SHOWN, "more column")
        echo_line(f"{name}... and {more}", err=True)


def _figures(results: list[IngestResult]) -> dict[str, Any]:
    seconds = sum(one.seconds for one in results)
    sent = sum(one.sent for one in results)
    return {
        "rows": sum(one.rows for one in results),
        "valid": sum(one.valid for one in results),
        "sent": sent,
        "already_sent": sum(one.skipped for one in results),
        "bad": sum(one.bad for one in results),
        "seconds": round(seconds, 3),
        "events_per_second": round(sent / seconds) if seconds else 0,
        "shift_ms": results[0].shift_ms,
    }


def _line(results: list[IngestResult], *, dry_run: bool) -> str:
    found = _figures(results)
    rows = counted(found["rows"], "row")
    if dry_run:
        return f"{rows}: {found['valid']:,} valid, {found['bad']:,} bad; nothing was sent (--dry-run)"
    return (
        f"{rows}: {found['sent']:,} sent, {found['already_sent']:,} already sent before, {found['bad']:,} bad; "
        f"{found['seconds']:.1f} s, {found['events_per_second']:,} events/s"
    )


@contextmanager
def _progress_bar() -> Iterator[Progress | None]:
    """A bar on standard error, if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    note = TextColumn("{task.fields[rows]:,} rows, {task.fields[sent]:,} sent")
    with Bar(*columns, note, console=console, transient=True) as bar:
        task = bar.add_task("opening", total=1.0, rows=0, sent=0)
        yield lambda now: bar.update(task, description=now.phase, completed=now.part_done, rows=now.rows, sent=now.sent)
