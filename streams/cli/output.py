"""How commands print their results."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer


class Format(StrEnum):
    """How a result is printed."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="How to print the result.")]


def echo_json(value: Any) -> None:
    """Print one JSON document to standard output; what is not ASCII is escaped, so it is safe for a terminal."""
    typer.echo(json.dumps(value, indent=2, default=str).replace("\x7f", "\\u007f"))


def printable(text: object) -> str:
    r"""`text` on one line, with nothing in it that a terminal would act upon.

    For whatever comes from outside: keys, headers, names of topics and groups, messages of others. Control characters
    (line ends too), escape sequences, marks that turn the direction of text and characters that cannot be encoded are
    written as `\x1b`, `\u202e` or `\U000e0001`. All else stays as it is; printing it twice changes nothing.
    """
    shown = str(text)
    return shown if shown.isprintable() else "".join(map(_visible, shown))


def printable_lines(text: object) -> str:
    """As `printable`, of a text of several lines: its line ends stay."""
    return "\n".join(map(printable, str(text).split("\n")))


def echo_line(text: object = "", *, err: bool = False) -> None:
    """Print one line, made safe for a terminal (see `printable`); `err`: to standard error."""
    typer.echo(printable(text), err=err)


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    number = ord(character)
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
