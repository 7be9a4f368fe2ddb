"""The command line: argument parsing only; each command calls one function of the package that owns the work.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 fenced, 100 ran and found something; 130 ended by Ctrl-C, 141 the reader
of its output has gone.
"""

import sys
from typing import Annotated

import typer

from streams import __version__
from streams.cli.app import AppOption, use_app
from streams.cli.demo import demo
from streams.cli.dlq import dlq_app
from streams.cli.ending import CommandGroup, run
from streams.cli.flows import flows_app
from streams.cli.help import Group
from streams.cli.ingest import ingest_app
from streams.cli.lag import lag
from streams.cli.local import local_app
from streams.cli.monitor import monitor
from streams.cli.new import new
from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.cli.schemas import schemas_app
from streams.cli.state import state_app
from streams.cli.topics import topics_app
from streams.cli.worker import worker

app = typer.Typer(
    name="streams",
    cls=CommandGroup,
    rich_markup_mode=None,  # of all groups: plain pages, whose paragraphs are wrapped for the terminal
    help="Exactly-once stream processing: Kafka in, Kafka out. It runs the flows of an app, by default those for "
    "logistics.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(local_app, name="local", cls=Group)
app.add_typer(flows_app, name="flows", cls=Group)
app.add_typer(topics_app, name="topics", cls=Group)
app.add_typer(schemas_app, name="schemas", cls=Group)
app.add_typer(ingest_app, name="ingest", cls=Group)
app.add_typer(dlq_app, name="dlq", cls=Group)
app.add_typer(state_app, name="state", cls=Group)

app.command("new")(new)
app.command("worker")(worker)
app.command("lag")(lag)
app.command("monitor")(monitor)
app.command("demo")(demo)


@app.callback(invoke_without_command=True)
def _root(
    *,
    app: AppOption = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    use_app(app)
    if version:
        echo_line(__version__)
        raise typer.Exit


@app.command("settings")
def settings_command(output: FormatOption = Format.TEXT) -> None:
    """Print every setting in force (environment and defaults), secrets masked; name variables that are no settings.

    A variable that begins with STREAMS_, KAFKA_ or SCHEMA_REGISTRY_ and is no setting is ignored, and named on standard
    error with the setting that may be meant.
    """
    from streams.settings import load_settings, unknown_variables  # noqa: PLC0415 - start-up time of the command line

    values = load_settings().masked()
    if output is Format.JSON:
        echo_json(values)
    else:
        width = max(map(len, values))
        for name, value in values.items():
            echo_line(f"{name:<{width}}  {'' if value is None else value}".rstrip())
    for sentence in unknown_variables():
        echo_line(f"streams: {sentence}", err=True)


def main() -> None:
    """Run the command line; every expected failure is one clear line on standard error, never a traceback."""
    sys.exit(run(app, sys.argv[1:]))
