"""What a load test will do: its options, and the points that follow from them."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from streams.errors import UsageError

DOWNSTREAM_WORKERS_MAX: Final = 12
"""Workers that wait most of the time may be many more than there are cores."""


RAMP_STEPS_USUAL: Final = 6
"""Steps that a search for the sustainable rate usually takes when it begins with the rate of a drain."""
DEVICES_DEFAULT: Final = 200_000
EVENTS_OF_DEVICE_MIN: Final = 5
"""Events that each device has in a drain at least. With fewer, hardly any device would have a second event to be put in
order."""
REPORT_MS: Final = 10_000
"""From one report of a vehicle on the move to its next one."""
ZONE_DEVICES: Final = 50
ZONES_MIN: Final = 100
NEWEST_FIRST: Final = 0.1
PARKED: Final = 0.5


class Work(StrEnum):
    """What bounds a worker; the two scale differently."""

    CPU = "cpu"
    """The flow itself: the wall is the machine's cores. What is varied is the number of workers."""
    DOWNSTREAM = "downstream"
    """Each partition's events wait for calls to another system, one after the other: partitions are what helps."""


class Drive(StrEnum):
    """How traffic meets the workers."""

    DRAIN = "drain"
    """The topic is filled first (or kept over-full, where workers wait), then how fast it empties is measured."""
    OPEN = "open"
    """A steady rate that waits for nobody: latency from the time at which a record was to be sent."""
    RAMP = "ramp"
    """Higher and higher rates until lag grows, then between the last two: the rate that can be sustained."""
    SPIKE = "spike"
    """A steady rate, several times of it for a while, and how long the lag of that lasts."""
    SOAK = "soak"
    """A steady rate for long: does memory grow?"""


@dataclass(frozen=True, slots=True)
class Length:
    """How long everything is measured: what `--full` changes."""

    name: str
    warm_up_s: float
    """From the first due time, or from the first commit of a drain; sent and checked, not measured."""
    seconds: float
    """Duration in seconds of a measurement at a steady rate."""
    step_s: float
    """Duration in seconds of a step in the search for the sustainable rate."""
    step_warm_up_s: float
    """Before each step: the workers are warm by then, and only get used to another rate."""
    repetitions: int
    partitions: tuple[int, ...]
    latency_shares: tuple[float, ...]
    """Rates at which latency is measured, as shares of the sustainable rate."""
    is_searching: bool
    """Whether the sustainable rate of each point is searched for, by lag that does not grow."""
    clock_skew_ms_max: int
    """How wrong clocks are at most; a run waits for their events for that long."""
    minutes_max: float | None
    """No point is begun that would not end within this time."""
    oracle_memory_mb: int
    """Memory that all processes of the oracle may use together."""


QUICK: Final = Length(
    name="quick", warm_up_s=4.0, seconds=10.0, step_s=8.0, step_warm_up_s=4.0, repetitions=2, partitions=(3, 6, 12),
    latency_shares=(0.5,), is_searching=False, clock_skew_ms_max=5_000, minutes_max=10.0, oracle_memory_mb=2_000,
)  # fmt: skip
FULL: Final = Length(
    name="full", warm_up_s=30.0, seconds=60.0, step_s=30.0, step_warm_up_s=10.0, repetitions=3,
    partitions=(1, 2, 3, 6, 12, 24), latency_shares=(0.5, 0.8, 0.9), is_searching=True, clock_skew_ms_max=30_000,
    minutes_max=None, oracle_memory_mb=8_000,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: fresh topics, fresh workers."""

    work: Work
    partitions: int
    workers: int
    repetition: int = 1

    @property
    def label(self) -> str:
        """Fit for the names of topics and folders."""
        return f"{self.setting}-r{self.repetition}"

    @property
    def setting(self) -> str:
        """What its repetitions have in common."""
        return f"{self.work}-p{self.partitions}-w{self.workers}"

    @property
    def n(self) -> int:
        """The number that is varied: workers where CPU is the limit, partitions where a downstream is."""
        return self.workers if self.work is Work.CPU else self.partitions


@dataclass(frozen=True, slots=True)
class Plan:
    """Options of one invocation. Rates are events per second."""

    pipeline: str
    drive: Drive
    partitions: tuple[int, ...]
    """Numbers of partitions of points that a downstream limits. Points that the CPU limits have the largest of
    these."""
    works: tuple[Work, ...]
    workers: tuple[int, ...]
    """Numbers of workers of points that the CPU limits. Empty: 1, 2, 4 and so on, and the number of cores."""
    workers_max: int | None
    generators: int
    events: int
    """Records of a drain; 0: as many as the steady state needs."""
    rate: int
    downstream_ms: int
    downstream_records: int
    lateness_ms: int
    seed: int
    length: Length = QUICK
    defect: str = ""
    mix: tuple[str, ...] = ()
    """Options of the generator that say what the traffic is like."""
    devices: int = DEVICES_DEFAULT
    """Devices whose events a drain has; fewer where the drain has too few events for so many."""

    def __post_init__(self) -> None:
        if not self.partitions or any(number < 1 for number in self.partitions):
            raise UsageError("--partitions must be numbers above 0, as in 3,6,12")
        if any(number < 1 for number in self.workers):
            raise UsageError("--workers must be numbers above 0, as in 1,2,4")
        if not self.works:
            raise UsageError("--work must name cpu, downstream or both")
        if self.length.repetitions < 1:
            raise UsageError("--repetitions must be at least 1")

    @property
    def is_piloted(self) -> bool:
        """Whether a first point, which is discarded, says how much a drain needs."""
        return self.drive is Drive.DRAIN and Work.CPU in self.works and not self.events

    def drain_arguments(self, events: int) -> list[str]:
        """Return the generator's arguments for a drain of so many records, sent by the devices of a fleet."""
        devices = str(self.drain_devices(events))
        return ["--events", str(events), "--devices", devices, "--report-ms", str(REPORT_MS)]

    def drain_devices(self, events: int) -> int:
        """Devices of a drain of so many records."""
        return max(1, self.generators, min(self.devices, events // EVENTS_OF_DEVICE_MIN))

    def fleet_mix(self, devices: int) -> list[str]:
        """Options of the generator: what the traffic of so many devices is like unless `mix` says otherwise.

        A dead zone is a hundredth of the devices at most: or the rate would be another one whenever a zone goes silent.
        """
        zone = max(1, min(ZONE_DEVICES, devices // ZONES_MIN))
        vehicles = ["--parked", str(PARKED)] if self.pipeline == "gps" else []
        return ["--zone-devices", str(zone), "--newest-first", str(NEWEST_FIRST), *vehicles]

    def points(self) -> list[Point]:
        """Every setting so many times as it repeats: one round after the other, each in an order of its own.

        A number that is named twice counts as a further repetition in each round.
        """
        order = random.Random(self.seed)
        seen: dict[tuple[Work, int, int], int] = {}
        found = []
        for _ in range(self.length.repetitions):
            for setting in _shuffled(order, self._settings()):
                seen[setting] = seen.get(setting, 0) + 1
                found.append(Point(*setting, repetition=seen[setting]))
        return found

    def _settings(self) -> list[tuple[Work, int, int]]:
        found: list[tuple[Work, int, int]] = []
        for work in self.works:
            if work is Work.CPU:
                most = max(self.partitions)
                found += [(work, most, min(most, number)) for number in self.workers or self._workers_default()]
            else:
                most = self.workers_max or DOWNSTREAM_WORKERS_MAX
                found += [(work, number, min(number, most)) for number in self.partitions]
        return found

    def _workers_default(self) -> Iterator[int]:
        """1, 2, 4 ... and the cores, or as many as are allowed."""
        most = min(max(self.partitions), self.workers_max or os.cpu_count() or 1)
        number = 1
        while number < most:
            yield number
            number *= 2
        yield most

    def downstream_rate(self, partitions: int) -> float:
        """What the simulated downstream lets through: one call at a time for each partition."""
        return partitions * self.downstream_records * 1000 / self.downstream_ms


def _shuffled(order: random.Random, settings: list[tuple[Work, int, int]]) -> list[tuple[Work, int, int]]:
    return order.sample(settings, len(settings))
