"""Compute where the vehicles of simulated traffic will be; orders get destinations on the way of their vehicle."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loadtest.fleet.encode import numbered_texts
from loadtest.fleet.positions import PREFIX
from loadtest.fleet.tracks import Floats, Tracks

_BLOCK_TICKS = 64
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Vehicles:
    """The vehicles of a fleet whose positions are sent by a generator of their own: its seed, size, tick and start."""

    seed: int
    devices: int
    tick_ms: int
    start_ms: int
    prefix: str = PREFIX

    @property
    def ids(self) -> pa.StringArray:
        """Ids of the vehicles."""
        return numbered_texts(self.prefix, np.arange(self.devices), _DIGITS)


class Whereabouts:
    """Places of vehicles at times that are asked for in order, give or take `window_ms`: what is older is forgotten."""

    def __init__(self, vehicles: Vehicles, window_ms: int) -> None:
        self._vehicles = vehicles
        self._window_ticks = -(-window_ms // vehicles.tick_ms) + _BLOCK_TICKS
        self._tracks = Tracks(np.random.default_rng([vehicles.seed, 1]), vehicles.devices, vehicles.tick_ms)
        self._phase_ms = np.random.default_rng([vehicles.seed, 0]).integers(0, vehicles.tick_ms, vehicles.devices)
        self._first = 0
        """Tick of the first of the places that are kept."""
        self._places: list[tuple[Floats, Floats]] = []

    def at(self, vehicle: NDArray[np.int64], time_ms: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Latitude and longitude of each vehicle by its last tick at its time; before its first one: of that."""
        of = self._vehicles
        tick = np.maximum((time_ms - of.start_ms - self._phase_ms[vehicle]) // of.tick_ms, 0)
        self._reach(int(tick.max(initial=0)))
        kept = np.maximum(tick - self._first, 0)
        latitude, longitude = np.empty(len(tick)), np.empty(len(tick))
        for block, (north, east) in enumerate(self._places):
            here = np.flatnonzero(kept // _BLOCK_TICKS == block)
            row = kept[here] - block * _BLOCK_TICKS
            latitude[here], longitude[here] = north[row, vehicle[here]], east[row, vehicle[here]]
        return latitude, longitude

    def _reach(self, tick: int) -> None:
        """Make places up to `tick`; forget those that are further back than the window."""
        while (made := self._first + len(self._places) * _BLOCK_TICKS) <= tick:
            block = self._tracks.block(made, _BLOCK_TICKS)
            self._places.append((block.latitude, block.longitude))
            if made + _BLOCK_TICKS - self._first > self._window_ticks + _BLOCK_TICKS:
                del self._places[0]
                self._first += _BLOCK_TICKS
