"""Samples of one group's partitions over the window: positions, lag and members. Pure."""

from collections import deque
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.batch.columns import Bools, Float64, Int8, Int64
from streams.kafka.round import Group
from streams.monitor.lookups import Partition
from streams.monitor.moves import MoveTracker
from streams.monitor.window import ABSENT, Owned

NEVER_SEEN_MS: Final = -(1 << 60)
FLAPS_KEPT: Final = 32
"""Losses of a member that are remembered of each partition, the newest ones."""


class GroupSamples:
    """Samples of one group over the window."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.rows: list[Partition] = []
        self.time_ms = np.empty(0, dtype=np.int64)
        self.offset = np.empty((0, 0), dtype=np.int64)
        self.lag = np.empty((0, 0), dtype=np.int64)
        self.active = np.empty((0, 0), dtype=np.bool_)
        self.mark = np.empty(0, dtype=np.int64)
        self.status = np.empty(0, dtype=np.int8)
        self.since_ms = np.empty(0, dtype=np.int64)
        self.owned_ms = np.empty(0, dtype=np.int64)
        """When each partition was last seen to have a member; `NEVER_SEEN_MS`: never."""
        self.moves = MoveTracker()
        self.holders: dict[Partition, str] = {}
        """Id of the last member seen to have each partition."""
        self.losses: dict[Partition, deque[int]] = {}
        """When each partition lost its member: the member had left the group."""
        self.group = Group("", "", None)
        self.unseen = 0
        # Of the newest sample:
        self.end = self.position = self.deleted = self.beyond = self.mark
        self.owned: Int8 = np.empty(0, dtype=np.int8)
        self.left: Bools = np.empty(0, dtype=np.bool_)
        self.unplaced: Bools = np.empty(0, dtype=np.bool_)
        self.owners: dict[int, str] = {}

    def move_to(self, rows: list[Partition], time_ms: int) -> None:
        """Have these rows from now on; known rows keep their samples, a new one begins at `time_ms`."""
        if rows == self.rows:
            return
        place = {key: row for row, key in enumerate(self.rows)}
        taken = np.array([place.get(key, -1) for key in rows], dtype=np.int64)
        self.offset = _taken(self.offset, taken, ABSENT)
        self.lag = _taken(self.lag, taken, 0)
        self.active = _taken(self.active, taken, 0)
        self.mark = _taken(self.mark, taken, -1)
        self.status = _taken(self.status, taken, -1)
        self.since_ms = _taken(self.since_ms, taken, 0)
        self.owned_ms = _taken(self.owned_ms, taken, NEVER_SEEN_MS)
        self.moves.move_to(taken, time_ms)
        self.holders = {key: self.holders[key] for key in rows if key in self.holders}
        self.losses = {key: self.losses[key] for key in rows if key in self.losses}
        self.rows = rows

    def is_still(self, row: int) -> bool:
        """Whether the position is the same as a sample ago, or unknown."""
        return self.offset.shape[1] < 2 or self.offset[row, -1] == self.offset[row, -2]

    def add(self, time_ms: int, offset: Int64, lag: Int64, mark: Int64) -> None:
        """Append a sample; drop the oldest if there are too many."""
        keep = slice(max(0, len(self.time_ms) + 1 - self.samples), None)
        last = self.offset[:, -1] if self.offset.shape[1] else np.full(len(offset), ABSENT)
        active = (self.mark != mark) & (offset == last) & (offset != ABSENT) & (self.mark != -1)
        self.mark = mark
        if self.offset.shape[1]:
            before_ms = self.time_ms[-1]
            unowned = (self.owned == Owned.NOBODY) & (self.owned_ms < before_ms)
            self.moves.add(time_ms, offset != last, offset, lag, unowned)
            self.moves.owned(self.owned == Owned.SOMEBODY)
        else:
            self.moves.add(time_ms, np.zeros(len(offset), dtype=np.bool_), offset, lag, self.owned == Owned.NOBODY)
        self.time_ms = np.append(self.time_ms[keep], time_ms)
        self.offset = np.column_stack([self.offset[:, keep], offset])
        self.lag = np.column_stack([self.lag[:, keep], lag])
        self.active = np.column_stack([self.active[:, keep], active])

    def lose(self, group: Group, time_ms: int) -> None:
        """Record which partitions have lost their member since the sample before.

        One that another member took over from a member that is still there has lost nobody.
        """
        if group.members is None:
            return  # not known
        there = {member.member_id for member in group.members}
        for key in [key for key, holder in self.holders.items() if holder not in there]:
            del self.holders[key]
            self.losses.setdefault(key, deque(maxlen=FLAPS_KEPT)).append(time_ms)

    def flaps(self, time_ms: int, within_s: float) -> Int64:
        """How often each row has lost its member in the last `within_s`."""
        counts = np.zeros(len(self.rows), dtype=np.int64)
        if not self.losses:
            return counts
        oldest_ms = time_ms - within_s * 1000.0
        for row, key in enumerate(self.rows):
            times = self.losses.get(key)
            if times is None:
                continue
            while times and times[0] < oldest_ms:
                times.popleft()
            counts[row] = len(times)
            if not times:
                del self.losses[key]
        return counts

    @property
    def unowned_s(self) -> Float64:
        """How long no member has had each row; NaN: one has it now, or none was seen to."""
        since_s = (self.time_ms[-1] - self.owned_ms) / 1000.0
        is_missed = (self.owned == Owned.NOBODY) & (self.owned_ms != NEVER_SEEN_MS)
        return np.where(is_missed, since_s, np.nan)


def _taken(values: npt.NDArray[Any], rows: Int64, fill: int) -> npt.NDArray[Any]:
    """`values[rows]`, with `fill` where a row is -1."""
    shape = (len(rows), *values.shape[1:])
    if not len(values):
        return np.full(shape, fill, dtype=values.dtype)
    return np.where((rows >= 0).reshape(-1, *[1] * (values.ndim - 1)), values[rows], np.array(fill, values.dtype))
