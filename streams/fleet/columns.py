"""Columns of decoded rows as the fleet page computes with them, and how positions are packed. Pure."""

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streams.fleet.vehicles import NEVER

DEGREE: Final = 10_000_000
"""Coordinates are packed as whole numbers of this fraction of a degree: a centimetre."""
NOWHERE: Final = np.iinfo(np.int32).min
"""A packed coordinate that is unknown, or that the viewer may not see."""
UNKNOWN: Final = np.iinfo(np.uint16).max
"""A packed speed or heading that is unknown."""
_SPEED_MAX_KMH: Final = 6_000.0


def texts(column: Any) -> list[Any]:
    """Return a column as texts, None where it is null."""
    found: list[Any] = column.to_pylist()
    return found


def times(column: Any) -> NDArray[np.int64]:
    """Milliseconds since the epoch of times, or of whole numbers of milliseconds; `NEVER` where there is none."""
    if pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.timestamp("ms", column.type.tz), safe=False)
    whole = column.cast(pa.int64())
    return np.asarray(whole.fill_null(int(NEVER)).to_numpy(zero_copy_only=False), dtype=np.int64)


def numbers(column: Any) -> NDArray[np.float64]:
    """Return a column as numbers, NaN where it is null."""
    doubles = column.cast(pa.float64(), safe=False)
    return np.array(doubles.fill_null(float("nan")).to_numpy(zero_copy_only=False), dtype=np.float64)


def packed_degrees(degrees: NDArray[np.float64]) -> NDArray[np.int32]:
    """Coordinates as they are stored and sent; NaN is `NOWHERE`."""
    known = np.isfinite(degrees)
    return np.where(known, np.rint(np.where(known, degrees, 0.0) * DEGREE), NOWHERE).astype(np.int32)


def packed_speeds(kmh: NDArray[Any]) -> NDArray[np.uint16]:
    """Tenths of km/h; negative ones and NaN are `UNKNOWN`."""
    known = np.isfinite(kmh) & (kmh >= 0)
    tenths = np.rint(np.clip(np.where(known, kmh, 0.0), 0.0, _SPEED_MAX_KMH) * 10)
    return np.where(known, tenths, UNKNOWN).astype(np.uint16)


def packed_headings(degrees: NDArray[Any]) -> NDArray[np.uint16]:
    """Hundredths of a degree, 0 to 35,999; NaN is `UNKNOWN`."""
    known = np.isfinite(degrees)
    hundredths = np.rint(np.mod(np.where(known, degrees, 0.0), 360.0) * 100) % 36_000
    return np.where(known, hundredths, UNKNOWN).astype(np.uint16)


def are_places(latitude: NDArray[np.float64], longitude: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether these are coordinates."""
    return (np.abs(latitude) <= 90.0) & (np.abs(longitude) <= 180.0)
