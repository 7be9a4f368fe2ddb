"""Settings of a worker that runs a flow over a range of its history, and then ends."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from streams.sources.kafka.range import Range

_PAUSE_S_MAX: Final = 0.5
"""Bound on one pause: the consumer has to be polled, and a stop has to be noticed."""
_DEBT_S_MAX: Final = 30.0
"""Bound on what is made up for after a time in which the process was not paced (a restore)."""


class CpuShare:
    """Paces a process to a share of the machine's processors. Pure: times are arguments, in seconds."""

    def __init__(self, share: float, cores: int) -> None:
        """`share` of all `cores`, above 0 and up to 1."""
        self._cores_allowed = share * cores
        self._is_bounded = share < 1
        self._last: tuple[float, float] | None = None
        self._debt_s = 0.0

    def pause_s(self, cpu_s: float, now_s: float) -> float:
        """How long to pause now. `cpu_s`: processor time that the process has used; `now_s`: monotonic."""
        if not self._is_bounded:
            return 0.0
        if self._last is not None:
            used_s, passed_s = cpu_s - self._last[0], now_s - self._last[1]
            self._debt_s = min(max(self._debt_s + used_s / self._cores_allowed - passed_s, 0.0), _DEBT_S_MAX)
        self._last = cpu_s, now_s
        return min(self._debt_s, _PAUSE_S_MAX)


@dataclass(frozen=True, slots=True)
class Replay:
    """The range and the pace; `on_progress` is called for every committed cycle, `over` is set at the end."""

    range: Range
    pace: CpuShare
    on_progress: Callable[[dict[int, int]], None]
    """Called with the position of each lane."""
    over: threading.Event = field(default_factory=threading.Event)
    """Set when all of the range was processed; it is committed once the worker has ended."""
