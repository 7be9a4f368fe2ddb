"""GPS positions of vehicles: every vehicle reports at every tick."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loadtest.fleet.encode import times, uuid_texts
from loadtest.fleet.tracks import Tracks
from loadtest.fleet.traffic import FleetShape

PREFIX: Final = "truck-"
ENDLESS: Final = np.iinfo(np.int8).max


@dataclass(frozen=True, slots=True)
class PositionColumns:
    """One block of positions, row by row; NaN in `speed_kmh` or `heading_deg` stands for null."""

    keys: NDArray[np.object_]
    event_id: pa.StringArray
    device_id: pa.StringArray
    sequence: NDArray[np.int64]
    event_time_ms: NDArray[np.int64]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    speed_kmh: NDArray[np.float64]
    heading_deg: NDArray[np.float64]
    no_number: float = np.nan

    def batch(self) -> pa.RecordBatch:
        """The columns as the fields of `GpsPosition`, version 1."""
        return pa.record_batch(
            {
                "event_id": self.event_id,
                "device_id": self.device_id,
                "sequence": pa.array(self.sequence),
                "event_time": times(self.event_time_ms),
                "latitude": pa.array(self.latitude),
                "longitude": pa.array(self.longitude),
                "speed_kmh": pa.array(self.speed_kmh, from_pandas=True),
                "heading_deg": pa.array(self.heading_deg, from_pandas=True),
            }
        )


class Positions:
    """Where the vehicles of one seed are, tick after tick."""

    events_per_tick: Final = 1.0
    """Of each vehicle."""

    def __init__(self, seed: int, shape: FleetShape) -> None:
        self._shape = shape
        prefix = PREFIX if shape.device_prefix is None else shape.device_prefix
        names = [f"{prefix}{number:06d}" for number in range(shape.device_first, shape.device_first + shape.devices)]
        self._names = pa.array(names)
        self._keys = np.array([name.encode() for name in names], dtype=object)
        self._tracks = Tracks(np.random.default_rng([seed, 1]), shape.devices, shape.tick_ms)

    def to_follow(self, _tick_first: int, ticks: int) -> NDArray[np.int8]:
        """A vehicle never ends: there is an event in every cell, and always one after it."""
        return np.full((ticks, self._shape.devices), ENDLESS, dtype=np.int8)

    def columns(
        self, rng: np.random.Generator, tick_first: int, ticks: int, cells: NDArray[np.intp], time_ms: NDArray[np.int64]
    ) -> PositionColumns:
        """Positions of all vehicles at each of the ticks; `cells` are all there are."""
        track = self._tracks.block(tick_first, ticks)
        device = cells % self._shape.devices
        speed = track.speed_kmh.ravel()
        speed[rng.random(cells.size) < self._shape.speed_unknown] = np.nan
        return PositionColumns(
            keys=self._keys[device],
            event_id=uuid_texts(rng, cells.size),
            device_id=self._names.take(pa.array(device)),
            sequence=tick_first + 1 + cells // self._shape.devices,
            event_time_ms=time_ms.copy(),
            latitude=track.latitude.ravel(),
            longitude=track.longitude.ravel(),
            speed_kmh=speed,
            heading_deg=track.heading_deg.ravel(),
        )
