"""The command line: it parses and prints; each command calls the package that owns the work, which returns a result.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 fenced, 100 ran and found something; 130 ended by Ctrl-C, 141 the reader
of its output has gone.
"""

import sys
from typing import Annotated, Any

import typer

from streams import __version__
from streams.cli.app import AppOption, use_app
from streams.cli.commands import COMMANDS
from streams.cli.ending import CommandGroup, run
from streams.cli.lazy import LazyGroup
from streams.cli.output import echo_line


class _Root(CommandGroup, LazyGroup):
    """The top of the command line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(table=COMMANDS, **settings)


app = typer.Typer(
    name="streams",
    cls=_Root,
    rich_markup_mode=None,  # of all groups: plain pages, whose paragraphs are wrapped for the terminal
    help="Exactly-once stream processing: Kafka in, Kafka out. It runs the flows of an app, by default those for "
    "logistics.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


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


def main() -> None:
    """Run the command line; every expected failure is one clear line on standard error, never a traceback."""
    sys.exit(run(app, sys.argv[1:]))
