"""The memory that the state of all flows of a process may use together."""

import threading
from typing import Final

_WITHHELD_SHARE_MAX: Final = 0.5
"""State keeps at least the other half: with less, a worker would move state to its stores and back all the time."""
_STEP: Final = 0.5
"""How much of the process's memory above its limit is taken off the budget of state at each check."""


class MemoryBudget:
    """Memory budget shared by the flows of a process, each in its own thread: idle flows leave their share to others.

    The bytes that operators count are not all that their state costs: allocators keep what was freed in between. So the
    budget follows the memory of the process: while that is above `resident_bytes_max`, less and less is allowed, and
    more again once it is below.
    """

    def __init__(self, bytes_max: int, *, pipelines: int, resident_bytes_max: int = 1 << 62) -> None:
        """`bytes_max` is for the state of all `pipelines` together, `resident_bytes_max` for the process."""
        self._bytes_max = bytes_max
        self._pipelines = max(1, pipelines)
        self._resident_bytes_max = resident_bytes_max
        self._lock = threading.Lock()
        self._used: dict[str, int] = {}
        self._withheld = 0

    @property
    def is_tight(self) -> bool:
        """Whether the process exceeded its limit recently: free memory should be given back more often."""
        return self._withheld > 0

    def follow(self, resident_bytes: int) -> None:
        """Record the memory of the process, before free memory is given back; call it every few seconds.

        The peak matters: the process uses as much again before the next call.
        """
        with self._lock:
            withheld = self._withheld + int((resident_bytes - self._resident_bytes_max) * _STEP)
            self._withheld = min(max(0, withheld), int(self._bytes_max * _WITHHELD_SHARE_MAX))

    def allowed(self, pipeline: str, used: int) -> int:
        """Record what a flow uses; returns what it may use: all that others leave, and at least its even share.

        When the flows together use too much, at least one of them uses more than its allowance and has to spill.
        """
        with self._lock:
            self._used[pipeline] = used
            others = sum(self._used.values()) - used
            bytes_max = self._bytes_max - self._withheld
        return max(bytes_max // self._pipelines, bytes_max - others)
