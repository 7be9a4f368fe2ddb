"""Where the vehicles are: closed-form speed and heading per vehicle, integrated to positions, all vehicles at once.

Speed is a base plus two slow waves, cut off at zero (which makes the stops); heading turns in slow waves too. No random
draw depends on how the ticks are cut into blocks, only the integrated position is carried from block to block.
"""

from dataclasses import dataclass
from typing import Final, Protocol

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


class Paths(Protocol):
    """What vehicles move along."""

    def block(self, tick_first: int, ticks: int) -> TrackBlock:
        """Positions at `tick_first` and the `ticks - 1` that follow; ticks must be asked for in order."""

    def altitude_m(self, tick_first: int, ticks: int) -> Floats:
        """Altitudes at the same ticks, metres; shape (ticks, vehicles)."""


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
        self._base_m = rng.uniform(50.0, 800.0, vehicles)

    def block(self, tick_first: int, ticks: int) -> TrackBlock:
        """Positions at `tick_first` and the `ticks - 1` that follow; ticks must be asked for in order."""
        # In place wherever it can be: this is half of what it takes to make an event.
        angle = (2 * np.pi * (np.arange(tick_first, tick_first + ticks) * self._tick_s))[:, None]
        speed = np.broadcast_to(self._base_kmh, (ticks, self._base_kmh.size)).copy()
        heading = np.broadcast_to(self._heading_base, speed.shape).copy()
        wave = np.empty_like(speed)
        for number in range(2):
            np.divide(angle, self._swing_s[number], out=wave)
            wave += self._swing_phase[number]
            np.sin(wave, out=wave)
            wave *= self._swing_kmh[number]
            speed += wave
            np.divide(angle, self._turn_s[number], out=wave)
            np.sin(wave, out=wave)
            wave *= self._turn_deg[number]
            heading += wave
        np.clip(speed, 0.0, SPEED_KMH_MAX, out=speed)
        radians = np.deg2rad(heading)
        metres = speed / 3.6
        metres *= self._tick_s
        latitude = np.cos(radians)
        latitude *= metres
        np.cumsum(latitude, axis=0, out=latitude)
        latitude /= METRES_PER_DEGREE
        latitude += self._latitude
        np.clip(latitude, -80.0, 80.0, out=latitude)
        longitude = np.sin(radians, out=radians)
        longitude *= metres
        scale = np.deg2rad(latitude, out=metres)
        np.cos(scale, out=scale)
        scale *= METRES_PER_DEGREE
        longitude /= scale
        np.cumsum(longitude, axis=0, out=longitude)
        longitude += self._longitude
        longitude += 180.0
        _within_turn(longitude)
        longitude -= 180.0
        self._latitude, self._longitude = latitude[-1].copy(), longitude[-1].copy()
        standing = speed < 0.5
        _within_turn(heading)
        np.round(heading, 1, out=heading)
        heading[standing] = np.nan
        return TrackBlock(
            latitude=np.round(latitude, 6, out=latitude),
            longitude=np.round(longitude, 6, out=longitude),
            speed_kmh=np.round(speed, 2, out=speed),
            heading_deg=heading,
        )

    def altitude_m(self, tick_first: int, ticks: int) -> Floats:
        """Hills: a wave as slow as the slower turns."""
        seconds = np.arange(tick_first, tick_first + ticks)[:, None] * self._tick_s
        waves = np.sin(2 * np.pi * seconds / self._turn_s.max(axis=0))
        altitudes: Floats = np.round(self._base_m + 40.0 * waves, 1)
        return altitudes


def _within_turn(degrees: Floats) -> None:
    """`degrees %= 360`, to the last bit, where most of them are between 0 and 360 already."""
    outside = (degrees < 0.0) | (degrees >= 360.0)
    if outside.any():
        degrees[outside] %= 360.0
