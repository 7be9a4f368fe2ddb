"""What a parent tells the partitions that have taken over keys of its own, and when: of each input by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from streams.batch.lanes import lane_of
from streams.growth.layout import Growth
from streams.growth.stages import Progress, is_due, settles
from streams.sources.base import Idle

INTERVAL_MS: Final = 1_000
"""Between two records of a parent of which nothing changes but how far it stands at its end."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Ends of lanes (`batch.lanes`), answered by `known_ms`, monotonic by the clock of idle times."""

    known_ms: int
    offsets: Mapping[int, int]


class Reading(NamedTuple):
    """How far a parent is in one input."""

    watermark: int
    offset_next: int
    """Up to where its log is processed."""
    strays: int
    """How many records of it were forwarded."""
    idle: Idle | None
    """Where the input's log ends, if all of it has been processed; None: it is not known to be at its end."""


@dataclass(slots=True)
class _Told:
    """What was last told to the children about one input."""

    strays: int
    progress: Progress | None = None
    told_ms: int = 0
    reach: Mapping[int, int] = field(default_factory=dict)
    quiet_until: int | None = None
    """End of the parent's own log when it had been quiet for long enough; None: it was not, or it is not known."""


class Telling:
    """What a parent's task in the newest growth tells its children, after its cut or restore. Times are monotonic."""

    def __init__(self, growth: Growth, partition: int, *, now_ms: int, strays: Sequence[int]) -> None:
        """`strays`: how many records of each input the task has forwarded so far."""
        self.growth = growth
        self._partition = partition
        self._children = growth.children_of(partition)
        self._quiet_since_ms = now_ms
        self._told = [_Told(count, told_ms=now_ms) for count in strays]
        self._settles = False
        """Whether children are told with the open cycle that the coupling ends: what comes after changes nothing."""

    def due(
        self,
        readings: Sequence[Reading],
        ends: Ends | None,
        *,
        adopted: bool,
        now_ms: int,
        idle_ms: Sequence[int],
        quiet_ms: int,
    ) -> dict[int, Progress]:
        """What children are to be told now, by lane of the child; nothing of what they know.

        `readings` and `idle_ms`, a setting, are of each input. `adopted`: whether all children have taken their state
        over. The coupling ends in all inputs at once: when no straggler has come in any of them for `quiet_ms`.
        """
        inputs = list(enumerate(zip(readings, self._told, strict=True)))
        is_quiet = adopted and all(one.strays == told.strays for _, (one, told) in inputs)
        if not is_quiet:
            self._quiet_since_ms = now_ms
            for _, (one, told) in inputs:
                told.strays, told.quiet_until = one.strays, None
        is_settled = True
        for number, (one, told) in inputs:
            self._look(number, one, told, ends, quiet_ms if is_quiet else None)
            has_reached_end = told.quiet_until is not None and one.offset_next >= told.quiet_until
            is_settled &= settles(
                quiet_since_ms=self._quiet_since_ms,
                now_ms=now_ms,
                quiet_ms=quiet_ms,
                is_at_end=one.idle is not None or has_reached_end,
                adopted=adopted,
            )
        self._settles |= is_settled
        found: dict[int, Progress] = {}
        for number, (one, told) in inputs:
            is_idle = one.idle is not None and one.idle.until_ms - one.idle.since_ms >= idle_ms[number]
            progress = Progress(one.watermark, told.reach, is_idle=is_idle, is_settled=self._settles)
            if is_due(progress, told.progress, told_ms=told.told_ms, now_ms=now_ms, interval_ms=INTERVAL_MS):
                told.progress, told.told_ms = progress, now_ms
                found |= {lane_of(number, child): progress for child in self._children}
        return found

    def _look(self, number: int, one: Reading, told: _Told, ends: Ends | None, quiet_ms: int | None) -> None:
        """Take note of the ends of an input; `quiet_ms`, None: there was a straggler just now."""
        if one.idle is None:
            told.reach = {}
        if ends is None:
            return
        has_been_quiet = quiet_ms is not None and ends.known_ms - self._quiet_since_ms >= quiet_ms
        if has_been_quiet and told.quiet_until is None:
            told.quiet_until = ends.offsets.get(lane_of(number, self._partition))
        if one.idle is not None and one.idle.until_ms > ends.known_ms:
            found = {child: ends.offsets.get(lane_of(number, child)) for child in self._children}
            told.reach = {child: end for child, end in found.items() if end is not None}
