"""When devices are offline: each at times, for a while. Events that it stored arrive when it is online again. Pure.

Time is cut into cycles, of another phase for each device, and each cycle holds one outage. Where it lies depends on the
cycle's number alone, never on how the ticks are cut into blocks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Outages:
    """The outages of some devices, lengths uniform between two bounds, together `share` of all ticks."""

    seed: int
    devices: int
    share: float
    ticks_min: int
    ticks_max: int

    def __post_init__(self) -> None:
        if not 1 <= self.ticks_min <= self.ticks_max:
            raise ValueError("an outage takes at least one tick, and at most as long as the longest")
        if self.cycle_ticks <= self.ticks_max + 1:
            raise ValueError("devices cannot be offline for so much of the time")

    @property
    def cycle_ticks(self) -> int:
        """Ticks in which each device is offline once."""
        return round((self.ticks_min + self.ticks_max) / 2 / self.share)

    def back(self, tick_first: int, ticks: int) -> Integers:
        """Shape (ticks, devices): the tick at which a device that is offline will be back; -1 where it is online."""
        phase = np.random.default_rng([self.seed, 5]).integers(0, self.cycle_ticks, self.devices)
        found = np.full((ticks, self.devices), -1)
        tick = np.arange(tick_first, tick_first + ticks)[:, None]
        for cycle in range(tick_first // self.cycle_ticks, (tick_first + ticks) // self.cycle_ticks + 2):
            begins, ends = self._outages(cycle)
            begins, ends = begins - phase, ends - phase
            device = np.flatnonzero((ends > tick_first) & (begins < tick_first + ticks))
            is_offline = (tick >= begins[device]) & (tick < ends[device])
            found[:, device] = np.where(is_offline, ends[device], found[:, device])
        return found

    def _outages(self, cycle: int) -> tuple[Integers, Integers]:
        """First tick and first tick after of each device's outage in a cycle, were its phase zero."""
        rng = np.random.default_rng([self.seed, 6, cycle])
        length = rng.integers(self.ticks_min, self.ticks_max, self.devices, endpoint=True)
        # At least one tick online before the next cycle.
        begins = cycle * self.cycle_ticks + rng.integers(0, self.cycle_ticks - length)
        return begins, begins + length
