"""Rows of single keys: all that are asked for in one turn of the event loop are read and made public together."""

import asyncio
from dataclasses import dataclass
from typing import Any

from streams.tables.rendering import dicts_of
from streams.tables.shape import TableShape
from streams.tables.stored import StoredTables


@dataclass(frozen=True, slots=True)
class Found:
    """What came of looking for a key."""

    is_here: bool
    """Whether a partition at work here has the key."""
    row: dict[str, Any] | None = None
    """Not masked; None: the key has no row."""
    packed: bytes = b""
    """Row in the packed form in which the store has it."""


_ELSEWHERE = Found(is_here=False)
_ABSENT = Found(is_here=True)


class Lookups:
    """Looks up rows of one flow, on the event loop. A row in the block cache or in memory takes microseconds."""

    def __init__(self, stored: StoredTables) -> None:
        self._stored = stored
        self._waiting: dict[str, tuple[TableShape, list[tuple[bytes, asyncio.Future[Found]]]]] = {}

    def find(self, table: TableShape, key: bytes) -> "asyncio.Future[Found]":
        """The row of a key.

        The future raises StoreUnavailable or StoreCorrupted where the disk refuses.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._answer)
        future: asyncio.Future[Found] = loop.create_future()
        self._waiting.setdefault(table.topic, (table, []))[1].append((key, future))
        return future

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for table, asked in waiting.values():
            try:
                look = self._stored.look(table, [key for key, _ in asked])
                keys = list(look.rows)
                rows = dicts_of(table.rows(keys, [look.rows[key] for key in keys])) if keys else []
            except Exception as error:  # noqa: BLE001 - raised again where each is awaited
                for _, future in asked:
                    if not future.done():
                        future.set_exception(error)
                continue
            found = {key: Found(True, row, look.rows[key]) for key, row in zip(keys, rows, strict=True)}  # noqa: FBT003
            for key, future in asked:
                if not future.done():
                    future.set_result(found.get(key) or (_ELSEWHERE if key in look.elsewhere else _ABSENT))
