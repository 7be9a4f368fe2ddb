"""What a command imports, imported once: see `forked`."""

import importlib
from collections.abc import Iterator

import pytest  # noqa: F401 - a forked process looks at what the main module of the tests has imported

from streams.cli.commands import COMMANDS
from streams.cli.lazy import LazyCommands, Table


def _modules(table: Table) -> Iterator[str]:
    for entry in table.values():
        if isinstance(entry, LazyCommands):
            yield from _modules(entry.commands)
        else:
            yield f"streams.cli.{entry.place.partition(':')[0]}"


for _name in sorted({*_modules(COMMANDS)}):
    importlib.import_module(_name)
