"""What a parent tells the partitions that have taken over keys of its own, and when."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from streams.growth.layout import Growth
from streams.growth.stages import Progress, is_due, settles
from streams.sources.base import Idle

INTERVAL_MS: Final = 1_000
"""Between two records of a parent of which nothing changes but how far it stands at its end."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Ends of partitions of the source, answered by `known_ms`, monotonic by the clock of idle times."""

    known_ms: int
    offsets: Mapping[int, int]


class Telling:
    """Of one task that is a parent in the newest growth, from its cut or its restore on. Times are monotonic."""

    def __init__(self, growth: Growth, partition: int, *, now_ms: int, strays: int) -> None:
        """`strays`: how many records the task has forwarded so far."""
        self.growth = growth
        self._partition = partition
        self.children = growth.children_of(partition)
        self._told: Progress | None = None
        self._told_ms = self._quiet_since_ms = now_ms
        self._strays = strays
        self._reach: Mapping[int, int] = {}
        self._quiet_until: int | None = None
        """End of the parent's own log when it had been quiet for long enough; None: it was not, or it is not known."""

    def due(
        self,
        watermark: int,
        idle: Idle | None,
        ends: Ends | None,
        *,
        offset_next: int,
        strays: int,
        adopted: bool,
        now_ms: int,
        idle_ms: int,
        quiet_ms: int,
    ) -> Progress | None:
        """What children are to be told now; None: nothing that they do not know.

        `idle`: of the parent's log, all of which before that is processed; None: it is not known to be at its end.
        `offset_next`: up to where the parent's log is processed, `strays`: how many records of it were forwarded.
        `adopted`: whether all children have taken their state over. `idle_ms` and `quiet_ms` are settings.
        """
        if strays != self._strays or not adopted:
            self._strays, self._quiet_since_ms, self._quiet_until = strays, now_ms, None
        elif self._quiet_until is None and ends is not None and ends.known_ms - self._quiet_since_ms >= quiet_ms:
            self._quiet_until = ends.offsets.get(self._partition)
        if idle is None:
            self._reach = {}
        elif ends is not None and idle.until_ms > ends.known_ms:
            self._reach = {child: ends.offsets[child] for child in self.children if child in ends.offsets}
        progress = Progress(
            watermark,
            self._reach,
            is_idle=idle is not None and idle.until_ms - idle.since_ms >= idle_ms,
            is_settled=settles(
                quiet_since_ms=self._quiet_since_ms,
                now_ms=now_ms,
                quiet_ms=quiet_ms,
                is_at_end=idle is not None or (self._quiet_until is not None and offset_next >= self._quiet_until),
                adopted=adopted,
            ),
        )
        if not is_due(progress, self._told, told_ms=self._told_ms, now_ms=now_ms, interval_ms=INTERVAL_MS):
            return None
        self._told, self._told_ms = progress, now_ms
        return progress
