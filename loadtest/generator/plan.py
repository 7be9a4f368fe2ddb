"""What one process is to send: its share of the devices, of the records and of the rate, and since when. Pure."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from loadtest.fleet.layout import reports_per_tick
from loadtest.fleet.mix import Bounds, Mix, Schemas, Size, shape_of
from loadtest.fleet.traffic import PARKED_TICKS, FleetShape
from loadtest.fleet.whereabouts import Vehicles
from streams.errors import UsageError

HISTORY_TICK_MS: Final = 1_000
HISTORY_DEVICES: Final = 2_000
HISTORY_ENDS_BEFORE_MS: Final = 10_000
"""A little history is still under way when the rest has arrived."""
DEVICES_MAX: Final = 10_000
"""Unless asked for: so many at most, and they report more often than once a second."""
ENDLESS: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Share:
    """Process `index` (from 0) of `of` that send to one topic together."""

    index: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.of:
            raise UsageError(f"--index {self.index} is not below --of {self.of}: processes count from 0")

    def part(self, total: int) -> tuple[int, int]:
        """First and number of those of `total` that are this process's; the parts of all are disjoint and complete."""
        first, end = (total * number // self.of for number in (self.index, self.index + 1))
        return first, end - first

    def seed(self, seed: int) -> int:
        """A seed of its own for each process; the one of a single process is the one given."""
        if self.of == 1:
            return seed
        return int(np.random.SeedSequence([seed, self.of, self.index]).generate_state(1, np.uint64)[0])


@dataclass(frozen=True, slots=True)
class Plan:
    """One process's work: a fleet, and how much of its log is sent at which pace."""

    seed: int
    shape: FleetShape
    records: int
    """Upper bound of the number of records that are sent."""
    ends_ms: int | None
    """Records with this timestamp or a later one are not sent; None: `records` alone counts."""
    open_loop: bool
    """Each record leaves when the clock reaches its timestamp; else all leave as fast as possible."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is sent: the same for history and for open loop."""

    mix: Mix
    schemas: Schemas
    bounds: Bounds
    events_per_tick: float
    """Mean number of events of a device in a tick."""
    device_prefix: str | None = None
    seed: int = 0

    def events_of(self, devices: int, share: Share) -> float:
        """Events a tick of one of so many devices, on average."""
        moving = 1.0 - self.mix.parked * (1.0 - 1.0 / PARKED_TICKS)
        return self.events_per_tick * moving * reports_per_tick(max(1, devices // share.of), self.mix.zipf)


def plan_history(
    traffic: Traffic,
    share: Share,
    *,
    events: int,
    now_ms: int,
    start_ms: int | None,
    devices: int | None,
    tick_ms: int = HISTORY_TICK_MS,
) -> Plan:
    """So many records of all processes together, as fast as possible, with timestamps that end about now.

    Raises:
        UsageError: it cannot be done; the message says which flag is wrong.

    """
    total = devices or max(HISTORY_DEVICES, share.of)
    ticks = events * traffic.mix.unique_share / (total * traffic.events_of(total, share))
    begins_ms = now_ms - HISTORY_ENDS_BEFORE_MS - round(ticks * tick_ms)
    size = Size(devices=total, start_ms=begins_ms if start_ms is None else start_ms, tick_ms=tick_ms)
    return Plan(
        seed=share.seed(traffic.seed),
        shape=_shape(traffic, share, size),
        records=share.part(events)[1],
        ends_ms=None,
        open_loop=False,
    )


def plan_open_loop(
    traffic: Traffic, share: Share, *, rate: int, seconds: float | None, start_ms: int, devices: int | None
) -> Plan:
    """About `rate` records a second of all processes together, each sent at its timestamp; `seconds` None: endless.

    Nothing delays a plain record: its event time is its timestamp, and the moment at which it is to be sent.

    Raises:
        UsageError: it cannot be done; the message says which flag is wrong.

    """
    wanted = devices or max(
        share.of, min(DEVICES_MAX, round(rate * traffic.mix.unique_share / traffic.events_per_tick))
    )
    unique_per_s = rate * traffic.mix.unique_share / traffic.events_of(wanted, share)
    tick_ms = round(1_000 * wanted / unique_per_s)
    if tick_ms < 1:
        least = round(unique_per_s / 1_000) + 1
        raise UsageError(f"--devices {wanted} cannot send {rate} records a second: it takes at least {least}")
    total = max(share.of, round(unique_per_s * tick_ms / 1_000))
    size = Size(devices=total, start_ms=start_ms, tick_ms=tick_ms, delay_ms_max=0)
    return Plan(
        seed=share.seed(traffic.seed),
        shape=_shape(traffic, share, size),
        records=ENDLESS,
        ends_ms=None if seconds is None else start_ms + round(seconds * 1_000),
        open_loop=True,
    )


def plan_vehicles(
    positions: Traffic, *, start_ms: int, rate: int | None, devices: int | None, tick_ms: int = HISTORY_TICK_MS
) -> Vehicles:
    """The vehicles of a generator of `positions`, one process, that begins at `start_ms`: orders are bound to them.

    With a `rate` it sends in open loop, else history with reports every `tick_ms`.

    Raises:
        UsageError: it could not be done.

    """
    if rate is not None:
        plan = plan_open_loop(positions, Share(), rate=rate, seconds=None, start_ms=start_ms, devices=devices)
        shape = plan.shape
        devices, tick_ms = shape.devices, shape.tick_ms
    prefix = {} if positions.device_prefix is None else {"prefix": positions.device_prefix}
    return Vehicles(positions.seed, devices or HISTORY_DEVICES, tick_ms, start_ms, **prefix)


def _shape(traffic: Traffic, share: Share, size: Size) -> FleetShape:
    first, devices = share.part(size.devices)
    if not devices:
        raise UsageError(f"--devices {size.devices} is too few for {share.of} processes")
    size = replace(
        size,
        devices=devices,
        device_first=first,
        devices_all=size.devices,
        device_prefix=traffic.device_prefix,
    )
    try:
        return shape_of(traffic.mix, size, traffic.schemas, traffic.bounds)
    except ValueError as error:
        raise UsageError(str(error)) from None
