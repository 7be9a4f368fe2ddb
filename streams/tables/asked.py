"""What a request for rows of a table asks for: which keys, conditions, columns, how many. Pure."""

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from streams.errors import UsageError
from streams.limits import KEY_BYTES_MAX, QUERY_ROWS_DEFAULT, QUERY_ROWS_MAX
from streams.state.store import prefix_end
from streams.tables.shape import TableShape
from streams.tables.where import Condition, conditions_of

COMMITTED: Final = "committed"
CHANGES: Final = "changes"
"""In the place of a key: the table's changes."""
END: Final = b"\xff" * (KEY_BYTES_MAX + 1)
"""A key that is greater than every key of a table."""
_OF_ROWS: Final = frozenset({"prefix", "from", "to", "where", "columns", "limit", "cursor", "as_of", "format"})
_OF_ONE: Final = frozenset({"columns", "as_of", "format"})
_OF_CHANGES: Final = frozenset({"where", "columns", "as_of", "from"})
_REPEATABLE: Final = frozenset({"where", "columns"})


@dataclass(frozen=True, slots=True)
class Asked:
    """Rows with `start <= key < end` that satisfy the conditions, in the order of the bytes of their keys."""

    start: bytes = b""
    end: bytes = END
    where: tuple[Condition, ...] = ()
    columns: tuple[str, ...] | None = None
    """Columns to return; None: all."""
    limit: int = QUERY_ROWS_DEFAULT


class Parameters:
    """Parameters of a request."""

    def __init__(self, pairs: Iterable[tuple[str, str]], known: frozenset[str]) -> None:
        """Take them.

        Raises:
            UsageError: one is not known, or is there twice.

        """
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            if name not in known:
                raise UsageError(f"there is no parameter {name[:50]!r}: {', '.join(sorted(known))}")
            self._values.setdefault(name, []).append(value)
        for name, values in self._values.items():
            if len(values) > 1 and name not in _REPEATABLE:
                raise UsageError(f"{name} is there {len(values)} times")
        as_of = self.one("as_of", COMMITTED)
        if as_of != COMMITTED:
            raise UsageError(f"as_of={as_of[:50]}: rows are served as committed, and in no other way: as_of=committed")

    def one(self, name: str, default: str) -> str:
        """Value of a parameter."""
        return self._values.get(name, [default])[0]

    def all(self, name: str) -> list[str]:
        """Values of a parameter that may be repeated."""
        return self._values.get(name, [])

    def columns(self, table: TableShape) -> tuple[str, ...] | None:
        """Names of the columns that are asked for: with commas between them, or repeated; None: all.

        Raises:
            UsageError: there is no such column.

        """
        names = [name.strip() for text in self.all("columns") for name in text.split(",") if name.strip()]
        if not names:
            return None
        known = [column.name for column in table.columns]
        for name in names:
            if name not in known:
                raise UsageError(f"columns: {table.topic} has no column {name[:50]!r}: there is {', '.join(known)}")
        return tuple(dict.fromkeys(names))

    def where(self, table: TableShape) -> tuple[Condition, ...]:
        """Conditions.

        Raises:
            UsageError: one is none.

        """
        return conditions_of(self.all("where"), table.columns, table=table.topic)

    def rows(self, table: TableShape) -> Asked:
        """Which rows of a table are asked for.

        Raises:
            UsageError: a value is none.

        """
        start, end = b"", END
        prefix = _key(self.one("prefix", ""), "prefix")
        if prefix:
            start, end = prefix, prefix_end(prefix)
        start = max(start, _key(self.one("from", ""), "from"))
        if to := _key(self.one("to", ""), "to"):
            end = min(end, to)
        if cursor := self.one("cursor", ""):
            start = max(start, after(key_of_cursor(cursor)))
        return Asked(start, end, self.where(table), self.columns(table), self._limit())

    def _limit(self) -> int:
        text = self.one("limit", str(QUERY_ROWS_DEFAULT))
        if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= QUERY_ROWS_MAX):
            raise UsageError(f"limit: {text[:20]!r} is not a number from 1 to {QUERY_ROWS_MAX}")
        return int(text)


def parameters_of_rows(pairs: Iterable[tuple[str, str]]) -> Parameters:
    """Those of a request for rows of a range.

    Raises:
        UsageError: one is not known, or is there twice.

    """
    return Parameters(pairs, _OF_ROWS)


def parameters_of_one(pairs: Iterable[tuple[str, str]]) -> Parameters:
    """Those of a request for the row of a key. Raises: as `parameters_of_rows`."""
    return Parameters(pairs, _OF_ONE)


def parameters_of_changes(pairs: Iterable[tuple[str, str]]) -> Parameters:
    """Those of a request for changes. Raises: as `parameters_of_rows`."""
    return Parameters(pairs, _OF_CHANGES)


def after(key: bytes) -> bytes:
    """The smallest key after `key`."""
    return key + b"\0"


def cursor_of(key: bytes) -> str:
    """Where the next request goes on after `key`."""
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


def key_of_cursor(cursor: str) -> bytes:
    """Inverse of `cursor_of`.

    Raises:
        UsageError: it is no cursor.

    """
    try:
        key = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 0 < len(key) <= KEY_BYTES_MAX:
        raise UsageError("cursor: this is none that an answer has named")
    return key


def key_of(text: str) -> bytes:
    """The key that a path names.

    Raises:
        UsageError: it is empty, or too long.

    """
    key = _key(text, "the key")
    if not key:
        raise UsageError("the key is empty")
    return key


def _key(text: str, what: str) -> bytes:
    key = text.encode(errors="surrogateescape")
    if len(key) > KEY_BYTES_MAX:
        raise UsageError(f"{what} has {len(key)} bytes; a key has at most {KEY_BYTES_MAX}")
    return key


def personal_used(table: TableShape, asked: Sequence[Condition]) -> list[str]:
    """Columns with personal data that conditions look at: by their answers the values could be found out."""
    return sorted({condition.column for condition in asked} & table.personal)
