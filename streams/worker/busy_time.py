"""How long at least one of several threads was at work."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class BusyTime:
    """Measures the time in which at least one thread is inside `counted`; what runs side by side counts once."""

    def __init__(self, on_seconds: Callable[[float], object], clock: Callable[[], float] = time.perf_counter) -> None:
        """`on_seconds` is called when the last thread leaves, with the seconds since the first one came."""
        self._on_seconds, self._clock = on_seconds, clock
        self._lock = threading.Lock()
        self._inside = 0
        self._since_s = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the time of this block."""
        with self._lock:
            if not self._inside:
                self._since_s = self._clock()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._on_seconds(self._clock() - self._since_s)
