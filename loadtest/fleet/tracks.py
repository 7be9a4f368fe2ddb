"""Where the vehicles are: closed-form speed and heading per vehicle, integrated to positions, all vehicles at once.

Speed is a base plus two slow waves, cut off at zero (which makes the stops); heading turns in slow waves too. No random
draw depends on how the ticks are cut into blocks, only the integrated position is carried from block to block.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

METRES_PER_DEGREE: Final = 111_195.08
"""Length of a degree of latitude on the mean Earth radius."""
SPEED_KMH_MAX: Final = 130.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TrackBlock:
    """Positions of all vehicles over consecutive ticks; every array has the shape (ticks, vehicles)."""

    latitude: Floats
    longitude: Floats
    speed_kmh: Floats
    heading_deg: Floats
    """NaN where a standing tracker has no heading."""


class Tracks:
    """The vehicles of one seed; `block` continues where the last one ended."""

    def __init__(self, rng: np.random.Generator, vehicles: int, tick_ms: int) -> None:
        self._tick_s = tick_ms / 1000
        self._latitude = rng.uniform(46.0, 54.0, vehicles)
        self._longitude = rng.uniform(6.0, 15.0, vehicles)
        self._base_kmh = rng.uniform(15.0, 70.0, vehicles)
        self._swing_kmh = rng.uniform(20.0, 60.0, (2, vehicles))
        self._swing_s = rng.uniform((60.0,), (900.0,), (2, vehicles))
        self._swing_phase = rng.uniform(0.0, 2 * np.pi, (2, vehicles))
        self._heading_base = rng.uniform(0.0, 360.0, vehicles)
        self._turn_deg = rng.uniform(20.0, 120.0, (2, vehicles))
        self._turn_s = rng.uniform(80.0, 1200.0, (2, vehicles))

    def block(self, tick_first: int, ticks: int) -> TrackBlock:
        """Positions at `tick_first` and the `ticks - 1` that follow; ticks must be asked for in order."""
        seconds = (np.arange(tick_first, tick_first + ticks) * self._tick_s)[:, None]
        speed = np.broadcast_to(self._base_kmh, (ticks, self._base_kmh.size)).copy()
        heading = np.broadcast_to(self._heading_base, speed.shape).copy()
        for wave in range(2):
            speed += self._swing_kmh[wave] * np.sin(2 * np.pi * seconds / self._swing_s[wave] + self._swing_phase[wave])
            heading += self._turn_deg[wave] * np.sin(2 * np.pi * seconds / self._turn_s[wave])
        speed = np.clip(speed, 0.0, SPEED_KMH_MAX)
        radians = np.deg2rad(heading)
        metres = speed / 3.6 * self._tick_s
        latitude = self._latitude + np.cumsum(metres * np.cos(radians), axis=0) / METRES_PER_DEGREE
        latitude = np.clip(latitude, -80.0, 80.0)
        degrees_east = metres * np.sin(radians) / (METRES_PER_DEGREE * np.cos(np.deg2rad(latitude)))
        longitude = (self._longitude + np.cumsum(degrees_east, axis=0) + 180.0) % 360.0 - 180.0
        self._latitude, self._longitude = latitude[-1], longitude[-1]
        return TrackBlock(
            latitude=np.round(latitude, 6),
            longitude=np.round(longitude, 6),
            speed_kmh=np.round(speed, 2),
            heading_deg=np.where(speed < 0.5, np.nan, np.round(heading % 360.0, 1)),
        )
