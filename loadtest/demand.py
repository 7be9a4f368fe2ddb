"""How much a load test needs: records of a drain, time, disk and memory."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import psutil

from loadtest.plan import RAMP_STEPS_USUAL, Plan, Point, Work
from streams.errors import StreamsError

DISK_BYTES_PER_EVENT: Final = 1_500
"""In and out, logs and state; what is asked for must fit on the disk."""
BESIDE_MB: Final = 2_500
"""Memory of broker, registry, generators and the load test itself, whatever is measured."""
WORKER_MB: Final = 350
PILOT_EVENTS: Final = 200_000
FILL_EXTRA: Final = 1.25
"""Records for a drain, over what its warm-up and its steady state are expected to take."""
FILL_START_S: Final = 5.0
"""Time of draining before all workers are ready."""


class Demand:
    """Records that a drain needs for its steady state to last as long as it is to: by what was drained before."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._of_worker = 0.0

    def pilot(self) -> Plan:
        """A plan of the first point: short, and nothing but a drain."""
        length = self._plan.length
        short = replace(length, warm_up_s=2.0, seconds=5.0, is_searching=False, latency_shares=())
        return replace(self._plan, length=short)

    def learn(self, point: Point, rate: float | None) -> None:
        """Note what a point has drained, events per second."""
        if point.work is Work.CPU and rate:
            self._of_worker = max(self._of_worker, rate / point.workers)

    def rate(self, point: Point) -> float:
        """Events per second that the point may be sent, as far as one can tell by now."""
        if self._plan.rate:
            return float(self._plan.rate)
        if point.work is Work.DOWNSTREAM:
            return self._plan.downstream_rate(point.partitions)
        return self._of_worker * point.workers

    def events(self, point: Point) -> int:
        """Records for a drain of the point."""
        if self._plan.events or not self._of_worker:
            return self._plan.events or PILOT_EVENTS
        length = self._plan.length
        seconds = FILL_START_S + length.warm_up_s + length.seconds * FILL_EXTRA
        return max(PILOT_EVENTS // 4, round(self._of_worker * point.workers * seconds))


class Budget:
    """Time for all points: another one is begun only if the longest so far would still fit."""

    def __init__(self, began_s: float, minutes_max: float | None) -> None:
        self._ends_s = None if minutes_max is None else began_s + minutes_max * 60
        self._longest_s = 0.0

    @contextmanager
    def point(self) -> Iterator[None]:
        """Return the time in seconds that one point takes."""
        began_s = time.monotonic()
        yield
        self._longest_s = max(self._longest_s, time.monotonic() - began_s)

    @property
    def allows_another(self) -> bool:
        """Whether one more would end in time."""
        return self._ends_s is None or time.monotonic() + self._longest_s <= self._ends_s


def require_room(plan: Plan, *, events: int, rate: float) -> None:
    """Refuse what cannot fit on the disk or into memory, before anything is started.

    `events`: of a drain. `rate`: of open loops, events per second.

    Raises:
        StreamsError: the disk is too small for one point, or memory is.

    """
    length = plan.length
    steps_s = RAMP_STEPS_USUAL * (length.step_warm_up_s + length.step_s) if length.is_searching else 0.0
    spans_s = (length.warm_up_s + length.seconds) * (1 + len(length.latency_shares))
    most = events + round(rate * (spans_s + steps_s))
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if most * DISK_BYTES_PER_EVENT > free:
        raise StreamsError(
            f"{most:,} events want about {most * DISK_BYTES_PER_EVENT / 1e9:.0f} GB in {tempfile.gettempdir()}, "
            f"which has {free / 1e9:.0f} GB: fewer events, or set TMPDIR"
        )
    workers = max((point.workers for point in plan.points()), default=1)
    wanted_mb = BESIDE_MB + workers * WORKER_MB + length.oracle_memory_mb
    available_mb = psutil.virtual_memory().available / 1e6
    if wanted_mb > available_mb:
        raise StreamsError(
            f"{workers} workers, a broker and the oracle want about {wanted_mb / 1e3:.1f} GB of memory, "
            f"{available_mb / 1e3:.1f} GB are available: fewer workers "
            "(--workers-max), or less for the oracle (--oracle-memory-mb)"
        )
