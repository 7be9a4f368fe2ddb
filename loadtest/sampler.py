"""Time series of a run: lag of each partition, CPU and memory of each process, sampled from a thread of its own."""

import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

import psutil

from loadtest.progress import GroupProgress
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
    """One moment."""

    at_s: float
    """Since the sampler was started."""
    committed: list[int]
    lag: list[int]
    cpu_cores: dict[str, float]
    """By name of the process: cores in use since the sample before."""
    rss_mb: dict[str, float]
    machine_cores: float
    """Cores in use by everything on this machine, those that its host has not given it included."""
    stolen_cores: float = 0.0
    """Cores that this machine wanted and its host gave to others (steal; 0 where the system does not tell)."""

    @property
    def done(self) -> int:
        """Records that are committed, over all partitions."""
        return sum(self.committed)


@dataclass(slots=True)
class Series:
    """All samples of a run."""

    roles: dict[str, Role] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    def between(self, start_s: float, end_s: float) -> "Series":
        """The samples of a stretch of time."""
        return Series(self.roles, [sample for sample in self.samples if start_s <= sample.at_s <= end_s])

    def cores(self, role: Role) -> float:
        """Mean number of cores that the processes of a role have used together."""
        return sum(self.cores_by_process(role).values())

    def cores_by_process(self, role: Role) -> dict[str, float]:
        """Mean number of cores that each process of a role has used, over the whole stretch."""
        names = [name for name, its in self.roles.items() if its is role]
        found = {
            name: [sample.cpu_cores[name] for sample in self.samples if name in sample.cpu_cores] for name in names
        }
        return {name: sum(values) / len(self.samples) for name, values in found.items() if values}

    def machine_cores(self) -> float:
        """Mean number of cores in use by everything on the machine."""
        return sum(sample.machine_cores for sample in self.samples) / max(1, len(self.samples))

    def stolen_cores(self) -> float:
        """Mean number of cores that the host has given to others."""
        return sum(sample.stolen_cores for sample in self.samples) / max(1, len(self.samples))

    def rss_mb_max(self, role: Role) -> float:
        """The most that a single process of a role has had."""
        names = {name for name, its in self.roles.items() if its is role}
        return max(
            (value for sample in self.samples for name, value in sample.rss_mb.items() if name in names), default=0.0
        )

    def lag_max(self) -> int:
        """The highest total lag."""
        return max((sum(sample.lag) for sample in self.samples), default=0)

    def rate(self) -> float:
        """Records committed per second, from the first to the last sample."""
        return self.events() / self.seconds() if len(self.samples) > 1 else 0.0

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
        self._cpu_s: dict[str, float] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._started_s = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def watch(self, name: str, role: Role, pid: int) -> None:
        """Sample a process too, until it ends."""
        process = psutil.Process(pid)
        with self._lock:
            self._processes[name] = process
            times = process.cpu_times()
            self._cpu_s[name] = times.user + times.system
            self.series.roles[name] = role

    def now_s(self) -> float:
        """Time on the samples' clock."""
        return time.monotonic() - self._started_s

    @property
    def last(self) -> Sample | None:
        """The newest sample."""
        return self.series.samples[-1] if self.series.samples else None

    def _run(self) -> None:
        psutil.cpu_percent()
        psutil.cpu_times_percent()
        before_s = self.now_s()
        while not self._stopped.wait(max(0.0, before_s + INTERVAL_S - self.now_s())):
            try:
                committed, ends = self._progress.committed(), self._progress.ends()
            except StreamsError as error:
                self.failure = error
                committed = ends = self.last.committed if self.last else []
            now_s = self.now_s()
            elapsed_s = now_s - before_s
            before_s = now_s
            cpu_cores, rss_mb = self._usage(elapsed_s)
            lag = [max(0, end - done) for end, done in zip(ends, committed, strict=True)]
            machine = psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1)
            stolen = getattr(psutil.cpu_times_percent(), "steal", 0.0) / 100 * (psutil.cpu_count() or 1)
            self.series.samples.append(Sample(now_s, list(committed), lag, cpu_cores, rss_mb, machine, stolen))

    def _usage(self, elapsed_s: float) -> tuple[dict[str, float], dict[str, float]]:
        cpu_cores: dict[str, float] = {}
        rss_mb: dict[str, float] = {}
        with self._lock:
            for name, process in list(self._processes.items()):
                try:
                    times = process.cpu_times()
                    rss_mb[name] = process.memory_info().rss / 1e6
                except psutil.NoSuchProcess:
                    del self._processes[name]
                    continue
                used_s = times.user + times.system
                cpu_cores[name] = (used_s - self._cpu_s[name]) / elapsed_s
                self._cpu_s[name] = used_s
        return cpu_cores, rss_mb
