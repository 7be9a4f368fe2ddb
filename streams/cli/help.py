"""Help pages: plain text that is wrapped for the terminal."""

import inspect
from typing import Any

from typer.core import TyperGroup


class Group(TyperGroup):
    """A group whose help says the whole first paragraph of each command, wrapped and not cut."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl(self.summaries(ctx))

    def summaries(self, ctx: Any) -> list[tuple[str, str]]:
        """Name and first paragraph of each command."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        return [(name, first_paragraph(command.help)) for name, command in commands if command]


def first_paragraph(text: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())
