"""`streams query`: rows of a table as workers serve them."""

import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import pyarrow as pa
import typer

from streams.cli.app import AppOption, use_app
from streams.cli.output import echo_json, echo_line
from streams.errors import UsageError
from streams.flow.discover import select_pipelines
from streams.limits import QUERY_ROWS_DEFAULT, QUERY_ROWS_MAX
from streams.settings import load_settings
from streams.tables.client import TableClient, flow_of_table, token_of, workers_of
from streams.tables.rendering import ARROW, batch_of
from streams.text import counted

ROWS_MAX: Final = 10_000_000
_WIDTH_MAX: Final = 60
_NULL: Final = "-"
Parameters = list[tuple[str, str]]


class QueryFormat(StrEnum):
    """How rows are printed."""

    TEXT = "text"
    JSON = "json"
    ARROW = "arrow"


def query(
    table: Annotated[str, typer.Argument(help="Topic of the table, such as vehicles.state.v1.")],
    key: Annotated[str | None, typer.Argument(help="Key of a row. Without it: rows of a range.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", help="Condition such as status=LATE or events>=5; repeatable, all must hold."),
    ] = None,
    columns: Annotated[str, typer.Option("--columns", help="Columns, with commas between them. Default: all.")] = "",
    prefix: Annotated[str, typer.Option("--prefix", help="What keys begin with.")] = "",
    first: Annotated[str, typer.Option("--from", help="Smallest key.")] = "",
    to: Annotated[str, typer.Option("--to", help="Up to, and without, this key.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=ROWS_MAX, help="Most rows.")] = QUERY_ROWS_DEFAULT,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Web server of a worker. Default: a member of the flow's group according to Kafka."),
    ] = None,
    app: AppOption = None,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the table: print changes as they are committed, until Ctrl-C.")
    ] = False,
    output: Annotated[
        QueryFormat,
        typer.Option("--format", help="How to print rows; arrow: Arrow's stream format, for a file or a pipe."),
    ] = QueryFormat.TEXT,
) -> None:
    """Query a table: the row of a key, or rows of a range, as committed; --watch follows it.

    Any worker answers for the whole table. A token that is set here (STREAMS_ADMIN_TOKEN, STREAMS_REVIEW_TOKEN_*) is
    sent to the worker.

    Exit status: 0 answered; 1 there is no such row, or no worker answers; 2 wrong usage.
    """
    use_app(app)
    settings = load_settings()
    ranged = [*_given("prefix", prefix), *_given("from", first), *_given("to", to)]
    if key is not None and (ranged or where):
        raise UsageError("KEY asks for one row: leave --where, --prefix, --from and --to out")
    if watch and (ranged or key is not None):
        raise UsageError("--watch follows the whole table: choose with --where instead of KEY, --prefix, --from, --to")
    if output is QueryFormat.ARROW and (watch or sys.stdout.isatty()):
        raise UsageError("--format arrow is for a file or a pipe, and not for --watch")
    flow = flow_of_table(select_pipelines(None, prefix=settings.streams_topic_prefix), table)
    client = TableClient([url.rstrip("/")] if url else workers_of(settings, flow), token_of(settings))
    shown = _given("columns", columns)
    conditions = [("where", text) for text in where or ()]
    if watch:
        _watch(client, table, [*shown, *conditions], output)
    elif key is not None:
        _print_one(client, table, key, shown, output)
    else:
        _print_rows(client, table, [*shown, *conditions, *ranged], limit, output)


def _given(name: str, value: str) -> Parameters:
    return [(name, value)] if value else []


def _print_one(client: TableClient, table: str, key: str, parameters: Parameters, output: QueryFormat) -> None:
    if output is QueryFormat.ARROW:
        sys.stdout.buffer.write(client.row(table, key, parameters, accept=ARROW).body)
        return
    document = client.row(table, key, parameters).document
    if output is QueryFormat.JSON:
        echo_json(document)
        return
    width = max(map(len, document["row"]), default=0)
    for name, value in document["row"].items():
        echo_line(f"{name:<{width}}  {_text(value)}")


def _print_rows(client: TableClient, table: str, parameters: Parameters, limit: int, output: QueryFormat) -> None:
    if output is QueryFormat.ARROW:
        _write_arrow(client, table, parameters, limit)
        return
    items: list[Any] = []
    cursor = None
    for document in client.pages(table, parameters, limit=limit):
        items += document["rows"]
        cursor = document["next"]
    if output is QueryFormat.JSON:
        echo_json({"table": table, "rows": items, "next": cursor, "as_of": "committed"})
    else:
        for line in _aligned([item["row"] for item in items]):
            echo_line(line)
    if cursor:
        echo_line(f"streams: there are more than {counted(len(items), 'row')}: ask with a larger --limit", err=True)


def _write_arrow(client: TableClient, table: str, parameters: Parameters, limit: int) -> None:
    """One stream of all pages."""
    writer: pa.RecordBatchStreamWriter | None = None
    cursor, left = "", limit
    while left > 0 and (writer is None or cursor):
        page = [*parameters, ("limit", str(min(left, QUERY_ROWS_MAX))), *_given("cursor", cursor)]
        batch = batch_of(client.rows(table, page, accept=ARROW).body)
        cursor = (batch.schema.metadata or {}).get(b"next", b"").decode()
        batch = batch.replace_schema_metadata(None)
        writer = writer or pa.ipc.new_stream(sys.stdout.buffer, batch.schema)
        writer.write_batch(batch)
        left -= batch.num_rows
    if writer is not None:
        writer.close()
    if cursor:
        echo_line("streams: there are more rows: ask with a larger --limit", err=True)


def _watch(client: TableClient, table: str, parameters: Parameters, output: QueryFormat) -> None:
    for document in client.changes(table, parameters):
        for change in document["changes"]:
            if output is QueryFormat.JSON:
                echo_json(change, indent=None)
            else:
                echo_line(_change_text(change))
        sys.stdout.flush()


def _change_text(change: dict[str, Any]) -> str:
    if change["row"] is None:
        return f"{change['key']}  {'deleted' if change.get('deleted') else change.get('unreadable')}"
    return f"{change['key']}  " + "  ".join(f"{name}={_text(value)}" for name, value in change["row"].items())


def _aligned(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not rows:
        yield "no rows"
        return
    names = list(rows[0])
    cells = [names, *([_text(row[name]) for name in names] for row in rows)]
    widths = [min(_WIDTH_MAX, max(len(line[place]) for line in cells)) for place in range(len(names))]
    for line in cells:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()


def _text(value: Any) -> str:
    if value is None:
        return _NULL
    return str(value).lower() if isinstance(value, bool) else str(value)
