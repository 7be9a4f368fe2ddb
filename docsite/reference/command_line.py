"""The reference of the command line: every command with its arguments, options and exit status, from the commands."""

import inspect
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from docsite.reference.tables import code, table
from streams.cli import app


def page() -> str:
    """The page as Markdown."""
    lines = [
        "# Command line",
        "",
        "Every command of `streams`, as `--help` describes it. [Commands](../commands.md) is the overview, and says",
        "when to use which; [exit status](exit-status.md) says what a command ends with.",
        "",
    ]
    for words, command in commands():
        lines += _command(words, command)
    return "\n".join(lines)


def commands(command: Any = None, words: tuple[str, ...] = ("streams",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with its words."""
    command = get_command(app) if command is None else command
    below = getattr(command, "commands", None)
    if below is None or (len(words) > 1 and getattr(command, "invoke_without_command", False)):
        yield words, command
    for name, one in (below or {}).items():
        yield from commands(one, (*words, name))


def _command(words: tuple[str, ...], command: Any) -> list[str]:
    context = command.make_context(words[-1], [], resilient_parsing=True)
    usage = " ".join([*words, *command.collect_usage_pieces(context)])
    lines = [f"## {' '.join(words)}", "", *inspect.cleandoc(command.help or "").split("\n"), ""]
    lines += ["```", usage, "```", ""]
    records = [record for one in command.get_params(context) if (record := one.get_help_record(context))]
    if records:
        lines += table(("argument or option", "meaning"), [(code(name), _meaning(text)) for name, text in records])
    return lines


def _meaning(text: str) -> str:
    """What is said of an option; what Markdown would take for a link or an element is escaped."""
    return text.replace("<", "&lt;").replace("[", "\\[").replace("*", "\\*")
