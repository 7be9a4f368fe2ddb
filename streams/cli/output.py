"""How commands print their results."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from streams.text import printable, printable_lines

__all__ = ["Format", "FormatOption", "echo_json", "echo_line", "echo_lines", "printable", "printable_lines"]


class Format(StrEnum):
    """How a result is printed."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="How to print the result.")]


def echo_json(value: Any, *, indent: int | None = 2) -> None:
    """Print one JSON document to standard output; what is not ASCII is escaped, so it is safe for a terminal.

    `indent` None: on one line.
    """
    typer.echo(json.dumps(value, indent=indent, default=str).replace("\x7f", "\\u007f"))


def echo_line(text: object = "", *, err: bool = False) -> None:
    """Print one line, made safe for a terminal (see `printable`); `err`: to standard error."""
    typer.echo(printable(text), err=err)


def echo_lines(text: object = "", *, err: bool = False) -> None:
    """Print a text of several lines, as `echo_line` does each of them."""
    typer.echo(printable_lines(text), err=err)
