"""Whether the committed offsets of a flow are those that its state belongs to. Pure.

A worker refuses a partition whose group offset was set by something else while there is state of another offset. Lag
alone does not show that: at the end of the log there is none. What an offset says of itself is in its metadata; where
the state stands is in the newest records of the journal, which are read for the partitions that matter only.

One round goes `note` -> `questions` -> `learn` -> `column`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streams.batch.columns import Int64
from streams.flow.declaration import Pipeline
from streams.kafka.round import FOREIGN, Round
from streams.state.journal import JournalCorrupted, unpack

TAIL_OFFSETS: Final = 64
"""So many offsets at the end of a journal are read: the last cycle is among them, its markers and parts too."""
AS_COMMITTED: Final = -1
"""The state stands where the group has committed, or nobody knows better."""
NOWHERE: Final = -2
"""A cycle has committed the offset, and the journal has nothing: its state is gone."""

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a journal partition, to be read."""

    topic: str
    partition: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A partition of a source whose offset was set by something else, while there is state."""

    source: Partition
    tail: Tail
    committed: int
    low: int
    high: int


class FlowStates:
    """Of all declared flows. One thread."""

    def __init__(self, pipelines: Sequence[Pipeline]) -> None:
        self._flows = {pipeline.group: pipeline for pipeline in pipelines}
        self._suspects: dict[tuple[str, Partition], _Suspect] = {}
        self._gone: set[tuple[str, Partition]] = set()
        self._known: dict[Tail, int] = {}
        """Offset at which the state stands, by the end of the journal that says so; `AS_COMMITTED`: it does not."""

    def note(self, found: Round) -> None:
        """Take a round in."""
        self._suspects, self._gone = {}, set()
        for number, group in enumerate(found.groups):
            flow = self._flows.get(group.name)
            if flow is not None and flow.source in found.base and flow.journal in found.base:
                self._note(found, number, flow)
        tails = {suspect.tail for suspect in self._suspects.values()}
        self._known = {tail: offset for tail, offset in self._known.items() if tail in tails}

    def _note(self, found: Round, group: int, flow: Pipeline) -> None:
        counts = dict(found.topics)
        base, journal = found.base[flow.source], found.base[flow.journal]
        partition = found.commit_partition - base
        shared = min(counts[flow.source], counts[flow.journal])
        mine = np.flatnonzero((found.commit_group == group) & (partition >= 0) & (partition < shared))
        for row, number in zip(mine.tolist(), partition[mine].tolist(), strict=True):
            end, source = int(found.end[journal + number]), (flow.source, number)
            if found.commit_cycle[row] != FOREIGN:
                if end == 0:
                    self._gone.add((flow.group, source))
            elif end > 0:
                low = max(int(found.low[journal + number]), 0)
                tail = Tail(flow.journal, number, max(low, end - TAIL_OFFSETS), end)
                self._suspects[flow.group, source] = _Suspect(
                    source,
                    tail,
                    committed=int(found.commit_offset[row]),
                    low=int(found.low[base + number]),
                    high=int(max(found.high[base + number], found.end[base + number])),
                )

    def questions(self, count_max: int) -> list[Tail]:
        """Ends of journals that are to be read, one per partition."""
        wanted = dict.fromkeys(one.tail for one in self._suspects.values() if one.tail not in self._known)
        return list(wanted)[:count_max]

    def learn(self, tail: Tail, values: Sequence[bytes]) -> None:
        """Take in the records that were read there, in their order."""
        source = next(one.source[0] for one in self._suspects.values() if one.tail == tail)
        self._known[tail] = AS_COMMITTED
        for value in reversed(values):
            try:
                position = unpack(value).positions.get(source)
            except JournalCorrupted:
                continue
            if position is not None:
                self._known[tail] = position.offset_next
                return

    def column(self, group: str, partitions: Sequence[Partition]) -> Int64:
        """`stands_at` of each partition."""
        if group not in self._flows or not (self._suspects or self._gone):
            return np.full(len(partitions), AS_COMMITTED, dtype=np.int64)
        return np.array([self.stands_at(group, partition) for partition in partitions], dtype=np.int64)

    def stands_at(self, group: str, partition: Partition) -> int:
        """Offset of the state where workers refuse the partition for it, or `NOWHERE`; else `AS_COMMITTED`."""
        if (group, partition) in self._gone:
            return NOWHERE
        suspect = self._suspects.get((group, partition))
        at = AS_COMMITTED if suspect is None else self._known.get(suspect.tail, AS_COMMITTED)
        if suspect is None or at in {AS_COMMITTED, suspect.committed}:
            return AS_COMMITTED
        # A source that ends before the state was truncated: there a worker goes on where the group was set to.
        is_truncated = at > suspect.high
        return AS_COMMITTED if is_truncated and suspect.low <= suspect.committed <= suspect.high else at
