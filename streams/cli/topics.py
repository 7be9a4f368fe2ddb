"""`streams topics`: creates the declared topics, and reports those that differ from their declaration."""

import logging
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from streams.cli.current import current_lines
from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.cli.schemas.results import echo_schemas, fail_on_refused, schema_rows
from streams.errors import FoundSomething
from streams.flow.discover import select_pipelines
from streams.kafka.admin import partition_counts_with_leaderless, wait_for_broker
from streams.kafka.topics import TopicState, TopicStatus, Wanted, apply_topics, list_topics
from streams.kafka.versions_topic import topics_of_current
from streams.logs import configure_logging
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry, wait_for_registry
from streams.schemas.registration import register_schemas
from streams.settings import load_settings


def apply_command(
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            help="Partitions of topics to be created, and asserted of those that exist. "
            "Default: as many as the flow's source topic has, 3 if there is none yet.",
        ),
    ] = None,
    replication_factor: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            help="Replicas of topics to be created, and asserted of those that exist. Default: the broker's default.",
        ),
    ] = None,
    min_insync: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            help="min.insync.replicas of topics to be created, and asserted of those that exist: replicas that must "
            "have a record before it counts as written. Default: the broker's default.",
        ),
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Create the declared topics that are missing and register the committed schemas.

    Existing topics are never changed. Differences from the declaration are reported, and the exit status is then 100.
    """
    wanted = Wanted(partitions, replication_factor, min_insync)
    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.ERROR)
    catalog = Catalog.load()
    registry = Registry(settings)
    client = wait_for_broker(settings)
    pipelines = select_pipelines(None, prefix=settings.streams_topic_prefix)
    topics = apply_topics(client, pipelines, wanted=wanted)
    wait_for_registry(registry, timeout_s=15.0)
    schemas = register_schemas(catalog, registry, flows=pipelines)
    if output is Format.JSON:
        echo_json({"topics": [_topic_row(state) for state in topics], "schemas": schema_rows(schemas)})
    else:
        _echo_topics(topics)
        echo_line()
        echo_schemas(schemas)
    _fail_on_drift(topics)
    fail_on_refused(schemas)


def list_command(output: FormatOption = Format.TEXT) -> None:
    """Show the declared topics: present, missing, or different from their declaration (exit status 100).

    Of a flow of which a version was promoted: which topics have its outputs now.
    """
    settings = load_settings()
    pipelines = select_pipelines(None, prefix=settings.streams_topic_prefix)
    client = wait_for_broker(settings)
    topics = list_topics(client, pipelines)
    current = topics_of_current(settings, pipelines, there=partition_counts_with_leaderless(client).keys())
    if output is Format.JSON:
        echo_json([{**_topic_row(state), "current": current.get(state.name, state.name)} for state in topics])
    else:
        _echo_topics(topics)
        for line in current_lines(current):
            echo_line(line)
    _fail_on_drift(topics)


def _topic_row(state: TopicState) -> dict[str, Any]:
    return {
        "pipeline": state.pipeline,
        "topic": state.name,
        "status": state.status.value,
        "partitions": state.partitions,
        "replicas": state.replicas,
        "min_insync": state.min_insync,
        "retention_ms": state.retention_ms,
        "retention_bytes": state.retention_bytes,
        "compacted": state.is_compacted,
        "drift": list(state.drift),
    }


def _echo_topics(topics: Sequence[TopicState]) -> None:
    rows = [("topic", "partitions", "replicas", "in sync", "kept", "state", "")]
    for state in topics:
        there = (str(state.partitions), str(state.replicas), f">={state.min_insync}", _kept(state))
        partitions, replicas, in_sync, kept = there if state.partitions else ("-", "-", "-", "-")
        rows.append((state.name, partitions, replicas, in_sync, kept, state.status.value, "; ".join(state.drift)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = "<>>><<<"
    for row in rows:
        cells = [f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)]
        echo_line("  ".join(cells).rstrip())


def _kept(state: TopicState) -> str:
    """How long records are kept: the last of each key, by age, by size, or for good."""
    rules = ["last per key"] if state.is_compacted else []
    if state.retention_ms is not None:
        rules.append(_age(state.retention_ms))
    if state.retention_bytes is not None:
        rules.append(f"{state.retention_bytes / (1 << 20):,.0f} MiB a partition")
    return ", ".join(rules) or "for good"


def _age(time_ms: int) -> str:
    for unit, unit_ms in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if time_ms >= unit_ms and time_ms % unit_ms == 0:
            return f"{time_ms // unit_ms:,} {unit}"
    return f"{time_ms:,} ms"


def _fail_on_drift(topics: Sequence[TopicState]) -> None:

    found = [state for state in topics if state.status in {TopicStatus.DRIFT, TopicStatus.MISSING}]
    if found:
        raise FoundSomething(
            f"{len(found)} of {len(topics)} declared topics are missing or differ from their declaration; "
            "`streams topics apply` creates what is missing and changes nothing that exists"
        )
