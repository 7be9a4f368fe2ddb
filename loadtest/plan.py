"""What a load test will do: its options, and the points that follow from them."""

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from streams.errors import UsageError

PARTITIONS_DEFAULT: Final = (3, 6, 12, 24)
DOWNSTREAM_WORKERS_MAX: Final = 12
"""Workers that wait most of the time may be many more than there are cores."""


class Work(StrEnum):
    """What bounds a worker; the two scale differently."""

    CPU = "cpu"
    """The pipeline itself: the wall is the machine's cores."""
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
class Point:
    """One measurement: fresh topics, fresh workers."""

    work: Work
    partitions: int
    workers: int

    @property
    def label(self) -> str:
        """Fit for the names of topics and folders."""
        return f"{self.work}-p{self.partitions}-w{self.workers}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Options of one invocation. Rates are events per second."""

    pipeline: str
    drive: Drive
    partitions: tuple[int, ...]
    works: tuple[Work, ...]
    workers_max: int | None
    generators: int
    events: int
    rate: int
    seconds: int
    downstream_ms: int
    downstream_records: int
    lateness_ms: int
    seed: int
    defect: str = ""
    mix: tuple[str, ...] = ()
    """Options of the generator that say what the traffic is like."""

    def __post_init__(self) -> None:
        if not self.partitions or any(number < 1 for number in self.partitions):
            raise UsageError("--partitions must be numbers above 0, as in 3,6,12")
        if len(set(self.partitions)) != len(self.partitions):
            raise UsageError("--partitions names a number twice")
        if not self.works:
            raise UsageError("--work must name cpu, downstream or both")

    def points(self) -> list[Point]:
        """One for each kind of work and number of partitions, with a worker for each partition up to the limit."""
        cores = os.cpu_count() or 1
        default = {Work.CPU: cores, Work.DOWNSTREAM: DOWNSTREAM_WORKERS_MAX}
        return [
            Point(work, partitions, min(partitions, self.workers_max or default[work]))
            for work in self.works
            for partitions in self.partitions
        ]

    def downstream_rate(self, partitions: int) -> float:
        """What the simulated downstream lets through: one call at a time for each partition."""
        return partitions * self.downstream_records * 1000 / self.downstream_ms
