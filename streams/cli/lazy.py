"""Commands whose modules are imported when they are run: `streams --help` and a wrong command import none of them."""

import importlib
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import typer
from typer.main import get_group

from streams.cli.help import Group


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a command is, and what the list of commands says of it."""

    place: str
    """`module:function`, the module below `streams.cli`."""
    summary: str
    """The first paragraph of the function's docstring."""


@dataclass(frozen=True, slots=True)
class LazyCommands:
    """A group of commands."""

    summary: str
    commands: "Table"
    own: LazyCommand | None = None
    """What the name of the group does by itself; its summary is the group's."""


Table = Mapping[str, LazyCommand | LazyCommands]


class LazyGroup(Group):
    """A group that knows its commands by a table; each is imported when it is asked for."""

    def __init__(self, *, table: Table, own: Any = None, **settings: Any) -> None:
        """`own`: the command that runs when no other one is named."""
        if own is not None:
            settings |= {"params": own.params, "help": own.help, "invoke_without_command": True}
        super().__init__(no_args_is_help=settings.pop("no_args_is_help", own is None), **settings)
        self.commands = _Loaded(table)
        self._table, self._own = table, own

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named, or the group's own one."""
        found = super().invoke(ctx)
        if self._own is None or ctx.invoked_subcommand is not None:
            return found
        with ctx:
            return ctx.invoke(self._own.callback, **ctx.params)

    def summaries(self, _ctx: Any) -> list[tuple[str, str]]:
        """Names and descriptions, without an import."""
        return [(name, entry.summary) for name, entry in self._table.items()]


class _Loaded(MutableMapping[str, Any]):
    """The commands of a table by name, each made when it is read for the first time."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _made(name, self._table[name])
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


def _made(name: str, entry: LazyCommand | LazyCommands) -> Any:
    if isinstance(entry, LazyCommands):
        own = None if entry.own is None else _made(name, entry.own)
        return LazyGroup(table=entry.commands, own=own, name=name, help=entry.summary, rich_markup_mode=None)
    module, _, function = entry.place.partition(":")
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(name)(getattr(importlib.import_module(f"streams.cli.{module}"), function))
    return get_group(app).commands[name]
