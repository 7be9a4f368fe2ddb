"""The memory that the state of all flows of a process may take together."""

import threading


class MemoryBudget:
    """Shared by the flows of a process, each in its own thread: one that is idle leaves its share to the others."""

    def __init__(self, bytes_max: int, *, pipelines: int) -> None:
        """`bytes_max` is for all `pipelines` together."""
        self._bytes_max = bytes_max
        self._even = bytes_max // max(1, pipelines)
        self._lock = threading.Lock()
        self._used: dict[str, int] = {}

    def allowed(self, pipeline: str, used: int) -> int:
        """Note what a flow uses; returns what it may use: all that others leave, and its even share in any case.

        Once all together use too much there is always one that uses more than this, so that it has to give back.
        """
        with self._lock:
            self._used[pipeline] = used
            others = sum(self._used.values()) - used
        return max(self._even, self._bytes_max - others)
