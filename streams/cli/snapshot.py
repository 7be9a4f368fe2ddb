"""`streams snapshot`: takes, lists, verifies and restores snapshots of state in an object store."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.errors import FoundSomething, StreamsError
from streams.flow.discover import select_pipelines
from streams.logs import configure_logging
from streams.settings import Settings, load_settings
from streams.text import counted
from streams.worker.snapshot_commands import SnapshotReport, create, listed, restore, verify

PipelineOption = Annotated[list[str] | None, typer.Option("--pipeline", help="Flow; repeatable. Default: all.")]
PartitionOption = Annotated[
    list[int] | None, typer.Option("--partition", min=0, help="Partition; repeatable. Default: all.")
]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="Where a worker keeps its state. Default: STREAMS_DATA_DIR.")
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Object store, file:///FOLDER or s3://BUCKET/PATH. Default: STREAMS_SNAPSHOT_URL."),
]


def create_command(
    pipeline: PipelineOption = None,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Upload a snapshot of each partition in the data directory of a stopped worker.

    A running worker takes snapshots by itself, every STREAMS_SNAPSHOT_INTERVAL_S seconds.
    """
    settings = _settings(url, data_dir)
    reports = create(settings, select_pipelines(pipeline, prefix=settings.streams_topic_prefix), _say)
    _echo(reports, output, nothing=f"no state in {settings.streams_data_dir}")


def list_command(
    pipeline: PipelineOption = None,
    url: UrlOption = None,
    *,
    offline: Annotated[bool, typer.Option("--offline", help="Do not compare with Kafka.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """List snapshots, the newest of each partition first, and whether a restore would use them.

    Exit status: 100 when a partition with snapshots has none that fits.
    """
    settings = _settings(url, None)
    pipelines = select_pipelines(pipeline, prefix=settings.streams_topic_prefix)
    reports = listed(settings, pipelines, offline=offline)
    _echo(reports, output, nothing=f"no snapshots in {settings.streams_snapshot_url}")
    fitting = {(one.pipeline, one.partition) for one in reports if one.verdict == "fits"}
    if not offline and {(one.pipeline, one.partition) for one in reports} - fitting:
        raise FoundSomething


def verify_command(
    pipeline: PipelineOption = None,
    partition: PartitionOption = None,
    url: UrlOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Read every byte of every snapshot and compare it with its checksum.

    Exit status: 100 when something is damaged or missing. Delete the damaged objects that are named: the next snapshot
    uploads them again if needed.
    """
    settings = _settings(url, None)
    pipelines = select_pipelines(pipeline, prefix=settings.streams_topic_prefix)
    reports = verify(settings, pipelines, partition or (), _say)
    _echo(reports, output, nothing=f"no snapshots in {settings.streams_snapshot_url}")
    if any(one.problems for one in reports):
        raise FoundSomething


def restore_command(
    pipeline: Annotated[str, typer.Option("--pipeline", help="The flow whose state is restored.")],
    partition: PartitionOption = None,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Put the newest usable snapshots into a data directory, for a worker that is started there.

    A worker does this by itself if it has no state. Partitions with local state are left as they are.
    """
    settings = _settings(url, data_dir)
    chosen = select_pipelines([pipeline], prefix=settings.streams_topic_prefix)[-1]  # after the stages before it
    reports = restore(settings, chosen, partition or (), _say)
    _echo(reports, output, nothing="nothing to restore")
    if not any(one.verdict == "restored" for one in reports):
        raise StreamsError("no snapshot was restored")


def _settings(url: str | None, data_dir: Path | None) -> Settings:
    settings = load_settings(streams_snapshot_url=url, streams_data_dir=data_dir)
    configure_logging(settings.streams_log_format, level=logging.WARNING)
    return settings


def _say(text: str) -> None:
    """Print progress, for people: not part of the result."""
    echo_line(text, err=True)


def _echo(reports: Sequence[SnapshotReport], output: Format, *, nothing: str) -> None:
    if output is Format.JSON:
        echo_json([one.as_dict() for one in reports])
        return
    if not reports:
        echo_line(nothing)
    for one in reports:
        at = "" if one.cycle is None else f"cycle {one.cycle}, offset {one.offset_next}, {_moment(one.created_ms)}, "
        size = f"{counted(one.files, 'file')}, {one.bytes:,} bytes" if one.files else ""
        written = "" if one.written_bytes is None else f", {one.written_bytes:,} of them new"
        echo_line(f"{one.pipeline} partition {one.partition}: {one.verdict}")
        if one.cycle is not None:
            echo_line(f"  {at}{size}{written}")
        for problem in one.problems:
            echo_line(f"  problem   {problem}")


def _moment(ms: int | None) -> str:
    return datetime.fromtimestamp((ms or 0) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
