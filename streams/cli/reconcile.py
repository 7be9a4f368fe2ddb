"""`streams reconcile`: compares what a flow has written with what it should have written."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from streams.acls.roles import comparing_rights, reconciling_rights
from streams.cli.dlq.options import time_ms
from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.errors import FoundSomething, StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.flow.discover import select_pipelines, select_sink
from streams.kafka.acls import require
from streams.kafka.admin import partition_counts, wait_for_broker
from streams.limits import KEY_BYTES_MAX
from streams.logs import configure_logging
from streams.reconcile.chosen import Chosen
from streams.reconcile.page import page_of
from streams.reconcile.plan import plan_of
from streams.reconcile.report import (
    Document,
    Personal,
    document_of,
    headline,
    lines_of,
    write_metrics,
    write_metrics_of,
)
from streams.reconcile.run import Options, reconcile
from streams.schemas.catalog import Catalog
from streams.schemas.personal import personal_of, with_personal
from streams.settings import load_settings
from streams.sink.declared import declared_sink
from streams.sink.reconcile.report import document_of_sink
from streams.sink.reconcile.run import reconcile_sink
from streams.sink.reconcile.targets import held_of
from streams.text import printable

_MEMORY_MB: Final = 1_024
_MEMORY_MB_MIN: Final = 256


def reconcile_command(
    flow: Annotated[str | None, typer.Option("--flow", help="Flow whose outputs are compared with its source.")] = None,
    sink: Annotated[
        str | None,
        typer.Option(
            "--sink", metavar="NAME", help="Instead: sink whose target (PostgreSQL, Delta) is compared with its topic."
        ),
    ] = None,
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

    With --sink: the rows of its target against the topic, as far as the target has read it.

    Exit status: 0 no difference; 100 differences; 1 Kafka or the registry does not answer, or the flow cannot be
    compared; 2 wrong usage.
    """
    if (flow is None) == (sink is None):
        raise UsageError("say either --flow or --sink")
    if not sample:
        raise UsageError("--sample 0 compares nothing")
    if sink is not None:
        if keys or since is not None or sample < 1.0:
            raise UsageError("--keys, --since and --sample are for flows: of a sink all rows are compared")
        _of_sink(sink, _Wanted(share, memory_mb, html, metrics_file, output))
        return
    chosen = Chosen(_encoded(keys or []), sample)
    options = Options(chosen, None if since is None else time_ms("--since", since), share, memory_mb)
    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.ERROR)
    catalog = Catalog.load()
    declared = select_pipelines([str(flow)], prefix=settings.streams_topic_prefix)[-1]
    (pipeline,) = with_personal([declared.under(settings)], catalog)
    plan = plan_of(pipeline, catalog.latest(pipeline.subject).text, settings.streams_record_bytes_max)
    client = wait_for_broker(settings)
    require(client, reconciling_rights(pipeline))
    with _progress() as say:
        result = reconcile(settings, client, plan, options, say)
    document = document_of(result, _personal(pipeline, catalog))
    if metrics_file is not None:
        _written(metrics_file, lambda: write_metrics(metrics_file, result))
    _show(document, html, output)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a run may cost, and where its report goes."""

    share: float
    memory_mb: int
    html: Path | None
    metrics_file: Path | None
    output: Format


def _of_sink(name: str, wanted: _Wanted) -> None:
    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.ERROR)
    catalog = Catalog.load()
    pipeline, spec = select_sink(name, prefix=settings.streams_topic_prefix)
    (pipeline,) = with_personal([pipeline], catalog)
    declared = declared_sink(pipeline, spec, catalog)
    client = wait_for_broker(settings)
    require(client, comparing_rights(spec, pipeline.prefix))
    with _progress() as say:
        result = reconcile_sink(
            settings, client, declared, partial(held_of, declared, settings), partition_counts(client),
            share=wanted.share, memory_mb=wanted.memory_mb, say=say,
        )  # fmt: skip
    if wanted.metrics_file is not None:
        file, flow = wanted.metrics_file, f"sink.{name}"
        _written(file, lambda: write_metrics_of(file, flow, result.findings, result.at_ms, result.took_s))
    _show(document_of_sink(result, _personal(pipeline, catalog)), wanted.html, wanted.output)


def _show(document: Document, html: Path | None, output: Format) -> None:
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
