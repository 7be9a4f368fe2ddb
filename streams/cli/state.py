"""`streams state`: inspects the local state of workers, and rebuilds it."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.errors import FoundSomething, UsageError
from streams.flow.discover import select_pipelines
from streams.logs import configure_logging
from streams.settings import load_settings
from streams.text import counted
from streams.worker.inspection import StoreReport, inspect_state
from streams.worker.owner import DataDirectory
from streams.worker.rebuild import LocalRebuild, begin_again, topics_to_empty

DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="Where a worker keeps its state. Default: STREAMS_DATA_DIR.")
]


class Source(StrEnum):
    """What a rebuild uses as its source."""

    LOCAL = "local"
    SOURCE = "source"


def inspect_command(
    pipeline: Annotated[
        list[str] | None, typer.Option("--pipeline", help="Flow to look at; repeatable. Default: all.")
    ] = None,
    data_dir: DataDirOption = None,
    *,
    offline: Annotated[bool, typer.Option("--offline", help="Do not compare with Kafka.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show the local state of each partition, what it belongs to, and whether it fits what Kafka has.

    It changes nothing; a worker may be running. Exit status: 100 when a state is refused or cannot be read.
    """
    settings = load_settings(streams_data_dir=data_dir)
    configure_logging(settings.streams_log_format, level=logging.ERROR)
    pipelines = select_pipelines(pipeline, prefix=settings.streams_topic_prefix)
    reports = inspect_state(settings, pipelines, offline=offline)
    if output is Format.JSON:
        echo_json([report.as_dict() for report in reports])
    elif not reports:
        echo_line(f"no state in {settings.streams_data_dir}")
    else:
        for report in reports:
            _echo_report(report)
    if any(report.problems for report in reports):
        raise FoundSomething


def _echo_report(report: StoreReport) -> None:
    echo_line(f"{report.pipeline} partition {report.partition}: {report.verdict}")
    for problem in report.problems:
        echo_line(f"  problem   {problem}")
    for change in report.changes:
        echo_line(f"  change    {change}")
    at = report.checkpoint
    if at is not None:
        echo_line(f"  stands at offset {at.offset_next}, cycle {at.cycle}, journal {at.journal_next}")
        echo_line(f"  belongs to cluster {at.identity.cluster}, layout {at.identity.epoch}")
        for topic, topic_id in at.identity.topics.items():
            echo_line(f"    {topic_id:<22}  {topic}")
        echo_line(f"  fields    {', '.join((*at.identity.payload, *at.identity.texts))}")
        bounds = ", ".join(f"{name} {value}" for name, value in at.identity.bounds.items())
        echo_line(f"  bounds    {bounds}")
        echo_line(f"  ids known from {report.ids_known_from}")
    for kind, count in report.rows.items():
        echo_line(f"  {count:>9,}  {kind}")
    echo_line(f"  {report.bytes:>9,}  bytes in {report.path}")


def rebuild_command(
    pipeline: Annotated[str, typer.Option("--pipeline", help="The flow whose state is rebuilt.")],
    source: Annotated[
        Source,
        typer.Option(
            "--from",
            help="local: write the journal and table rows again from this worker's state, and take over outputs that "
            "were created again. source: empty all outputs and process the source from its beginning.",
        ),
    ],
    data_dir: DataDirOption = None,
    *,
    dead_letters: Annotated[
        bool,
        typer.Option(
            "--dead-letters",
            help="With --from source: empty the dead letters and their audit too; else they are written once more.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before topics are emptied.")] = False,
) -> None:
    """Rebuild the state of a flow when a worker refuses to start with it. Stop all its workers first.

    With several workers, run `--from local` once for each data directory: each has its own partitions.
    """
    settings = load_settings(streams_data_dir=data_dir)
    configure_logging(settings.streams_log_format, level=logging.ERROR)
    chosen = select_pipelines([pipeline], prefix=settings.streams_topic_prefix)[-1]  # after the stages before it
    if source is Source.SOURCE and (internal := next((one for one in chosen.inputs if one.is_internal), None)):
        raise UsageError(
            f"{chosen.name} cannot be rebuilt from its source: {internal.topic} has only what was not consumed yet. "
            "Use --from local, or declare the flow under another name, which begins with the first topic's records"
        )
    if source is Source.LOCAL:
        directory = DataDirectory(settings.streams_data_dir)
        try:
            done = LocalRebuild(settings, chosen, directory, echo_line).run()
        finally:
            directory.release()
        echo_line(f"{counted(len(done), 'partition')} written; start the workers")
        return
    names = topics_to_empty(chosen, dead_letters=dead_letters)
    if not yes:
        echo_line(
            f"All records of {', '.join(names)} will be deleted, and {chosen.source} processed from its beginning."
        )
        typer.confirm("Go on?", abort=True)
    begin_again(settings, chosen, echo_line, dead_letters=dead_letters)
    echo_line("start the workers")
