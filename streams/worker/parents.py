"""Which partitions that a growth has added have waited long for what their parent forwards."""

from collections.abc import Collection, Mapping
from typing import Final

from streams.batch.lanes import input_of, partition_of_lane
from streams.engine.task import PartitionTask

SAID_AFTER_S: Final = 5.0
"""A parent that works reports its progress with each commit, an idle one once a second."""


class ParentsAwaited:
    """Updated after each step; any thread may read the result."""

    def __init__(self) -> None:
        self._since: dict[int, tuple[tuple[int, int], float]] = {}
        """By partition, how far it was, and since when it has not moved."""
        self.waited_for: frozenset[int] = frozenset()
        """Partitions that have not moved for `SAID_AFTER_S` although records are there. Replaced as a whole."""

    def look(self, waiting: Collection[int], tasks: Mapping[int, PartitionTask], now_s: float) -> None:
        """Record which lanes are `waiting` now; `now_s`: monotonic."""
        if not waiting and not self._since:
            return
        since = {}
        for lane in waiting:
            task, number = tasks.get(partition_of_lane(lane)), input_of(lane)
            if task is not None:
                place = (task.positions[number].offset_next, task.growth.of(number).forwarded_next)
                known = self._since.get(lane)
                since[lane] = known if known is not None and known[0] == place else (place, now_s)
        self._since = since
        long = (lane for lane, (_, at_s) in since.items() if now_s - at_s >= SAID_AFTER_S)
        self.waited_for = frozenset(map(partition_of_lane, long))
