"""When a flow last made progress or reported a wait: the watchdog judges by it."""

import time
from collections.abc import Callable


class Vitals:
    """When a flow last showed progress. Any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at_s = clock()

    def sign(self, until_in_s: float = 0.0) -> None:
        """Record a sign of life, valid for a further `until_in_s` seconds: for a pause that was announced."""
        self._at_s = max(self._at_s, self._clock() + until_in_s)

    def silence_s(self) -> float:
        """Seconds since the last sign of life."""
        return max(0.0, self._clock() - self._at_s)
