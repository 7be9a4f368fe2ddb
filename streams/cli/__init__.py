"""The command line: argument parsing only; each command calls one function of the package that owns the work.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 fenced, 100 ran and found something.
"""

import sys
from typing import Annotated

import typer

from streams import __version__
from streams.cli.demo import demo
from streams.cli.dlq import dlq_app
from streams.cli.ingest import ingest_app
from streams.cli.lag import lag
from streams.cli.local import local_app
from streams.cli.monitor import monitor
from streams.cli.output import Format, FormatOption, echo_json, printable_lines
from streams.cli.schemas import schemas_app
from streams.cli.state import state_app
from streams.cli.topics import topics_app
from streams.cli.worker import worker
from streams.errors import StreamsError

app = typer.Typer(
    name="streams",
    help="Exactly-once stream processing for logistics events: Kafka in, Kafka out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(local_app, name="local")
app.add_typer(topics_app, name="topics")
app.add_typer(schemas_app, name="schemas")
app.add_typer(ingest_app, name="ingest")
app.add_typer(dlq_app, name="dlq")
app.add_typer(state_app, name="state")

app.command("worker")(worker)
app.command("lag")(lag)
app.command("monitor")(monitor)
app.command("demo")(demo)


@app.callback(invoke_without_command=True)
def _root(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command("settings")
def settings_command(output: FormatOption = Format.TEXT) -> None:
    """Print the settings in force (environment and defaults), secrets masked."""
    from streams.settings import load_settings  # noqa: PLC0415 - start-up time of the command line

    values = load_settings().masked()
    if output is Format.JSON:
        echo_json(values)
        return
    width = max(map(len, values))
    for name, value in values.items():
        typer.echo(f"{name:<{width}}  {'' if value is None else value}")


def main() -> None:
    """Run the command line; every expected failure is one clear line on standard error, never a traceback."""
    try:
        app()
    except StreamsError as error:
        if str(error):
            typer.echo(f"streams: {printable_lines(error)}", err=True)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
