"""A window of a vehicle: events, distance and highest speed of a minute (or any other window size)."""

from typing import Any, Final

import numpy as np
import pyarrow as pa

from logistics.folds.vehicle_state import distances_mm, highest_speeds, known_speeds
from streams.batch.columns import Int64, Objects
from streams.batch.rows import Rows
from streams.operators.fold.aggregate import Segments

_DTYPE: Final = np.dtype(
    [
        ("known", "?"),  # a last position; it passes over to the next window
        ("latitude", "<f8"),
        ("longitude", "<f8"),
        ("events", "<i8"),
        ("distance_mm", "<i8"),
        ("speeds", "<i8"),  # events with a known speed
        ("speed_max_kmh", "<f8"),
    ]
)


class VehicleMinute:
    """Fold of a vehicle's positions in a window. Reads the numeric fields latitude, longitude and speed_kmh.

    The way from the position before counts where it ends, so that the distances of all windows add up to the odometer.
    A negative speed is an unknown one.
    """

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout of a row."""
        return _DTYPE

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Rows after the events of each segment."""
        latitude, longitude = segments.number("latitude"), segments.number("longitude")
        speed = known_speeds(segments.number("speed_kmh"))
        start, end = segments.start, segments.end
        rows = state.copy()
        rows["events"] += end - start + 1
        rows["distance_mm"] += distances_mm(state, state["known"], latitude, longitude, start)
        rows["known"], rows["latitude"], rows["longitude"] = True, latitude[end], longitude[end]
        rows["speeds"] += np.add.reduceat((~np.isnan(speed)).astype(np.int64), start)
        rows["speed_max_kmh"] = highest_speeds(state, rows["speeds"], speed, start)
        return rows

    def carry(self, state: Rows) -> Rows:
        """The last position, and nothing else."""
        rows = np.zeros_like(state)
        for name in ("known", "latitude", "longitude"):
            rows[name] = state[name]
        return rows

    def table(self, keys: Objects, start: Int64, end: Int64, revision: Int64, state: Rows) -> pa.RecordBatch:
        """Rows of `logistics.VehicleMinute`."""
        time = pa.timestamp("ms")
        columns: dict[str, pa.Array] = {
            "device_id": pa.array(keys, pa.binary()).cast(pa.string()),
            "window_start": pa.array(start).cast(time),
            "window_end": pa.array(end).cast(time),
            "revision": pa.array(revision).cast(pa.int32()),
            "events": pa.array(state["events"]),
            "distance_km": pa.array(state["distance_mm"] / 1e6),
            "speed_max_kmh": pa.array(state["speed_max_kmh"], mask=state["speeds"] == 0),
        }
        return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
