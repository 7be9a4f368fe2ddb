"""Who reports when within the grid of ticks: every device once a tick, or some far more often than others. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of the grid; each is one report of one device, at every tick or at every so many ticks.

    A device that reports several times a tick has so many columns, side by side and in their order in time.
    """

    device: Integers
    """Number of the device in each column of the grid, in ascending order."""
    turn: Integers
    """How many columns of the device come before this one."""
    turns: Integers
    """How many columns the device has: reports a tick."""
    every: Integers
    """Ticks from one report in this column to the next; more than one only where the device has no other column."""
    offset: Integers
    """Ticks before the first report, below `every`."""

    @property
    def columns(self) -> int:
        """Number of columns of the grid."""
        return self.device.size

    @property
    def is_even(self) -> bool:
        """Whether every device reports once a tick."""
        return bool((self.every == 1).all() and (self.turns == 1).all())

    @property
    def events_per_tick(self) -> float:
        """Reports of all devices, on average."""
        return float((1.0 / self.every).sum())

    @property
    def steady_share(self) -> float:
        """Share of the reports that come from devices that report at every tick."""
        return float((self.every == 1).sum()) / self.events_per_tick

    def active(self, tick_first: int, ticks: int) -> NDArray[np.bool_]:
        """Shape (ticks, columns): whether there is a report."""
        tick = np.arange(tick_first, tick_first + ticks)[:, None]
        found: NDArray[np.bool_] = (tick + self.offset) % self.every == 0
        return found

    def phase_ms(self, of_device_ms: Integers, tick_ms: int) -> Integers:
        """When within a tick each column reports: at its device's phase, which is that of the column's part of it."""
        found: Integers = (self.turn * tick_ms + of_device_ms[self.device]) // self.turns
        return found

    def delay_ms_max(self, delay_ms_max: int, tick_ms: int) -> Integers:
        """The longest delay by which no report of a column overtakes the next one of its device."""
        return np.minimum(delay_ms_max, np.maximum(tick_ms // self.turns - 1, 0))

    def sequence(self, tick: Integers, column: NDArray[np.intp]) -> Integers:
        """A counter of each device, one higher with each of its reports."""
        # The one factor is 1 where the other is not.
        found: Integers = (tick + self.offset[column]) // self.every[column] * self.turns[column]
        return found + self.turn[column] + 1


def even(devices: int) -> Layout:
    """Every device reports once a tick."""
    ones = np.ones(devices, np.int64)
    return Layout(np.arange(devices), ones - 1, ones, ones, ones - 1)


def zipf(rng: np.random.Generator, devices: int, exponent: float) -> Layout:
    """The device of rank r reports in proportion to 1 / r^exponent, on average about once a tick; ranks are drawn.

    Reports a tick, or ticks a report, are whole numbers: a device of rate 2.6 reports three times a tick, one of rate
    0.3 at every third tick.
    """
    if not exponent:
        return even(devices)
    rank = rng.permutation(devices)
    turns, every = (values[rank] for values in _whole_rates(devices, exponent))
    offset = rng.integers(0, every)
    device = np.repeat(np.arange(devices), turns)
    first = np.cumsum(turns) - turns
    return Layout(
        device=device,
        turn=np.arange(device.size) - first[device],
        turns=turns[device],
        every=every[device],
        offset=offset[device],
    )


def reports_per_tick(devices: int, exponent: float) -> float:
    """Return the mean number of reports of a device in a tick, under `zipf`: about 1, since rates are whole numbers."""
    turns, every = _whole_rates(devices, exponent)
    return float((turns / every).mean())


def _whole_rates(devices: int, exponent: float) -> tuple[Integers, Integers]:
    """Reports a tick, and ticks a report, of each rank; one of the two is 1."""
    weights = 1.0 / np.arange(1, devices + 1) ** exponent
    rates = weights * (devices / weights.sum())
    return np.maximum(1, np.rint(rates)).astype(np.int64), np.maximum(1, np.rint(1.0 / rates)).astype(np.int64)
