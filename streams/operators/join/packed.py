"""Rows that a join keeps, as bytes: sections of the journal, and values of the store. Columns are read by name."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.lib import recfunctions

from streams.batch.columns import Int64
from streams.batch.rows import Rows, empty_rows, pack_rows, text_bytes, unpack_rows
from streams.limits import JOURNAL_RECORD_BYTES_MAX
from streams.state.codec import SIZE, ColumnReader, Cut, cuts, pack_texts, with_null_marks, without_null_marks
from streams.state.journal import reading

_TEXT_OVERHEAD_BYTES: Final = 40
"""Rough memory of a text beyond its bytes."""

Columns = list[list[str]]
"""Names and types of columns, as JSON has them."""


def columns_of(dtype: np.dtype[Any]) -> Columns:
    """Columns of rows of `dtype`."""
    return [[name, "O" if dtype[name].hasobject else dtype[name].str] for name in dtype.names or ()]


def dtype_of(columns: Columns) -> np.dtype[Any]:
    """Return the dtype of columns; the inverse of `columns_of`."""
    return np.dtype([(name, kind) for name, kind in columns])


def memory_of(rows: Rows) -> int:
    """Approximate memory of rows."""
    return rows.nbytes + text_bytes(rows) + len(rows) * _TEXT_OVERHEAD_BYTES * len(_texts(rows.dtype))


def as_declared(rows: Rows, dtype: np.dtype[Any]) -> Rows:
    """Rows of another layout as rows of `dtype`: columns by name; a number that they lack is NaN, a text None."""
    if rows.dtype == dtype:
        return rows
    found = empty_rows(dtype, len(rows))
    for name in dtype.names or ():
        if name in (rows.dtype.names or ()) and rows.dtype[name] == dtype[name]:
            found[name] = rows[name]
        elif dtype[name].kind == "f":
            found[name] = np.nan
    return found


def pack_section(keys: Sequence[bytes], rows: Rows) -> list[bytes]:
    """Rows and their keys in pieces of a journal record's size; a single row may be larger."""
    if not len(rows):
        return []
    texts = _texts(rows.dtype)
    sizes: Int64 = np.array([len(key) for key in keys], dtype=np.int64) + rows.dtype.itemsize + 8
    for name in texts:
        sizes += np.array([len(text or b"") + 5 for text in rows[name].tolist()], dtype=np.int64)
    return [_pack(keys[cut], rows[cut]) for cut in cuts(sizes, JOURNAL_RECORD_BYTES_MAX)]


def _pack(keys: Sequence[bytes], rows: Rows) -> bytes:
    texts, numbers = _texts(rows.dtype), _numbers(rows.dtype)
    head = json.dumps({"rows": len(rows), "columns": columns_of(rows.dtype)}).encode()
    fixed: Any = recfunctions.repack_fields(rows[numbers])
    parts = [SIZE.pack(len(head)), head, fixed.tobytes(), *pack_texts(list(keys))]
    for name in texts:
        parts += pack_texts(with_null_marks(rows[name]).tolist())
    return b"".join(parts)


def unpack_section(data: memoryview, dtype: np.dtype[Any]) -> tuple[list[bytes], Rows]:
    """Keys and rows of a piece, as rows of `dtype`.

    Raises:
        JournalCorrupted: the bytes are not such a piece.

    """
    with reading():
        reader = ColumnReader(data)
        head = json.loads(reader.blob(reader.size()))
        count, written = int(head["rows"]), dtype_of(head["columns"])
        fixed = np.dtype([(name, written[name]) for name in _numbers(written)])
        numbers = np.frombuffer(reader.blob(count * fixed.itemsize), dtype=fixed)
        keys: list[bytes] = reader.texts(count).tolist()
        rows = empty_rows(written, count)
        for name in fixed.names or ():
            rows[name] = numbers[name]
        for name in _texts(written):
            rows[name] = without_null_marks(reader.texts(count))
        return keys, as_declared(rows, dtype)


def pack_values(rows: Rows, ends: Sequence[int]) -> Iterator[bytes]:
    """A value of the store for each run of rows, which end before `ends`."""
    packed = pack_rows(rows)
    if _texts(rows.dtype):
        packed = [SIZE.pack(len(row)) + row for row in packed]
    start = 0
    for end in ends:
        yield b"".join(packed[start:end])
        start = end


def unpack_values(values: Sequence[bytes], dtype: np.dtype[Any]) -> tuple[Int64, Rows]:
    """Number of rows in each value, and all of them.

    Raises:
        JournalCorrupted: the bytes are no such values.

    """
    with reading():
        if _texts(dtype):
            split = [_split(value) for value in values]
            rows = unpack_rows(dtype, [row for value in split for row in value])
            return np.array([len(value) for value in split], dtype=np.int64), rows
        sizes = np.array([len(value) for value in values], dtype=np.int64)
        if (sizes % dtype.itemsize).any():
            raise Cut(f"rows are not {dtype.itemsize} bytes long")
        return sizes // dtype.itemsize, np.frombuffer(b"".join(values), dtype=dtype).copy()


def _split(value: bytes) -> list[bytes]:
    rows: list[bytes] = []
    at = 0
    while at < len(value):
        (size,) = SIZE.unpack_from(value, at)
        at += SIZE.size
        if at + size > len(value):
            raise Cut("a row is cut off")
        rows.append(value[at : at + size])
        at += size
    return rows


def _texts(dtype: np.dtype[Any]) -> list[str]:
    return [name for name in dtype.names or () if dtype[name].hasobject]


def _numbers(dtype: np.dtype[Any]) -> list[str]:
    return [name for name in dtype.names or () if not dtype[name].hasobject]
