"""Columns of byte strings: object arrays of bytes objects, or references into buffers that the native library holds.

Key, value and id of events are such columns. With references no object is made for an event that only passes through:
columns are cut, put together and produced without one. Both kinds know `take`, slices, `tolist` and `len`; what differs
between them is done here.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, cast, overload

import numpy as np

from streams.batch.columns import Int64, Objects, objects


class ByteRefs(Protocol):
    """A column by reference (`streams_native.ByteRefs`): immutable; it keeps the buffers that it refers to."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes | None]: ...

    @overload
    def __getitem__(self, key: int) -> bytes | None: ...

    @overload
    def __getitem__(self, key: slice) -> "ByteRefs": ...

    def take(self, rows: Int64) -> "ByteRefs":
        """The values at `rows`, in that order.

        Raises:
            IndexError: there is no such row; rows are not counted from the end.

        """

    def tolist(self) -> list[bytes | None]:
        """Bytes objects, None where it is null."""

    def sizes(self) -> Int64:
        """Bytes of each value; 0 of a null."""

    def compact(self) -> "ByteRefs":
        """The same values in a buffer of their own: it keeps no other one."""

    def pack(self) -> bytes:
        """As `streams.state.codec.pack_texts` writes them.

        Raises:
            ValueError: a value is null.

        """

    @staticmethod
    def of(values: list[bytes | None]) -> "ByteRefs":
        """A copy of bytes objects and None."""

    @staticmethod
    def concat(parts: list["ByteRefs"]) -> "ByteRefs":
        """The values of all parts."""


ByteColumn = Objects | ByteRefs
RecordBytes = list[bytes | None] | ByteRefs
"""Keys or values of records."""


class KeyMap(Protocol):
    """Slots by key, numbered from 0 in the order in which keys are first met: natively."""

    def __len__(self) -> int: ...

    def slots(self, keys: "ByteRefs | list[bytes]") -> tuple[Int64, list[bytes]]:
        """The slot of each key, and the keys that were new, in the order of their slots."""

    def clear(self) -> None:
        """Forget all keys."""


def listed(column: ByteColumn) -> RecordBytes:
    """Keys or values of records that a column holds: a list of an object array, and a column by reference as it is."""
    return column.tolist() if isinstance(column, np.ndarray) else column


def byte_objects(column: ByteColumn) -> Objects:
    """The column as an object array; it is that one if it is one."""
    return column if isinstance(column, np.ndarray) else objects(column.tolist())


def byte_values(column: ByteColumn) -> list[bytes]:
    """Bytes objects of a column of which none is null, as keys, values and ids of events are."""
    return cast("list[bytes]", column.tolist())


def byte_sizes(column: ByteColumn) -> Int64:
    """Bytes of each value; none may be null in an object array."""
    if isinstance(column, np.ndarray):
        return np.fromiter(map(len, column), np.int64, len(column))
    return column.sizes()


def compact(column: ByteColumn) -> ByteColumn:
    """A copy of the column that keeps only its own bytes in memory."""
    return column if isinstance(column, np.ndarray) else column.compact()


def concat_bytes(parts: Sequence[ByteColumn]) -> ByteColumn:
    """The values of all parts (at least one); by reference if one of them is."""
    refs = next((part for part in parts if not isinstance(part, np.ndarray)), None)
    if refs is None:
        return np.concatenate([part for part in parts if isinstance(part, np.ndarray)])
    return refs.concat([refs.of(part.tolist()) if isinstance(part, np.ndarray) else part for part in parts])


def concat_records(parts: Sequence[RecordBytes]) -> RecordBytes:
    """Put records together, as `concat_bytes` does with columns."""
    refs = next((part for part in parts if not isinstance(part, list)), None)
    if refs is None:
        return [value for part in parts for value in part]
    return refs.concat([refs.of(part) if isinstance(part, list) else part for part in parts])
