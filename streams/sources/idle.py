"""How long each partition has been at the true end of its log. Pure: times are arguments, in monotonic milliseconds.

The client's end of a partition is its last stable offset: records of an open transaction may lie after it. The true end
is the high watermark, and it has to be asked for. A log only grows: a high watermark that equals the offset which the
client reached says that nothing came in between. Time counts as idle only while such answers keep coming, so a broker
that does not answer, a paused partition and a process that was stopped and woken up add nothing to it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from streams.limits import IDLE_ASK_INTERVAL_MS, IDLE_ASK_INTERVAL_MS_MIN, IDLE_GAP_MS_MAX
from streams.sources.base import Idle, Unreadable


@dataclass(slots=True)
class _End:
    """The offset that the client reached, and what is known about it."""

    offset: int
    reached_ms: int
    since_ms: int | None
    """None: the log does not end here."""
    answered_ms: int
    """When the newest answer was asked for; the time of arrival before the first one."""
    until_ms: int | None = None
    high: int = 0
    open_since_ms: int | None = None


@dataclass(slots=True)
class IdleClock:
    """By partition: idle time, and records that cannot be read yet. One thread."""

    idle_ms: int
    """The setting: an answer is wanted several times within it."""
    _ends: dict[int, _End] = field(default_factory=dict)
    _paused: frozenset[int] = frozenset()
    _asked_ms: int | None = None

    @property
    def interval_ms(self) -> int:
        """Time between two questions."""
        return max(IDLE_ASK_INTERVAL_MS_MIN, min(IDLE_ASK_INTERVAL_MS, self.idle_ms // 4))

    def reached(self, partition: int, offset: int, now_ms: int) -> None:
        """The client has read everything readable before `offset`."""
        end = self._ends.get(partition)
        if end is None or end.offset != offset:
            self._ends[partition] = _End(offset, now_ms, now_ms, now_ms)

    def moved(self, partition: int) -> None:
        """Restart a partition's idle time: records arrived, or reading continues elsewhere."""
        self._ends.pop(partition, None)

    def pause(self, partitions: frozenset[int], now_ms: int) -> None:
        """Exactly these are not fetched from now on. For those that are fetched again, idle time starts over."""
        for partition in self._paused - partitions:
            end = self._ends.get(partition)
            if end is not None:
                end.reached_ms = end.since_ms = end.answered_ms = now_ms
                end.until_ms = end.open_since_ms = None
        self._paused = partitions

    def due(self, now_ms: int) -> list[int]:
        """Partitions whose high watermark should be asked for now; none while the last question is recent."""
        if self._asked_ms is not None and now_ms - self._asked_ms < self.interval_ms:
            return []
        wanted = sorted(
            partition
            for partition, end in self._ends.items()
            if partition not in self._paused and now_ms - end.reached_ms >= self.interval_ms
        )
        if wanted:
            self._asked_ms = now_ms
        return wanted

    def told(self, high: Mapping[int, int], asked_ms: int) -> None:
        """High watermarks that were asked for at `asked_ms`; partitions without an answer are left out."""
        for partition, offset in high.items():
            end = self._ends.get(partition)
            if end is None or partition in self._paused or asked_ms < end.reached_ms:
                continue
            end.high = offset
            if offset != end.offset:
                end.since_ms = end.until_ms = None
                if offset > end.offset and end.open_since_ms is None:
                    end.open_since_ms = asked_ms
                continue
            end.open_since_ms = None
            if end.since_ms is None or asked_ms - end.answered_ms > IDLE_GAP_MS_MAX:
                end.since_ms = asked_ms
            end.answered_ms = end.until_ms = asked_ms

    def idle(self, partitions: Collection[int]) -> dict[int, Idle]:
        """Those of `partitions` that are known to be idle, and for which time."""
        return {
            partition: Idle(end.since_ms, end.until_ms)
            for partition, end in self._ends.items()
            if partition in partitions
            and partition not in self._paused
            and end.since_ms is not None
            and end.until_ms is not None
        }

    def unreadable(self, partitions: Iterable[int], now_ms: int, *, after_ms: int) -> dict[int, Unreadable]:
        """Those of `partitions` that have stood before an open transaction for longer than `after_ms`."""
        found = {}
        for partition in partitions:
            end = self._ends.get(partition)
            if end is not None and end.open_since_ms is not None and now_ms - end.open_since_ms >= after_ms:
                found[partition] = Unreadable(end.high - end.offset, end.offset, end.open_since_ms)
        return found
