"""Whether the committed offsets of a flow are those that its state belongs to. Pure.

A worker refuses a partition whose group offset was set by something else while there is state of another offset. Lag
alone does not show that: at the end of the log there is none. Who set an offset is in its metadata; where the state
stands is in the newest records of the journal, which are read only for partitions whose offset was set by something
else.

One round goes `note` -> (`questions` -> `learn`, until nothing is asked or the time is up) -> `column`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streams.batch.columns import Int64
from streams.flow.declaration import Pipeline
from streams.kafka.round import FOREIGN, Round
from streams.state.journal import JournalCorrupted, unpack

TAIL_OFFSETS: Final = 16
"""How many offsets at the end of a journal are read first: usually the newest cycle and the markers after it."""
FURTHER_OFFSETS_MAX: Final = 256
"""Where they do not tell (a cycle in many parts, transactions that were aborted), four times as many before them are
read, and so on, at most so many at a time."""
BACK_OFFSETS_MAX: Final = 2_048
"""How far from its end a journal is read. A journal with nothing in that range is no reason to refuse."""
ASKED_OFFSETS_MAX: Final = 512
"""Bound on all journals that are read at once: their records are in memory then."""
AS_COMMITTED: Final = -1
"""The state stands where the group has committed, or it is not known."""
NOWHERE: Final = -2
"""A cycle has committed the offset, and the journal is empty: its state is gone."""

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a journal partition, to be read."""

    topic: str
    partition: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class _Journal:
    """A journal partition, and its end as of now."""

    topic: str
    partition: int
    low: int
    end: int

    def tail_before(self, offset: int) -> Tail | None:
        """What to read when everything from `offset` on gives no answer; None: give up."""
        back = self.end - offset
        if offset <= self.low or back >= BACK_OFFSETS_MAX:
            return None
        count = TAIL_OFFSETS if back == 0 else min(4 * back, FURTHER_OFFSETS_MAX)
        return Tail(self.topic, self.partition, max(self.low, offset - count), offset)


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A partition of a source whose offset was set by something else, while there is state."""

    source: Partition
    journal: _Journal
    committed: int
    low: int
    high: int


class FlowStates:
    """Tracks all declared flows. One thread."""

    def __init__(self, flows: Sequence[Pipeline]) -> None:
        self._flows = {flow.group: flow for flow in flows}
        self._suspects: dict[tuple[str, Partition], _Suspect] = {}
        self._gone: set[tuple[str, Partition]] = set()
        self._known: dict[_Journal, int] = {}
        """Offset of the state by the journal that contradicts the group's; `AS_COMMITTED`: it does not."""
        self._open: dict[_Journal, Tail] = {}
        """What is to be read of the others."""
        self._asked: Counter[_Journal] = Counter()
        """How often each was asked for: a partition that is not answered in time goes to the end of the queue."""

    def note(self, found: Round) -> None:
        """Process a round."""
        self._suspects, self._gone = {}, set()
        for number, group in enumerate(found.groups):
            flow = self._flows.get(group.name)
            if flow is not None and flow.source in found.base and flow.journal in found.base:
                self._note(found, number, flow)
        journals = {suspect.journal for suspect in self._suspects.values()}
        self._known = {journal: offset for journal, offset in self._known.items() if journal in journals}
        self._asked = Counter({journal: count for journal, count in self._asked.items() if journal in journals})
        before, self._open = self._open, {}
        for journal in journals - self._known.keys():
            self._read_before(journal, before[journal].end if journal in before else journal.end)

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
                self._suspects[flow.group, source] = _Suspect(
                    source,
                    _Journal(flow.journal, number, low, end),
                    committed=int(found.commit_offset[row]),
                    low=int(found.low[base + number]),
                    high=int(max(found.high[base + number], found.end[base + number])),
                )

    def _read_before(self, journal: _Journal, offset: int) -> None:
        tail = journal.tail_before(offset)
        if tail is None:
            self._known[journal] = AS_COMMITTED
        else:
            self._open[journal] = tail

    def questions(self) -> list[Tail]:
        """Pieces of journals to read, one per partition, at least one if there are any.

        Those first that were asked for least often; what is too much for one time is asked for the next time.
        """
        wanted: list[Tail] = []
        room = ASKED_OFFSETS_MAX
        for journal in sorted(self._open, key=lambda one: (self._asked[one], one.topic, one.partition)):
            tail = self._open[journal]
            room -= tail.end - tail.first
            if wanted and room < 0:
                break
            wanted.append(tail)
            self._asked[journal] += 1
        return wanted

    def learn(self, tail: Tail, values: Sequence[bytes]) -> None:
        """Process all records that were read there, in their order."""
        suspect = next(one for one in self._suspects.values() if self._open.get(one.journal) == tail)
        del self._open[suspect.journal]
        for value in reversed(values):
            try:
                position = unpack(value).positions.get(suspect.source[0])
            except JournalCorrupted:
                continue
            if position is not None:
                self._known[suspect.journal] = position.offset_next
                return
        self._read_before(suspect.journal, tail.first)

    def column(self, group: str, partitions: Sequence[Partition]) -> Int64:
        """`stands_at` of each partition."""
        if group not in self._flows or not (self._suspects or self._gone):
            return np.full(len(partitions), AS_COMMITTED, dtype=np.int64)
        return np.array([self.stands_at(group, partition) for partition in partitions], dtype=np.int64)

    def stands_at(self, group: str, partition: Partition) -> int:
        """Offset of the state if workers refuse the partition for it, or `NOWHERE`; else `AS_COMMITTED`."""
        if (group, partition) in self._gone:
            return NOWHERE
        suspect = self._suspects.get((group, partition))
        at = AS_COMMITTED if suspect is None else self._known.get(suspect.journal, AS_COMMITTED)
        if suspect is None or at in {AS_COMMITTED, suspect.committed}:
            return AS_COMMITTED
        # A source that ends before the state was truncated: there a worker goes on where the group was set to.
        is_truncated = at > suspect.high
        return AS_COMMITTED if is_truncated and suspect.low <= suspect.committed <= suspect.high else at
