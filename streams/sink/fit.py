"""Values that no target accepts: times outside the years 1 to 9999, times of day beyond a day."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from streams.sinks.target import TargetColumn

_DAY_MS: Final = 86_400_000
_FIRST_MS: Final = -62_135_596_800_000
"""0001-01-01 00:00 UTC."""
_END_MS: Final = 253_402_300_800_000
"""10000-01-01 00:00 UTC."""


def misfits(batch: pa.RecordBatch, columns: Sequence[TargetColumn]) -> dict[int, str]:
    """Positions of rows with such a value, each with the first one's name and what is wrong."""
    found: dict[int, str] = {}
    for column in columns:
        bounds = _bounds(column)
        if bounds is None:
            continue
        low, end, what = bounds
        values = batch.column(column.name)
        width = pa.int32() if column.arrow in {pa.date32(), pa.time32("ms")} else pa.int64()
        numbers = values.view(width).fill_null(low).to_numpy(zero_copy_only=False)
        for at in np.flatnonzero((numbers < low) | (numbers >= end)).tolist():
            found.setdefault(at, f"{column.name} is {numbers[at]}, {what}")
    return found


def _bounds(column: TargetColumn) -> tuple[int, int, str] | None:
    kind: Any = column.arrow
    match column.kind:
        case "timestamp" | "local_timestamp":
            unit = 1 if kind.unit == "ms" else 1_000
            return _FIRST_MS * unit, _END_MS * unit, "which is no time of the years 1 to 9999"
        case "date":
            return _FIRST_MS // _DAY_MS, _END_MS // _DAY_MS, "which is no day of the years 1 to 9999"
        case "time":
            unit = 1 if kind.unit == "ms" else 1_000
            return 0, _DAY_MS * unit, "which is no time of a day"
        case _:
            return None
