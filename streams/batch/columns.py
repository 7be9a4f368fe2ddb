"""Array types of columns, and helpers for single columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Objects = NDArray[np.object_]
Headers = list[tuple[str, bytes | None]]

_HEADER_OVERHEAD_BYTES = 150
"""Rough memory of a header beyond its bytes: a pair, its text and its value as objects."""
TIME_MIN: int = np.iinfo(np.int64).min
"""Below all event times: the watermark of a partition without events."""


def objects(values: Sequence[Any]) -> Objects:
    """One-dimensional object array of `values`, whatever their type (numpy would nest lists)."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def header_bytes(headers: Headers | None) -> int:
    """Bytes of the names and values of a record's headers."""
    return sum([len(name) + len(value or b"") for name, value in headers or ()])


def header_memory(headers: Headers | None) -> int:
    """Approximate memory of a record's headers."""
    return 0 if not headers else header_bytes(headers) + _HEADER_OVERHEAD_BYTES * len(headers)


def object_rows(rows: Sequence[Objects], count: int) -> Objects:
    """Object array of shape (rows, count); there may be no rows."""
    array = np.empty((len(rows), count), dtype=object)
    for position, row in enumerate(rows):
        array[position] = row
    return array


def has_text(column: Objects) -> Bools:
    """Where a column of texts has one: neither null nor empty."""
    return np.array([bool(text) for text in column.tolist()], dtype=np.bool_)
