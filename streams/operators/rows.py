"""State rows: empty ones, and to bytes and back. The bytes are kept in the store and in headers of table rows."""

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.lib import recfunctions

from streams.operators.aggregate import Rows

_SIZE: Final = struct.Struct("<i")
_NONE: Final = -1


def empty_rows(dtype: np.dtype[Any], count: int) -> Rows:
    """Rows of keys without events: zeros, and None for texts."""
    rows = np.zeros(count, dtype=dtype)
    for name in _texts(dtype):
        rows[name] = None
    return rows


def pack_rows(rows: Rows) -> list[bytes]:
    """Bytes of each row: its numbers as they lie in memory, then its texts, each behind its length."""
    texts = _texts(rows.dtype)
    if texts:
        fixed: Any = recfunctions.repack_fields(rows[_numbers(rows.dtype)])
        parts = [_split(fixed), *([_pack_text(text) for text in rows[name].tolist()] for name in texts)]
        return [b"".join(row) for row in zip(*parts, strict=True)]
    return _split(rows)


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
    for position, row in enumerate(packed):
        numbers = np.frombuffer(row[: fixed.itemsize], dtype=fixed)[0]
        for name in names:
            rows[name][position] = numbers[name]
        at = fixed.itemsize
        for name in texts:
            rows[name][position], at = _unpack_text(row, at)
        if at != len(row):
            raise ValueError("bytes behind the end of a row")
    return rows


def text_bytes(rows: Rows) -> int:
    """Bytes of all texts in `rows`."""
    return sum(len(text) for name in _texts(rows.dtype) for text in rows[name].tolist() if text is not None)


def _texts(dtype: np.dtype[Any]) -> list[str]:
    return [name for name in dtype.names or () if dtype[name].hasobject]


def _numbers(dtype: np.dtype[Any]) -> list[str]:
    return [name for name in dtype.names or () if not dtype[name].hasobject]


def _split(rows: Rows) -> list[bytes]:
    size, data = rows.dtype.itemsize, rows.tobytes()
    return [data[at : at + size] for at in range(0, len(data), size)]


def _pack_text(text: bytes | None) -> bytes:
    return _SIZE.pack(_NONE) if text is None else _SIZE.pack(len(text)) + text


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
