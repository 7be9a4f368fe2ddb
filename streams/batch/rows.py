"""State rows: their layout by column name, empty rows, and conversion to and from bytes.

The bytes are kept in the store and in headers of table rows. They are read with the layout that they were written with,
and brought to today's layout column by column, so that an added, removed or moved column never shifts a value.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.lib import recfunctions

from streams.batch.columns import Bools, Int64, objects

Rows = np.ndarray[Any, Any]
"""Structured array: one element per row of state."""

_SIZE: Final = struct.Struct("<i")
_NONE: Final = -1
_TEXT: Final = "text"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of stored rows: its path (`a.b` is field b of column a), its type, and what its value means."""

    path: str
    type: str
    """numpy's name of the type, with the shape of an array; `text` for bytes or None."""
    meaning: str = ""
    """What the fold computes, where one dtype may mean several things (`Greatest(field='speed_kmh')`)."""

    @property
    def name(self) -> str:
        """Name of the whole column that this is, or is a part of."""
        return self.path.rpartition(".")[0] or self.path


@dataclass(frozen=True, slots=True)
class RowLayout:
    """The columns of stored rows, in the order in which their bytes lie."""

    columns: tuple[Column, ...]

    @staticmethod
    def of(dtype: np.dtype[Any], meanings: Mapping[str, str] | None = None) -> "RowLayout":
        """Layout of rows of `dtype`; `meanings` by the name of a top-level column."""
        return RowLayout(tuple(_columns(dtype, "", meanings or {})))

    def as_json(self) -> list[list[str]]:
        """The columns as lists of texts."""
        return [[column.path, column.type, column.meaning] for column in self.columns]

    @staticmethod
    def from_json(found: Any) -> "RowLayout":
        """Inverse of `as_json`.

        Raises:
            ValueError: it is something else.

        """
        try:
            return RowLayout(tuple(Column(*map(str, column)) for column in found))
        except TypeError as error:
            raise ValueError(f"not a layout of rows: {error}") from None

    def changed(self, now: "RowLayout") -> list[str]:
        """Columns of both layouts that differ: their values cannot be carried over."""
        before = {column.path: column.type for column in self.columns}
        meant = {column.name: column.meaning for column in self.columns}
        return [
            column.path
            for column in now.columns
            if before.get(column.path, column.type) != column.type
            or meant.get(column.name, column.meaning) != column.meaning
        ]

    def added(self, now: "RowLayout") -> list[str]:
        """Names of columns that only `now` has."""
        before = {column.path for column in self.columns}
        return [column.path for column in now.columns if column.path not in before]

    def convert(self, packed: Sequence[bytes], to: np.dtype[Any], empty: Rows) -> list[bytes]:
        """Rows of this layout as rows of `to`: columns by name; what they lack is as in the one row of `empty`.

        Raises:
            ValueError: the bytes are not rows of this layout.

        """
        old = unpack_rows(self._dtype(), packed)
        new = np.repeat(empty, len(packed))
        mine = {column.path for column in self.columns}
        for column in RowLayout.of(to).columns:
            if column.path in mine:
                _at(new, column.path)[...] = old[column.path]
        return pack_rows(new)

    def _dtype(self) -> np.dtype[Any]:
        return np.dtype([(column.path, _type_of(column.type)) for column in self.columns])


def _columns(dtype: np.dtype[Any], before: str, meanings: Mapping[str, str]) -> list[Column]:
    found: list[Column] = []
    for name in dtype.names or ():
        inner, path = dtype[name], before + name
        meaning = meanings.get(path.partition(".")[0], "")
        if inner.names:
            found += _columns(inner, f"{path}.", meanings)
        elif inner.hasobject:
            found.append(Column(path, _TEXT, meaning))
        elif inner.subdtype is not None:
            base, shape = inner.subdtype
            found.append(Column(path, f"{base.str}[{','.join(map(str, shape))}]", meaning))
        else:
            found.append(Column(path, inner.str, meaning))
    return found


def _type_of(text: str) -> Any:
    if text == _TEXT:
        return "O"
    base, _, shape = text.partition("[")
    return (base, tuple(map(int, shape.rstrip("]").split(",")))) if shape else base


def _at(rows: Rows, path: str) -> Any:
    for name in path.split("."):
        rows = rows[name]
    return rows


def empty_rows(dtype: np.dtype[Any], count: int) -> Rows:
    """Rows of keys without events: zeros, and None for texts."""
    rows = np.zeros(count, dtype=dtype)
    for name in _texts(dtype):
        rows[name] = None
    return rows


# numpy copies structured arrays field by field, by indices up to a hundred times as slowly as bytes of the same length.


def concat_rows(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts (at least one, all of one dtype), one after the other; not a copy where there is one."""
    if len(parts) == 1:
        return parts[0]
    dtype = parts[0].dtype
    if dtype.hasobject:
        return np.concatenate(parts)
    return np.frombuffer(bytearray().join([part.tobytes() for part in parts]), dtype)


def put_rows(rows: Rows, places: Int64 | Bools, values: Rows) -> None:
    """Set the rows at `places` to `values`; fast where these have the same dtype."""
    if rows.dtype.hasobject or (values.dtype is not rows.dtype and values.dtype != rows.dtype):
        rows[places] = values
    else:
        raw = _raw(rows.dtype.itemsize)
        rows.view(raw)[places] = values.view(raw)


def rows_where(condition: Bools, rows: Rows, others: Rows) -> Rows:
    """Each of `rows` for which the condition holds, else the one of `others`; a copy."""
    found = others.copy()
    places = condition.nonzero()[0]
    put_rows(found, places, rows.take(places))
    return found


@lru_cache(maxsize=256)
def _raw(size: int) -> np.dtype[Any]:
    return np.dtype((np.void, size))


def pack_rows(rows: Rows) -> list[bytes]:
    """Bytes of each row: its numbers as they lie in memory, then its texts, each after its length."""
    texts = _texts(rows.dtype)
    if texts:
        fixed: Any = recfunctions.repack_fields(rows[_numbers(rows.dtype)])
        parts = [_split(fixed), *([_pack_text(text) for text in rows[name].tolist()] for name in texts)]
        return [b"".join(row) for row in zip(*parts, strict=True)]
    return _split(rows)


def pack_after(parts: Sequence[tuple[bytes, Rows]]) -> list[bytes]:
    """For each row, join what `parts` have of it: their bytes, then `pack_rows`. All parts have equally many rows.

    Rows hold numbers only.
    """
    size = sum(len(before) + rows.dtype.itemsize for before, rows in parts)
    table = np.empty((len(parts[0][1]), size), np.uint8)
    at = 0
    for before, rows in parts:
        table[:, at : at + len(before)] = np.frombuffer(before, np.uint8)
        at += len(before)
        end = at + rows.dtype.itemsize
        table[:, at:end] = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.dtype.itemsize)
        at = end
    data = table.tobytes()
    return [data[at : at + size] for at in range(0, len(data), size)]


def unpack_rows(dtype: np.dtype[Any], packed: Sequence[bytes]) -> Rows:
    """Inverse of `pack_rows`.

    Raises:
        ValueError: the bytes are not rows of this layout.

    """
    rows = empty_rows(dtype, len(packed))
    texts = _texts(dtype)
    if not texts:
        if any(len(row) != dtype.itemsize for row in packed):
            raise ValueError(f"rows are not {dtype.itemsize} bytes long")
        rows[:] = np.frombuffer(b"".join(packed), dtype=dtype)
        return rows
    names = _numbers(dtype)
    fixed = np.dtype([(name, dtype[name]) for name in names])
    if any(len(row) < fixed.itemsize for row in packed):
        raise ValueError("a row is cut off")
    numbers = np.frombuffer(b"".join([row[: fixed.itemsize] for row in packed]), dtype=fixed)
    for name in names:
        rows[name] = numbers[name]
    found = [_unpack_texts(row, fixed.itemsize, len(texts)) for row in packed]
    for column, name in enumerate(texts):
        rows[name] = objects([row[column] for row in found])
    return rows


def unpack_column(dtype: np.dtype[Any], packed: Sequence[bytes], name: str) -> Any:
    """One column of numbers of what `pack_rows` has written.

    Raises:
        ValueError: the bytes are not rows of this layout.

    """
    if not _texts(dtype):
        if set(map(len, packed)) - {dtype.itemsize}:
            raise ValueError(f"rows are not {dtype.itemsize} bytes long")
        return np.frombuffer(b"".join(packed), dtype=dtype)[name]
    names = _numbers(dtype)
    fixed = np.dtype([(each, dtype[each]) for each in names])
    if any(len(row) < fixed.itemsize for row in packed):
        raise ValueError("a row is cut off")
    return np.frombuffer(b"".join([row[: fixed.itemsize] for row in packed]), dtype=fixed)[name]


def text_bytes(rows: Rows) -> int:
    """Bytes of all texts in `rows`."""
    return sum(sum(map(len, filter(None, rows[name].tolist()))) for name in _texts(rows.dtype))


def _texts(dtype: np.dtype[Any]) -> list[str]:
    return [name for name in dtype.names or () if dtype[name].hasobject]


def _numbers(dtype: np.dtype[Any]) -> list[str]:
    return [name for name in dtype.names or () if not dtype[name].hasobject]


def _split(rows: Rows) -> list[bytes]:
    size, data = rows.dtype.itemsize, rows.tobytes()
    return [data[at : at + size] for at in range(0, len(data), size)]


def _pack_text(text: bytes | None) -> bytes:
    return _SIZE.pack(_NONE) if text is None else _SIZE.pack(len(text)) + text


def _unpack_texts(row: bytes, at: int, count: int) -> list[bytes | None]:
    """The texts of a row, which begin at `at` and end with it."""
    found: list[bytes | None] = []
    for _ in range(count):
        text, at = _unpack_text(row, at)
        found.append(text)
    if at != len(row):
        raise ValueError("bytes after the end of a row")
    return found


def _unpack_text(row: bytes, at: int) -> tuple[bytes | None, int]:
    try:
        (size,) = _SIZE.unpack_from(row, at)
    except struct.error as error:
        raise ValueError(f"a row is cut off: {error}") from None
    at += _SIZE.size
    if size == _NONE:
        return None, at
    if size < 0 or at + size > len(row):
        raise ValueError("a row is cut off")
    return row[at : at + size], at + size
