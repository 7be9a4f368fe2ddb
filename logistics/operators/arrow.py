"""Columns of state rows as Arrow columns of public rows."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from streams.batch.columns import Objects

_TIME: Final = pa.timestamp("ms")


def texts(column: Objects) -> pa.Array:
    """UTF-8 bytes or None as strings."""
    return pa.array(column, pa.binary()).cast(pa.string())


def times(column: Any, known: Any = None) -> pa.Array:
    """Milliseconds since 1970 as timestamps; null where `known` is false."""
    values = np.ascontiguousarray(column)
    return pa.array(values, mask=None if known is None else ~np.ascontiguousarray(known)).cast(_TIME)


def numbers(column: Any) -> pa.Array:
    """Doubles; NaN is null."""
    return pa.array(np.ascontiguousarray(column), from_pandas=True)


def symbols(names: Sequence[str], column: Any) -> pa.Array:
    """Names by their positions."""
    return pa.array([names[each] for each in column.tolist()], pa.string())
