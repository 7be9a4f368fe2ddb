"""`streams flows`: lists and shows the flows of the app."""

from enum import StrEnum
from typing import Annotated

import typer

from streams.cli.current import current_lines
from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.flow.declaration import Pipeline
from streams.flow.discover import select_flow
from streams.flow.drawing import drawn
from streams.flow.topology import as_json, as_text, listed
from streams.kafka.admin import wait_for_broker
from streams.kafka.versions_topic import topics_of_current, versions_of
from streams.schemas.declared import flows_that_fit
from streams.settings import Settings, load_settings
from streams.versions.record import Versions


class ShowFormat(StrEnum):
    """How a topology is printed."""

    TEXT = "text"
    JSON = "json"
    SVG = "svg"


def list_command(output: FormatOption = Format.TEXT) -> None:
    """List the flows of the app: name, source, outputs, and the module that declares each."""
    rows = listed(flows_that_fit())
    if output is Format.JSON:
        echo_json(rows)
        return
    for row in rows:
        echo_line(f"{row['name']}: {row['source']} -> {', '.join(row['outputs'])}  ({row['declared_in']})")


def show_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the flow.")],
    output: Annotated[
        ShowFormat, typer.Option("--format", help="How to print it; svg: a picture for a document.")
    ] = ShowFormat.TEXT,
    *,
    versions: Annotated[
        bool, typer.Option("--versions", help="Ask Kafka which versions there are, and which one workers run.")
    ] = False,
) -> None:
    """Show a flow as a topology: its steps in the order in which events pass them, its topics, the bounds in force."""
    flow = select_flow(name)
    flows_that_fit()
    settings = load_settings()
    pipeline = flow.pipeline.with_prefix(settings.streams_topic_prefix)
    bounds = pipeline.under(settings).bounds.by_setting()
    known = _versions(settings, pipeline) if versions else None
    match output:
        case ShowFormat.JSON:
            beside = (
                {} if known is None else {"versions": {"current": known.current.version, "made": sorted(known.made)}}
            )
            echo_json({**as_json(flow, pipeline, bounds), **beside})
        case ShowFormat.SVG:
            for line in drawn(flow, pipeline).splitlines():
                echo_line(line)
        case ShowFormat.TEXT:
            for line in as_text(flow, pipeline, bounds):
                echo_line(line)
            if known is not None:
                _echo_versions(settings, pipeline, known)


def _versions(settings: Settings, pipeline: Pipeline) -> Versions:
    wait_for_broker(settings)
    return versions_of(settings, pipeline)


def _echo_versions(settings: Settings, pipeline: Pipeline, known: Versions) -> None:
    echo_line()
    echo_line(f"versions: the declared one, {', '.join(sorted(known.made)) or 'no other'}")
    for line in current_lines(topics_of_current(settings, [pipeline], there={pipeline.versions})):
        echo_line(line)
