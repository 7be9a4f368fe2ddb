"""`streams reconcile`: compares what a flow has written with what it should have written."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from streams.acls.roles import reconciling_rights
from streams.cli.dlq.options import time_ms
from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.errors import FoundSomething, StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.flow.discover import select_pipelines
from streams.kafka.acls import require
from streams.kafka.admin import wait_for_broker
from streams.limits import KEY_BYTES_MAX
from streams.logs import configure_logging
from streams.reconcile.chosen import Chosen
from streams.reconcile.page import page_of
from streams.reconcile.plan import plan_of
from streams.reconcile.report import Personal, document_of, headline, lines_of, write_metrics
from streams.reconcile.run import Options, reconcile
from streams.schemas.catalog import Catalog
from streams.schemas.personal import personal_of, with_personal
from streams.settings import load_settings
from streams.text import printable

_MEMORY_MB: Final = 1_024
_MEMORY_MB_MIN: Final = 256


def reconcile_command(
    flow: Annotated[str, typer.Option("--flow", help="Flow whose outputs are compared with its source.")],
    keys: Annotated[
        list[str] | None, typer.Option("--keys", metavar="KEY", help="Compare this key only; repeatable.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Compare events after this time only: ISO 8601, or an age such as 15m, 2h, 7d. Earlier "
            "events are not read, so table rows that include them are not checked.",
        ),
    ] = None,
    sample: Annotated[
        float, typer.Option("--sample", min=0.0, max=1.0, help="Compare this share of the keys, the same in each run.")
    ] = 1.0,
    share: Annotated[
        float,
        typer.Option("--share", min=0.01, max=1.0, help="Work for this share of the time, and pause for the rest."),
    ] = 1.0,
    memory_mb: Annotated[
        int,
        typer.Option(
            "--memory-mb", min=_MEMORY_MB_MIN, help="Memory to use; with less, partitions are read more often."
        ),
    ] = _MEMORY_MB,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the report as a page.")] = None,
    metrics_file: Annotated[
        Path | None,
        typer.Option(
            "--metrics-file", metavar="FILE", help="Write metrics for the textfile collector of the node exporter."
        ),
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Compare what a flow has written with what it should have written, by a model without code of the workers.

    Reads source, clean events, late events, dead letters, tables and windows at one consistent point, while workers
    run. Names every difference by key, with the first event that explains it. Changes nothing.

    Exit status: 0 no difference; 100 differences; 1 Kafka or the registry does not answer, or the flow cannot be
    compared; 2 wrong usage.
    """
    if not sample:
        raise UsageError("--sample 0 compares nothing")
    chosen = Chosen(_encoded(keys or []), sample)
    options = Options(chosen, None if since is None else time_ms("--since", since), share, memory_mb)
    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.ERROR)
    catalog = Catalog.load()
    declared = select_pipelines([flow], prefix=settings.streams_topic_prefix)[-1]
    (pipeline,) = with_personal([declared.under(settings)], catalog)
    plan = plan_of(pipeline, catalog.latest(pipeline.subject).text, settings.streams_record_bytes_max)
    client = wait_for_broker(settings)
    require(client, reconciling_rights(pipeline))
    with _progress() as say:
        result = reconcile(settings, client, plan, options, say)
    document = document_of(result, _personal(pipeline, catalog))
    if metrics_file is not None:
        _written(metrics_file, lambda: write_metrics(metrics_file, result))
    if html is not None:
        _written(html, lambda: html.write_text(page_of(document), encoding="utf-8"))
    if output is Format.JSON:
        echo_json(document)
    else:
        for line in lines_of(document):
            echo_line(line)
    if not document["agrees"]:
        raise FoundSomething(headline(document))


def _encoded(keys: list[str]) -> frozenset[bytes]:
    found = frozenset(key.encode() for key in keys)
    if any(not 0 < len(key) <= KEY_BYTES_MAX for key in found):
        raise UsageError(f"a key has 1 to {KEY_BYTES_MAX:,} bytes")
    return found


def _personal(pipeline: Pipeline, catalog: Catalog) -> Personal:
    """Fields of the flow that must not be shown."""
    columns = pipeline.personal.union(*(personal_of(catalog, one.subject) for one in pipeline.row_outputs))
    return Personal(columns, pipeline.masks_keys, pipeline.id_field in pipeline.personal)


def _written(path: Path, write: Callable[[], object]) -> None:
    try:
        write()
    except OSError as error:
        raise StreamsError(f"{path} cannot be written: {error.strerror or error}") from None


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Prints what is being done, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _what: None
        return
    with Console(stderr=True).status("") as status:
        yield lambda what: status.update(printable(what))
