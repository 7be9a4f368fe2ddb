"""Samples of partitions over a window of time, in columns: the input of a lag verdict. Pure."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from streams.batch.columns import Bools, Float64, Int8, Int64
from streams.monitor.moves import Moves

ABSENT: Final = -1
"""Offset of a partition for which the group has committed nothing (yet)."""


class Owned(IntEnum):
    """Whether a member of the group has the partition."""

    UNKNOWN = -1
    NOBODY = 0
    SOMEBODY = 1


@dataclass(frozen=True, slots=True)
class Window:
    """Samples of n partitions at s times, oldest first. A partition unknown at a time has ABSENT there, and lag 0.

    `offset` is the group's committed offset, `lag` the records from there to the last stable offset. `active` says that
    there were commits since the previous sample, including those at the same offset. `lag_s`: age of the oldest record
    not committed (0: there is none). `deleted` and `beyond`: records deleted before they were read; records by which
    the position is past the end of the log. `unreadable`: records after an open transaction, which nobody can read yet;
    `open_s`: how long that transaction has been seen to be open. `left`: members of the group have partitions of other
    topics, and none has had one of this topic for longer than the window. `unplaced`: the group is that of a flow, and
    the flow's state has no place for this partition of its source: its workers refuse it. `kept`: the group is that of
    a version of a flow which is kept, and which nobody is to run. `state_at`: workers refuse the partition, since
    the flow's state stands at this offset and not at the committed one, or at none; AS_COMMITTED: they do not.
    `moves`: those of the position, also from before the window. `unowned_s`: how long no member has had the partition;
    NaN: one has it, or none was ever seen to. `flaps`: how often the partition has lost its member lately
    (`Policy.flaps_s`). `peers_s`: the slowest rhythm that is known of any position of the group; NaN: none is.
    """

    time_ms: Int64
    offset: Int64
    lag: Int64
    active: Bools
    lag_s: Float64
    owned: Int8
    deleted: Int64
    beyond: Int64
    unreadable: Int64
    open_s: Float64
    left: Bools
    unplaced: Bools
    kept: Bools
    state_at: Int64
    moves: Moves
    unowned_s: Float64
    flaps: Int64
    peers_s: Float64

    def __post_init__(self) -> None:
        columns = (
            self.lag_s, self.owned, self.deleted, self.beyond, self.unreadable, self.open_s, self.left, self.unplaced,
            self.kept, self.state_at, self.moves.count, self.unowned_s, self.flaps, self.peers_s,
        )  # fmt: skip
        rows = {len(column) for column in columns}
        tables = {self.offset.shape, self.lag.shape, self.active.shape}
        if len(rows) > 1 or tables != {(len(self.lag_s), len(self.time_ms))}:
            raise ValueError("the columns of a window differ in length")
