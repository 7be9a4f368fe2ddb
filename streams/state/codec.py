"""Columns, texts and record headers as bytes, for sections of the journal and pages of the store. Little-endian."""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from streams.batch.columns import Headers, Int64, Objects, objects
from streams.batch.refs import ByteColumn

SIZE: Final = struct.Struct("<I")


class Cut(ValueError):
    """The bytes end before what they should hold."""


class ColumnReader:
    """Reads columns one after the other.

    Every method raises `Cut`, or another ValueError, where the bytes do not hold what is asked for.
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def numbers(self, dtype: str, count: int) -> Any:
        """A column of `count` numbers of numpy's `dtype`."""
        column = np.frombuffer(self._data, dtype=dtype, count=count, offset=self._at)
        self._at += column.nbytes
        return column

    def blob(self, size: int) -> bytes:
        """So many bytes."""
        blob = bytes(self._data[self._at : self._at + size])
        if len(blob) != size:
            raise Cut("cut off")
        self._at += size
        return blob

    def size(self) -> int:
        """A number of 32 bits."""
        return int(self.numbers("<u4", 1)[0])

    def texts(self, count: int) -> Objects:
        """A column of `count` byte strings, as `pack_texts` has written it."""
        ends = np.cumsum(self.numbers("<u4", count), dtype=np.int64).tolist()
        blob = self.blob(ends[-1] if count else 0)
        starts = [0, *ends[:-1]]
        return objects([blob[a:b] for a, b in zip(starts, ends, strict=True)] if count else [])

    def skip_texts(self, count: int) -> int:
        """Pass over a column of byte strings; how many bytes they have together."""
        size = int(self.numbers("<u4", count).sum(dtype=np.int64))
        self.skip(size)
        return size

    def skip(self, size: int) -> None:
        """Pass over so many bytes."""
        if size > len(self._data) - self._at:
            raise Cut("cut off")
        self._at += size


def pack_texts(texts: list[bytes]) -> list[bytes]:
    """A column of byte strings: their sizes, and then all of them."""
    sizes = np.fromiter(map(len, texts), dtype="<u4", count=len(texts))
    return [sizes.tobytes(), b"".join(texts)]


def with_null_marks(texts: Objects) -> Objects:
    """A byte in front of each text; null is none at all."""
    return objects([b"" if text is None else b"\1" + text for text in texts.tolist()])


def without_null_marks(marked: Objects) -> Objects:
    """Inverse of `with_null_marks`."""
    return objects([text[1:] if text else None for text in marked.tolist()])


def pack_column(column: ByteColumn) -> list[bytes]:
    """As `pack_texts`, of a column."""
    return pack_texts(column.tolist()) if isinstance(column, np.ndarray) else [column.pack()]


def text_sizes(*columns: Objects) -> Int64:
    """Bytes of each row's texts."""
    if not columns:
        return np.zeros(1, dtype=np.int64)  # added to others, it fits any number of rows
    sizes = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        sizes += np.fromiter(map(len, column.tolist()), np.int64, len(column))
    return sizes


def cuts(sizes: Int64, bytes_max: int) -> Iterator[slice]:
    """Rows cut so that the sizes of each piece add up to `bytes_max` at most; a larger row stands alone."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + bytes_max, side="right")))
        yield slice(start, end)
        start = end


def pack_pairs(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Keys and values: their number, all keys, all values."""
    keys, values = zip(*pairs, strict=True)
    return b"".join([SIZE.pack(len(keys)), *pack_texts(list(keys)), *pack_texts(list(values))])


def unpack_pairs(data: memoryview) -> list[tuple[bytes, bytes]]:
    """Inverse of `pack_pairs`."""
    columns = ColumnReader(data)
    count = columns.size()
    return list(zip(columns.texts(count), columns.texts(count), strict=True))


def pack_headers(headers: Headers | None) -> bytes:
    """Record headers as bytes; no headers are no bytes."""
    if not headers:
        return b""
    parts = [struct.pack("<I", len(headers))]
    for name, value in headers:
        text = name.encode()
        size = -1 if value is None else len(value)
        parts += [struct.pack("<Ii", len(text), size), text, value or b""]
    return b"".join(parts)


def unpack_headers(data: bytes) -> Headers | None:
    """Inverse of `pack_headers`."""
    if not data:
        return None
    headers: Headers = []
    (count,) = struct.unpack_from("<I", data)
    at = 4
    for _ in range(count):
        name_size, size = struct.unpack_from("<Ii", data, at)
        at += 8
        name = data[at : at + name_size].decode()
        at += name_size
        headers.append((name, None if size < 0 else data[at : at + size]))
        at += max(size, 0)
    return headers
