"""Time series of a run: lag of each partition, CPU and memory of each process, sampled from threads of their own.

CPU is sampled by one thread and Kafka is asked by another: a broker that answers late makes no gap in the former. What
is stored are the processes' counters, so that a mean over any stretch is their difference by its length.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

import psutil

from loadtest.progress import GroupProgress
from loadtest.statistics import Slope, rate_between_commits, slope
from streams.errors import StreamsError

INTERVAL_S: Final = 0.25


class Role(StrEnum):
    """What a process does in a load test."""

    WORKER = "worker"
    GENERATOR = "generator"
    BROKER = "broker"
    HARNESS = "harness"
    """The load test itself: it reads what becomes visible, and samples."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the group has committed at one moment, and where the topic ended."""

    at_s: float
    """Seconds since the sampler was started."""
    committed: list[int]
    ends: list[int]

    @property
    def lag(self) -> list[int]:
        """Records of each partition that are not committed."""
        return [max(0, end - done) for end, done in zip(self.ends, self.committed, strict=True)]

    @property
    def done(self) -> int:
        """Records that are committed, over all partitions."""
        return sum(self.committed)


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters at one moment, in CPU seconds since some beginning."""

    at_s: float
    cpu_s: dict[str, float]
    """CPU time of each process, by its name."""
    rss_mb: dict[str, float]
    machine_s: float
    """CPU time of everything on this machine, including what its host has not given it."""
    stolen_s: float = 0.0
    """What this machine wanted and its host gave to others (steal; 0 where the system does not tell)."""


@dataclass(slots=True)
class Series:
    """All samples of a run."""

    roles: dict[str, Role] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)

    def between(self, start_s: float, end_s: float) -> "Series":
        """The samples of a stretch of time."""
        return Series(
            self.roles,
            [sample for sample in self.samples if start_s <= sample.at_s <= end_s],
            [usage for usage in self.usage if start_s <= usage.at_s <= end_s],
        )

    def cores(self, role: Role) -> float:
        """Mean number of cores that the processes of a role have used together."""
        return sum(self.cores_by_process(role).values())

    def cores_by_process(self, role: Role) -> dict[str, float]:
        """Mean number of cores that each process of a role has used, over the whole stretch."""
        return {
            name: self._cores(lambda usage, name=name: usage.cpu_s.get(name))  # type: ignore[misc]  # its own name
            for name, its in self.roles.items()
            if its is role and any(name in usage.cpu_s for usage in self.usage)
        }

    def machine_cores(self) -> float:
        """Mean number of cores in use by everything on the machine."""
        return self._cores(lambda usage: usage.machine_s)

    def stolen_cores(self) -> float:
        """Mean number of cores that the host has given to others."""
        return self._cores(lambda usage: usage.stolen_s)

    def _cores(self, counter: Callable[[Usage], float | None]) -> float:
        """What a counter has gone up, by the length of the stretch; a process may come or go within it."""
        values = [value for usage in self.usage if (value := counter(usage)) is not None]
        length_s = self.usage[-1].at_s - self.usage[0].at_s if self.usage else 0.0
        return (values[-1] - values[0]) / length_s if values and length_s > 0 else 0.0

    def rss_mb_max(self, role: Role) -> float:
        """The most that a single process of a role has had."""
        names = {name for name, its in self.roles.items() if its is role}
        return max(
            (value for usage in self.usage for name, value in usage.rss_mb.items() if name in names), default=0.0
        )

    def lag_max(self) -> int:
        """The highest total lag."""
        return max((sum(sample.lag) for sample in self.samples), default=0)

    def lag_slope(self) -> Slope | None:
        """How much the total lag grows in a second."""
        return slope([sample.at_s for sample in self.samples], [sum(sample.lag) for sample in self.samples])

    def rate(self) -> float:
        """Records committed per second, from the first to the last commit of the stretch; 0 without two of them."""
        found = rate_between_commits([sample.at_s for sample in self.samples], [each.done for each in self.samples])
        return found[0] if found else 0.0

    def arrival_rate(self) -> float:
        """Records that the topic grew by per second, over all partitions."""
        if len(self.samples) < 2:
            return 0.0
        first, last = self.samples[0], self.samples[-1]
        return (sum(last.ends) - sum(first.ends)) / (last.at_s - first.at_s)

    def events(self) -> int:
        """Records committed from the first to the last sample."""
        return self.samples[-1].done - self.samples[0].done if self.samples else 0

    def seconds(self) -> float:
        """From the first to the last sample."""
        return self.samples[-1].at_s - self.samples[0].at_s if self.samples else 0.0


class Sampler:
    """Samples until it is left. Processes may come and go meanwhile."""

    def __init__(self, progress: GroupProgress) -> None:
        self.series = Series()
        self.failure: StreamsError | None = None
        self._progress = progress
        self._processes: dict[str, psutil.Process] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._every_interval, args=[take], name=f"sampler-{name}", daemon=True)
            for name, take in (("offsets", self._take_offsets), ("usage", self._take_usage))
        ]
        self._started_s = time.monotonic()
        self._started_ms = time.time() * 1000

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def watch(self, name: str, role: Role, pid: int) -> None:
        """Sample a process too, until it ends."""
        process = psutil.Process(pid)
        with self._lock:
            self._processes[name] = process
            self.series.roles[name] = role

    def now_s(self) -> float:
        """Return the time now, on the clock of the samples."""
        return time.monotonic() - self._started_s

    def at_s(self, wall_ms: float) -> float:
        """A time of day on the samples' clock."""
        return (wall_ms - self._started_ms) / 1000

    @property
    def last(self) -> Sample | None:
        """The newest sample."""
        return self.series.samples[-1] if self.series.samples else None

    def _every_interval(self, take: Callable[[], None]) -> None:
        before_s = self.now_s()
        while not self._stopped.wait(max(0.0, before_s + INTERVAL_S - self.now_s())):
            before_s = self.now_s()
            take()

    def _take_offsets(self) -> None:
        try:
            committed, ends = list(self._progress.committed()), list(self._progress.ends())
        except StreamsError as error:
            self.failure = error  # no sample: the next one is further on, and nothing is made up
            return
        self.series.samples.append(Sample(self.now_s(), committed, ends))

    def _take_usage(self) -> None:
        cpu_s: dict[str, float] = {}
        rss_mb: dict[str, float] = {}
        with self._lock:
            for name, process in list(self._processes.items()):
                try:
                    times = process.cpu_times()
                    rss_mb[name] = process.memory_info().rss / 1e6
                except psutil.NoSuchProcess:
                    del self._processes[name]
                    continue
                cpu_s[name] = times.user + times.system
        machine = psutil.cpu_times()
        idle_s = machine.idle + getattr(machine, "iowait", 0.0)
        guest_s = getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)  # in user and nice already
        self.series.usage.append(
            Usage(self.now_s(), cpu_s, rss_mb, sum(machine) - idle_s - guest_s, getattr(machine, "steal", 0.0))
        )
