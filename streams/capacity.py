"""How many partitions, workers, cores and how much disk a fleet of devices needs, and what that costs.

Every line of a plan says where it comes from: measured, extrapolated from what was measured, or assumed.
"""

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from streams.errors import UsageError

REPORT_BYTES_MAX: Final = 16 << 20
EVENTS_MIN: Final = 100_000
"""A run of fewer events is too short for the rates of a worker that keeps running."""
UTILISATION: Final = 0.7
"""Share of its measured rate that a worker is planned for: the rest is for restarts and catching up."""
PARTITIONS_STEP: Final = 12
"""Partitions come in multiples of this: it divides evenly among 1, 2, 3, 4, 6 and 12 workers."""
PARTITIONS_PER_WORKER: Final = 3
"""Factor by which the workers may be multiplied later without growing the topic."""
ID_BYTES: Final = 48
"""Assumed of one remembered event id on disk: 16 bytes of id, 8 of time, and as much again while RocksDB compacts."""
COPIES: Final = 3
"""Assumed: an event is in its source, in the clean topic, and in a journal or a table."""
HOURS_OF_MONTH: Final = 730
GB: Final = 1e9


class Basis(StrEnum):
    """Where a figure comes from."""

    MEASURED = "measured"
    EXTRAPOLATED = "extrapolated"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Figures:
    """Measurements of one worker."""

    source: str
    worker_rate: float
    """Events a second that one worker drains."""
    events_per_cpu_second: float
    rss_mb: float
    """Peak of its resident memory."""


SHIPPED: Final = Figures(
    "figures shipped with this version (make bench, scenario bench-gps, 1,000,000 events, 2 shared cores)",
    107_843.0,
    111_732.0,
    567.0,
)


@dataclass(frozen=True, slots=True)
class Demand:
    """The load to process, and the prices."""

    devices: int
    interval_s: float
    """Seconds between two events of a device."""
    peak: float = 2.0
    """Peak load as a multiple of the mean."""
    record_bytes: int = 110
    retention_h: float = 168.0
    replicas: int = 3
    dedup_horizon_h: float = 24.0
    core_hour: float = 0.04
    gb_month: float = 0.10
    currency: str = "USD"

    def __post_init__(self) -> None:
        amounts = (self.interval_s, self.record_bytes, self.retention_h, self.replicas, self.dedup_horizon_h)
        if self.devices < 1 or self.peak < 1 or not all(math.isfinite(one) and one > 0 for one in amounts):
            raise ValueError("devices, peak (at least 1), interval, sizes and times must be above 0")


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of a plan."""

    name: str
    value: float
    unit: str
    basis: Basis
    how: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The estimated need."""

    figures: Figures
    demand: Demand
    lines: tuple[Line, ...]

    def __getitem__(self, name: str) -> Line:
        """A line by its name."""
        return next(line for line in self.lines if line.name == name)

    @classmethod
    def of(cls, demand: Demand, figures: Figures = SHIPPED) -> Self:
        """The plan for `demand` by `figures`; rates grow in proportion to workers."""
        rate = demand.devices / demand.interval_s
        peak = rate * demand.peak
        workers = max(1, math.ceil(peak / (figures.worker_rate * UTILISATION) - 1e-9))
        partitions = math.ceil(workers * PARTITIONS_PER_WORKER / PARTITIONS_STEP) * PARTITIONS_STEP
        # What one worker was seen to do is measured; what several do together follows only if nothing is shared.
        basis = Basis.MEASURED if workers == 1 else Basis.EXTRAPOLATED
        cores = peak / figures.events_per_cpu_second
        state_gb = rate * demand.dedup_horizon_h * 3_600 * ID_BYTES / GB
        log_gb = rate * demand.retention_h * 3_600 * demand.record_bytes * COPIES * demand.replicas / GB
        per_event = demand.record_bytes * COPIES * demand.replicas
        assumed = Basis.ASSUMED
        lines = (
            Line("rate", rate, "events/s", assumed, f"{demand.devices:,} devices, an event in {demand.interval_s:g} s"),
            Line("peak_rate", peak, "events/s", assumed, f"{demand.peak:g} times the mean"),
            Line("workers", workers, "", basis, f"at {UTILISATION:.0%} of {figures.worker_rate:,.0f} events/s each"),
            Line(
                "partitions", partitions, "", assumed,
                f"at least {PARTITIONS_PER_WORKER} for each worker, in steps of {PARTITIONS_STEP}",
            ),
            Line(
                "worker_cores", cores, "cores", basis,
                f"{figures.events_per_cpu_second:,.0f} events per CPU second, at the peak",
            ),
            Line(
                "worker_memory_gb", workers * figures.rss_mb / 1_000, "GB", basis, f"{figures.rss_mb:,.0f} MB each"
            ),
            Line(
                "state_disk_gb", state_gb, "GB", assumed,
                f"ids of {demand.dedup_horizon_h:g} h at {ID_BYTES} bytes, of all workers",
            ),
            Line(
                "kafka_disk_gb", log_gb, "GB", assumed,
                f"{per_event:,} bytes an event ({COPIES} topics, {demand.replicas} replicas), kept for "
                f"{demand.retention_h:g} h, not compressed",
            ),
            Line(
                "worker_cost_month", cores * HOURS_OF_MONTH * demand.core_hour, demand.currency, basis,
                f"{demand.core_hour:g} a core and hour, at the peak; brokers are not measured and not in it",
            ),
            Line(
                "disk_cost_month", (state_gb + log_gb) * demand.gb_month, demand.currency, assumed,
                f"{demand.gb_month:g} a GB and month",
            ),
        )  # fmt: skip
        return cls(figures, demand, lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as a JSON object."""
        return {
            "figures": self.figures.source,
            **{
                line.name: {"value": round(line.value, 3), "unit": line.unit, "basis": str(line.basis), "how": line.how}
                for line in self.lines
            },
        }

    def as_lines(self) -> list[str]:
        """For people: a figure on each line, with its basis."""
        rows = [
            f"{line.name.replace('_', ' '):<19} {_shown(line.value):>14} {line.unit:<9} {line.basis:<13} {line.how}"
            for line in self.lines
        ]
        return [f"by {self.figures.source}", *rows]


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.2f}"


def read_figures(path: Path) -> Figures:
    """What a load test's report (`report.json`) measured of one worker: the exact run with the most events.

    Raises:
        UsageError: it cannot be read, or none of its runs is usable; the message says why.

    """
    try:
        with path.open("rb") as file:
            content = file.read(REPORT_BYTES_MAX + 1)
        if len(content) > REPORT_BYTES_MAX:
            raise UsageError(f"{path} has more than {REPORT_BYTES_MAX:,} bytes: it is no report of a load test")
        found = json.loads(content)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a load test's report: {error}") from None
    runs = found.get("runs") if isinstance(found, dict) else None
    usable = [figures for run in runs if (figures := _of_run(run, path)) is not None] if isinstance(runs, list) else []
    if not usable:
        raise UsageError(
            f"{path} has no run of this system with at least {EVENTS_MIN:,} events, a rate, CPU time and memory, in "
            "which every event came out once: run `make bench` or `make loadtest`"
        )
    return max(usable, key=lambda one: one[0])[1]


def _of_run(run: object, path: Path) -> tuple[int, Figures] | None:
    if not isinstance(run, dict):
        return None
    oracle, events, workers = run.get("oracle"), run.get("events"), run.get("workers")
    # Only runs checked by an oracle: the pass-through and other systems, for comparison, have none.
    if not isinstance(oracle, dict) or oracle.get("lost") != 0 or oracle.get("duplicated") != 0:
        return None
    rates = [run.get(name) for name in ("consume_rate", "events_per_cpu_second", "rss_mb_max")]
    numbers = [float(one) for one in (*rates, events, workers) if isinstance(one, int | float) and 0 < one < math.inf]
    if len(numbers) != len(rates) + 2 or numbers[3] < EVENTS_MIN:
        return None
    rate, per_cpu, rss_mb, count, members = numbers
    # Memory is that of all workers together.
    source = f"{path} ({run.get('scenario')}, {count:,.0f} events, {members:.0f} workers)"
    return int(count), Figures(source, rate / members, per_cpu, rss_mb / members)
