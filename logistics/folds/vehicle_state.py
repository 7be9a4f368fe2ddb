"""Running state of a vehicle: events, odometer, speeds, last position, since when it stands still."""

from typing import Any, Final

import numpy as np
import pyarrow as pa

from logistics.folds.geo import haversine_mm
from logistics.reference import VehicleFold
from streams.batch.columns import Bools, Float64, Int64, Objects
from streams.batch.rows import Rows
from streams.operators.fold.aggregate import Segments

STOPPED_BELOW_KMH: Final = 3.0
_SPEED_KMH_MAX: Final = 1e9
"""Speeds are cut to this where they are summed, so that 9 billion of them fit into 64 bits."""

_DTYPE: Final = np.dtype(
    [
        ("events", "<i8"),
        ("first_event_time", "<i8"),
        ("last_event_time", "<i8"),
        ("last_sequence", "<i8"),
        ("latitude", "<f8"),
        ("longitude", "<f8"),
        ("odometer_mm", "<i8"),
        ("speeds", "<i8"),  # events with a known speed
        ("speed_sum", "<i8"),  # hundredths of km/h
        ("speed_max_kmh", "<f8"),
        ("stopped_since", "<i8"),
        ("stopped", "?"),
    ]
)


class VehicleState:
    """Fold of a vehicle's positions. Reads the numeric fields latitude, longitude and speed_kmh.

    A negative speed is an unknown one, as null is: trackers and phones send -1 for it.
    """

    reference = VehicleFold
    """The second opinion on it, by which `streams reconcile` goes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout of a row."""
        return _DTYPE

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Rows after the events of each segment."""
        event_time, start, end = segments.event_time, segments.start, segments.end
        latitude, longitude = segments.number("latitude"), segments.number("longitude")
        speed = known_speeds(segments.number("speed_kmh"))
        known_before = state["events"] > 0
        rows = state.copy()
        rows["events"] += end - start + 1
        rows["first_event_time"] = np.where(known_before, state["first_event_time"], event_time[start])
        rows["last_event_time"] = event_time[end]
        rows["last_sequence"] = segments.sequence[end]
        rows["latitude"], rows["longitude"] = latitude[end], longitude[end]
        rows["odometer_mm"] += distances_mm(state, known_before, latitude, longitude, start)
        fold_speeds(rows, state, speed, start)
        _fold_stops(rows, state, speed, event_time, start)
        return rows

    def table(self, keys: Objects, state: Rows) -> pa.RecordBatch:
        """Rows of `logistics.VehicleState`."""
        speeds = state["speeds"]
        none_known = speeds == 0
        mean = state["speed_sum"] / (np.maximum(speeds, 1) * 100.0)
        time = pa.timestamp("ms")
        columns: dict[str, pa.Array] = {
            "device_id": pa.array(keys, pa.binary()).cast(pa.string()),
            "events": pa.array(state["events"]),
            "first_event_time": pa.array(state["first_event_time"]).cast(time),
            "last_event_time": pa.array(state["last_event_time"]).cast(time),
            "last_sequence": pa.array(state["last_sequence"]),
            "latitude": pa.array(state["latitude"]),
            "longitude": pa.array(state["longitude"]),
            "odometer_km": pa.array(state["odometer_mm"] / 1e6),
            "speed_mean_kmh": pa.array(mean, mask=none_known),
            "speed_max_kmh": pa.array(state["speed_max_kmh"], mask=none_known),
            "stopped_since": pa.array(state["stopped_since"], mask=~state["stopped"]).cast(time),
        }
        return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def known_speeds(speed: Float64) -> Float64:
    """Speeds with NaN for each that is unknown: null, which is NaN already, or negative."""
    known: Float64 = np.where(speed < 0.0, np.nan, speed)
    return known


def distances_mm(state: Rows, known_before: Bools, latitude: Float64, longitude: Float64, start: Int64) -> Int64:
    """Distance that each segment adds: between neighbours, and from the last position before."""
    before_latitude, before_longitude = np.empty_like(latitude), np.empty_like(longitude)
    before_latitude[1:], before_longitude[1:] = latitude[:-1], longitude[:-1]
    before_latitude[start] = np.where(known_before, state["latitude"], latitude[start])
    before_longitude[start] = np.where(known_before, state["longitude"], longitude[start])
    sums: Int64 = np.add.reduceat(haversine_mm(before_latitude, before_longitude, latitude, longitude), start)
    return sums


def fold_speeds(rows: Rows, state: Rows, speed: Float64, start: Int64) -> None:
    """Sum, number and maximum of known speeds."""
    known = ~np.isnan(speed)
    hundredths = np.rint(np.minimum(np.where(known, speed, 0.0), _SPEED_KMH_MAX) * 100.0)
    rows["speeds"] += np.add.reduceat(known.astype(np.int64), start)
    rows["speed_sum"] += np.add.reduceat(hundredths.astype(np.int64), start)
    rows["speed_max_kmh"] = highest_speeds(state, rows["speeds"], speed, start)


def highest_speeds(state: Rows, speeds: Int64, speed: Float64, start: Int64) -> Float64:
    """Highest known speed after the events of each segment; 0 where none of `speeds` is known."""
    # Which zero the maximum of 0.0 and -0.0 is depends on where they stand; adding 0.0 leaves one of them.
    highest = np.maximum.reduceat(np.where(np.isnan(speed), -np.inf, speed + 0.0), start)
    before = np.where(state["speeds"] > 0, state["speed_max_kmh"], -np.inf)
    found: Float64 = np.where(speeds > 0, np.maximum(before, highest), 0.0)
    return found


def _fold_stops(rows: Rows, state: Rows, speed: Float64, event_time: Int64, start: Int64) -> None:
    """Since when the vehicle stands: the first slow event after the last fast one; unknown speeds change nothing."""
    row = np.arange(len(speed))
    slow = speed < STOPPED_BELOW_KMH
    last_fast = np.maximum.reduceat(np.where(speed >= STOPPED_BELOW_KMH, row, -1), start)
    # First slow row after the segment's last fast one (or after its start, when it has none).
    lengths = np.diff(np.append(start, len(speed)))
    behind_fast = row > np.repeat(last_fast, lengths)
    first_slow = np.minimum.reduceat(np.where(slow & behind_fast, row, len(speed)), start)
    has_slow, has_fast = first_slow < len(speed), last_fast >= 0
    stays = state["stopped"] & ~has_fast
    since = event_time[np.minimum(first_slow, len(speed) - 1)]
    rows["stopped"] = stays | has_slow
    rows["stopped_since"] = np.where(stays, state["stopped_since"], np.where(has_slow, since, 0))
