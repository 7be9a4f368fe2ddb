"""Help texts as wide as the terminal: a paragraph of a docstring is wrapped in the source, not for the reader."""

import inspect
import re
from typing import Final

import typer

_ITEM: Final = re.compile(r"\s|[-*] |\d+\. ")
"""How a line begins that stays a line: indented, or an item of a list."""


def unwrap_help(app: typer.Typer) -> None:
    """Join the lines of each paragraph of every command's help, of its groups too."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.help = unwrapped(command.help or inspect.getdoc(command.callback) or "")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            unwrap_help(group.typer_instance)


def unwrapped(text: str) -> str:
    """The text with its paragraphs on one line each; indented lines and items of lists stay as they are."""
    return "\n\n".join(map(_joined, inspect.cleandoc(text).split("\n\n")))


def _joined(paragraph: str) -> str:
    lines = paragraph.split("\n")
    return paragraph if any(map(_ITEM.match, lines)) else " ".join(lines)
