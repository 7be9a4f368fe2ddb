"""Real paths: vehicles follow the committed tracks of real transponders, to and fro, at the pace of the originals."""

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from loadtest.fleet.tracks import Floats, TrackBlock

SAMPLE: Final = Path(__file__).parent.parent / "data" / "positions-real.parquet"
GAP_MS_MAX: Final = 60_000
"""A path ends where its transponder was silent for longer."""
PATH_MS_MIN: Final = 120_000
"""Duration that a recorded path must have; shorter paths are left out."""
_NUMBERS: Final = ("latitude", "longitude", "speed_kmh", "heading_deg", "altitude_m")


class _Paths:
    """Points of all paths, one path after the other."""

    def __init__(self, device: NDArray[np.object_], time_ms: NDArray[np.int64], values: dict[str, Floats]) -> None:
        starts = np.ones(device.size, np.bool_)
        starts[1:] = (device[1:] != device[:-1]) | (np.diff(time_ms) > GAP_MS_MAX)
        first = np.flatnonzero(starts)
        last = np.append(first[1:], device.size) - 1
        long_enough = time_ms[last] - time_ms[first] >= PATH_MS_MIN
        keep = np.repeat(long_enough, last - first + 1)
        lengths = (last - first + 1)[long_enough]
        self.count = int(long_enough.sum())
        self.duration_ms = (time_ms[last] - time_ms[first])[long_enough]
        path = np.repeat(np.arange(self.count), lengths)
        since_ms = time_ms[keep] - np.repeat(time_ms[first][long_enough], lengths)
        self.reach_ms = int(self.duration_ms.max()) + 1
        self.position = path * self.reach_ms + since_ms
        """Path and time of each point as one number, ascending over all points, so that a binary search finds a
        point."""
        self.values = {name: numbers[keep] for name, numbers in values.items()}


@cache
def _paths() -> _Paths:
    table = pq.read_table(SAMPLE).sort_by([("device_id", "ascending"), ("event_time", "ascending")])
    values = {name: table.column(name).to_numpy().astype(np.float64) for name in _NUMBERS}
    time_ms = table.column("event_time").to_numpy().astype("datetime64[ms]").astype(np.int64)
    return _Paths(table.column("device_id").to_numpy(), time_ms, values)


class RealTracks:
    """Vehicles on real paths, drawn with replacement, each beginning at a moment of its own."""

    def __init__(self, rng: np.random.Generator, vehicles: int, tick_ms: int) -> None:
        self._paths = _paths()
        self._tick_ms = tick_ms
        self._path = rng.integers(0, self._paths.count, vehicles)
        self._begin_ms = rng.integers(0, 2 * self._paths.duration_ms[self._path])

    def block(self, tick_first: int, ticks: int) -> TrackBlock:
        """Positions at `tick_first` and the `ticks - 1` that follow."""
        at_ms, backwards = self._at(tick_first, ticks)
        below, share = self._between(at_ms)
        values = self._paths.values
        heading = values["heading_deg"][below]  # of the last report: half-way between 350 and 10 lies no 180
        return TrackBlock(
            latitude=np.round(_interpolated(values["latitude"], below, share), 6),
            longitude=np.round(_interpolated(values["longitude"], below, share), 6),
            speed_kmh=np.round(_interpolated(values["speed_kmh"], below, share), 2),
            heading_deg=np.round((heading + np.where(backwards, 180.0, 0.0)) % 360.0, 1),
        )

    def altitude_m(self, tick_first: int, ticks: int) -> Floats:
        """Altitudes at the same ticks, metres."""
        below, share = self._between(self._at(tick_first, ticks)[0])
        return np.round(_interpolated(self._paths.values["altitude_m"], below, share), 1)

    def _at(self, tick_first: int, ticks: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Milliseconds since the beginning of the path, and whether the vehicle goes backwards."""
        duration_ms = self._paths.duration_ms[self._path]
        gone_ms = np.arange(tick_first, tick_first + ticks)[:, None] * self._tick_ms + self._begin_ms
        gone_ms %= 2 * duration_ms
        backwards = gone_ms > duration_ms
        return np.where(backwards, 2 * duration_ms - gone_ms, gone_ms), backwards

    def _between(self, at_ms: NDArray[np.int64]) -> tuple[NDArray[np.intp], Floats]:
        """The point before each moment, and the share of the way to the next one."""
        wanted = self._path * self._paths.reach_ms + at_ms
        position = self._paths.position
        # The last point of a path is the end of the leg before it: every moment lies on a leg of its own path.
        end_of_path = at_ms >= self._paths.duration_ms[self._path]
        below = np.searchsorted(position, wanted, side="right") - 1 - end_of_path
        return below, (wanted - position[below]) / np.maximum(position[below + 1] - position[below], 1)


def _interpolated(values: Floats, below: NDArray[np.intp], share: Floats) -> Floats:
    before = values[below]
    found: Floats = before + (values[below + 1] - before) * share
    return np.where(np.isnan(found), before, found)
