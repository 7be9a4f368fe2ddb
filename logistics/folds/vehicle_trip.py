"""A trip of a vehicle: from its first position to its last one before it was silent for long."""

from typing import Any, Final

import numpy as np
import pyarrow as pa

from logistics.folds.vehicle_state import STOPPED_BELOW_KMH, distances_mm, fold_speeds, known_speeds
from streams.batch.columns import Bools, Float64, Int64, Objects
from streams.batch.rows import Rows
from streams.operators.fold.aggregate import Segments

_DTYPE: Final = np.dtype(
    [
        ("known", "?"),  # a last position; it passes over to the next row of the same trip
        ("latitude", "<f8"),
        ("longitude", "<f8"),
        ("last_event_time", "<i8"),
        ("stopped", "?"),
        ("events", "<i8"),
        ("distance_mm", "<i8"),
        ("moving_ms", "<i8"),
        ("stopped_ms", "<i8"),
        ("speeds", "<i8"),  # events with a known speed
        ("speed_sum", "<i8"),  # hundredths of km/h
        ("speed_max_kmh", "<f8"),
    ]
)


class VehicleTrip:
    """Fold of a vehicle's positions in a session. Reads the numeric fields latitude, longitude and speed_kmh.

    Way and time from the position before count where they end. The time between two positions is stopped when the
    vehicle stood at the first of them: its last known speed was below 3 km/h. A negative speed is an unknown one.
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
        fold_speeds(rows, state, speed, start)
        stopped = _stopped(state["stopped"], speed, segments)
        elapsed, was_stopped = np.empty_like(segments.event_time), np.empty_like(stopped)
        elapsed[1:], was_stopped[1:] = np.diff(segments.event_time), stopped[:-1]
        since = np.where(state["known"], state["last_event_time"], segments.event_time[start])
        elapsed[start], was_stopped[start] = segments.event_time[start] - since, state["stopped"]
        rows["stopped_ms"] += np.add.reduceat(np.where(was_stopped, elapsed, 0), start)
        rows["moving_ms"] += np.add.reduceat(np.where(was_stopped, 0, elapsed), start)
        rows["known"], rows["latitude"], rows["longitude"] = True, latitude[end], longitude[end]
        rows["last_event_time"], rows["stopped"] = segments.event_time[end], stopped[end]
        return rows

    def carry(self, state: Rows) -> Rows:
        """Where and when the last position was, and whether the vehicle stood there."""
        rows = np.zeros_like(state)
        for name in ("known", "latitude", "longitude", "last_event_time", "stopped"):
            rows[name] = state[name]
        return rows

    def table(self, keys: Objects, start: Int64, end: Int64, revision: Int64, state: Rows) -> pa.RecordBatch:
        """Rows of `logistics.VehicleTrip`."""
        del end  # of the session: the gap after the last position
        time = pa.timestamp("ms")
        speeds = state["speeds"]
        columns: dict[str, pa.Array] = {
            "device_id": pa.array(keys, pa.binary()).cast(pa.string()),
            "trip_start": pa.array(start).cast(time),
            "trip_end": pa.array(state["last_event_time"]).cast(time),
            "revision": pa.array(revision).cast(pa.int32()),
            "events": pa.array(state["events"]),
            "distance_km": pa.array(state["distance_mm"] / 1e6),
            "moving_ms": pa.array(state["moving_ms"]),
            "stopped_ms": pa.array(state["stopped_ms"]),
            "speed_mean_kmh": pa.array(state["speed_sum"] / (np.maximum(speeds, 1) * 100.0), mask=speeds == 0),
            "speed_max_kmh": pa.array(state["speed_max_kmh"], mask=speeds == 0),
        }
        return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _stopped(before: Bools, speed: Float64, segments: Segments) -> Bools:
    """Whether the vehicle stands after each event: by its last known speed, else as `before` of its segment says."""
    row = np.arange(len(speed))
    last_known = np.maximum.accumulate(np.where(np.isnan(speed), -1, row))
    owner = np.repeat(np.arange(len(segments)), segments.end - segments.start + 1)
    is_known = last_known >= segments.start[owner]
    found: Bools = np.where(is_known, speed[np.maximum(last_known, 0)] < STOPPED_BELOW_KMH, before[owner])
    return found
