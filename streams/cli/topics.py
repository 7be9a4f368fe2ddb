"""`streams topics`: what is declared, created; what has drifted, reported."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.cli.schemas import echo_schemas, fail_on_refused, schema_rows
from streams.errors import FoundSomething

if TYPE_CHECKING:
    from streams.kafka.topics import TopicState

topics_app = typer.Typer(help="Declared topics: create and compare.", no_args_is_help=True)


@topics_app.command("apply")
def apply_command(
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            help="Partitions of topics to be created, and asserted of those that exist. "
            "Default: as many as the pipeline's source topic has, 3 if there is none yet.",
        ),
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Create the declared topics that are missing and register the committed schemas.

    What exists is never changed. Differences from the declaration are reported, and the exit status is then 100.
    """
    from streams.kafka.admin import wait_for_broker  # noqa: PLC0415 - start-up time of the command line
    from streams.kafka.topics import apply_topics  # noqa: PLC0415 - as above
    from streams.logs import configure_logging  # noqa: PLC0415 - as above
    from streams.pipelines import select_pipelines  # noqa: PLC0415 - as above
    from streams.registry.catalog import Catalog  # noqa: PLC0415 - as above
    from streams.registry.client import Registry, wait_for_registry  # noqa: PLC0415 - as above
    from streams.registry.registration import register_schemas  # noqa: PLC0415 - as above
    from streams.settings import load_settings  # noqa: PLC0415 - as above

    settings = load_settings()
    configure_logging(settings.streams_log_format, level=logging.ERROR)
    catalog = Catalog.load()
    registry = Registry(settings)
    client = wait_for_broker(settings)
    pipelines = select_pipelines(None, prefix=settings.streams_topic_prefix)
    topics = apply_topics(client, pipelines, partitions=partitions)
    wait_for_registry(registry, timeout_s=15.0)
    schemas = register_schemas(catalog, registry, pipelines=pipelines)
    if output is Format.JSON:
        echo_json({"topics": [_topic_row(state) for state in topics], "schemas": schema_rows(schemas)})
    else:
        _echo_topics(topics)
        echo_line()
        echo_schemas(schemas)
    _fail_on_drift(topics)
    fail_on_refused(schemas)


@topics_app.command("list")
def list_command(output: FormatOption = Format.TEXT) -> None:
    """Show how the declared topics stand: there, missing, or different from their declaration (exit status 100)."""
    from streams.kafka.admin import wait_for_broker  # noqa: PLC0415 - start-up time of the command line
    from streams.kafka.topics import list_topics  # noqa: PLC0415 - as above
    from streams.pipelines import select_pipelines  # noqa: PLC0415 - as above
    from streams.settings import load_settings  # noqa: PLC0415 - as above

    settings = load_settings()
    pipelines = select_pipelines(None, prefix=settings.streams_topic_prefix)
    topics = list_topics(wait_for_broker(settings), pipelines)
    if output is Format.JSON:
        echo_json([_topic_row(state) for state in topics])
    else:
        _echo_topics(topics)
    _fail_on_drift(topics)


def _topic_row(state: "TopicState") -> dict[str, Any]:
    return {
        "pipeline": state.pipeline,
        "topic": state.name,
        "status": state.status.value,
        "partitions": state.partitions,
        "drift": list(state.drift),
    }


def _echo_topics(topics: "Sequence[TopicState]") -> None:
    width = max(len(state.name) for state in topics)
    for state in topics:
        note = "; ".join(state.drift)
        echo_line(f"{state.name:<{width}}  {state.partitions:>4}  {state.status.value:<8} {note}".rstrip())


def _fail_on_drift(topics: "Sequence[TopicState]") -> None:
    from streams.kafka.topics import TopicStatus  # noqa: PLC0415 - start-up time of the command line

    found = [state for state in topics if state.status in {TopicStatus.DRIFT, TopicStatus.MISSING}]
    if found:
        raise FoundSomething(
            f"{len(found)} of {len(topics)} declared topics are missing or differ from their declaration; "
            "`streams topics apply` creates what is missing and changes nothing that exists"
        )
