"""Clocks of a process: a wall clock that never goes back, and a monotonic one for durations."""

import time
from collections.abc import Callable
from typing import Final

_NS_PER_MS: Final = 1_000_000


def monotonic_ms() -> int:
    """Milliseconds of a clock that never steps and counts from anywhere: for measuring how long something takes."""
    return int(time.monotonic() * 1000)


class SteadyClock:
    """Milliseconds since the epoch by the wall clock, which never go back.

    Steps back of the wall clock are not followed; steps forward are, for as long as they last.
    """

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, steady_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """`wall_ns` may step; `steady_ns` counts from anywhere and never steps."""
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._ahead_ns = wall_ns() - steady_ns()

    def now_ms(self) -> int:
        """The time now."""
        return max(self._wall_ns(), self._steady_ns() + self._ahead_ns) // _NS_PER_MS


class SystemTime:
    """The time of this machine."""

    def wall_ms(self) -> int:
        """Return milliseconds since the epoch; the clock may be set back or forward at any time."""
        return time.time_ns() // _NS_PER_MS

    def monotonic_s(self) -> float:
        """Seconds of a clock that never steps and counts from anywhere."""
        return time.monotonic()
