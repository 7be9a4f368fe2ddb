"""The partitions of a consumer: which are assigned, which are read and from where, and where their logs end.

They are called by their lanes (`streams.batch.lanes`).
"""

from typing import Final

import numpy as np

from streams.batch.columns import Bools, Int64
from streams.batch.partitions import last_rows, of_each_row
from streams.clock import monotonic_ms
from streams.limits import OPEN_TRANSACTION_SAID_MS
from streams.sources.base import Idle, Unreadable
from streams.sources.idle import IdleClock

_NEVER: Final = np.iinfo(np.int64).max
"""Above all offsets: for a partition that is not read."""


class Consumed:
    """One thread, that of the consumer; `positions` and `taken` may be asked by any."""

    def __init__(self, idle_ms: int) -> None:
        """`idle_ms`: how long a partition must be at the end of its log to be idle."""
        self.assigned: set[int] = set()
        self.started: dict[int, int] = {}
        """Partitions that are read, and the smallest offset that is new to them."""
        self.paused: frozenset[int] = frozenset()
        self.idle = IdleClock(idle_ms)
        self._end_offset: dict[int, int] = {}
        """Last end of each partition that the broker reported."""
        self._is_suspect = False
        """Whether the source may have been deleted or recreated."""
        self._beyond_end: frozenset[int] = frozenset()

    # --- what is known of them --------------------------------------------------------------------------------------

    def positions(self) -> dict[int, int]:
        """By partition that is read: the offset up to which nothing is left to take, as far as we were told."""
        return {p: max(taken, self._end_offset.get(p, 0)) for p, taken in dict(self.started).items()}

    def taken(self) -> dict[int, int]:
        """By partition that is read: the offset after the last record that was handed over."""
        return dict(self.started)

    def idle_now(self) -> dict[int, Idle]:
        """Those of the partitions that are read that are idle."""
        return self.idle.idle(self.started)

    def unreadable(self, now_ms: int) -> dict[int, Unreadable]:
        """Those that have stood before an open transaction for long; `now_ms` is monotonic."""
        return self.idle.unreadable(self.started, now_ms, after_ms=OPEN_TRANSACTION_SAID_MS)

    def suspect(self) -> None:
        """Record that the source may have changed."""
        self._is_suspect = True

    def take_suspicion(self) -> bool:
        """Whether something has come since the last call that a source gives which is not what it was."""
        found, self._is_suspect = self._is_suspect, False
        return found

    def ends_before(self, partition: int) -> None:
        """Record that a partition ends before the next offset."""
        self._is_suspect = True
        self._beyond_end |= {partition}

    def take_beyond_end(self) -> frozenset[int]:
        """Partitions that were found, since the last call, to end before the offset that is next."""
        found, self._beyond_end = self._beyond_end, frozenset()
        return found

    # --- records and ends -------------------------------------------------------------------------------------------

    def still_ours(self, partition: Int64, offset: Int64) -> tuple[Bools, dict[int, int]]:
        """Which records are not void, as those fetched before a seek or a stop are, and each partition's last row."""
        numbers, _ = last_rows(partition)
        least = np.array([self.started.get(number, _NEVER) for number in numbers.tolist()], dtype=np.int64)
        wanted_from = of_each_row(partition, numbers, least)
        keep = offset >= wanted_from
        rows = np.arange(len(partition))
        if not keep.all():
            if (wanted_from[~keep] < _NEVER).any():  # the client has begun again at the start of the log
                self._is_suspect = True
            rows = np.flatnonzero(keep)
        mine, places = last_rows(partition[rows])
        last = dict(zip(mine.tolist(), rows[places].tolist(), strict=True))
        for number, row in last.items():
            self.started[number] = int(offset[row]) + 1
            self.idle.moved(number)
        return keep, last

    def reached_end(self, partition: int, end: int) -> None:
        """Record that the broker says that a partition ends at `end`, as far as it may be read."""
        self._end_offset[partition] = end
        if partition in self.started and end >= self.started[partition]:
            self.idle.reached(partition, end, monotonic_ms())

    # --- changes ----------------------------------------------------------------------------------------------------

    def start(self, partition: int, offset: int) -> None:
        """Read a partition from `offset` on."""
        self.started[partition] = offset
        self.idle.moved(partition)
        self._end_offset.pop(partition, None)

    def stop(self, partitions: list[int]) -> None:
        """Stop reading these partitions; they remain assigned."""
        for partition in partitions:
            self.started.pop(partition, None)
            self.idle.moved(partition)
            self._end_offset.pop(partition, None)

    def pause_only(self, partitions: frozenset[int]) -> tuple[frozenset[int], frozenset[int]]:
        """Which are to be paused and which resumed, so that exactly these of the started ones are paused."""
        wanted = partitions & self.started.keys()
        return wanted - self.paused, (self.paused - wanted) & self.started.keys()

    def note_paused(self, partitions: frozenset[int]) -> None:
        """Record that exactly these of the started ones are paused now."""
        self.paused = partitions & self.started.keys()
        self.idle.pause(self.paused, monotonic_ms())

    def forget(self, partitions: list[int]) -> None:
        """Forget partitions that are no longer assigned."""
        self.assigned.difference_update(partitions)
        self.stop(partitions)
        self.paused -= frozenset(partitions)
        self.idle.pause(self.paused, monotonic_ms())
