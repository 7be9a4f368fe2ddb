"""Transactions that are open at the end of a log, and since when. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from streams.kafka.round import Round
from streams.monitor.lookups import Answer, Partition, Question


@dataclass(slots=True)
class OpenTransaction:
    """A transaction that is open on a partition: the log cannot be read beyond `offset`."""

    offset: int
    first_ms: int
    """When it was first seen."""
    is_begin_known: bool
    """Whether it appeared while watching, so that it began shortly before `first_ms`."""
    seen_ms: int
    records: int
    told_ms: int | None = None
    """Timestamp of its first record; looked up where its beginning was not seen."""

    @property
    def since_ms(self) -> int:
        """When it began, as far as it is known."""
        return self.first_ms if self.told_ms is None else min(self.first_ms, self.told_ms)

    @property
    def open_s(self) -> float:
        """How long it has been open; 0 while it was seen only once: ends of logs are not all read at one moment."""
        return max(0.0, (self.seen_ms - self.since_ms) / 1000.0) if self.seen_ms > self.first_ms else 0.0


def _watched(found: Round) -> frozenset[Partition]:
    """Partitions whose high watermark was read in a round: it tells whether a transaction is open."""
    partitions = found.partitions
    return frozenset(partitions[number] for number in np.unique(found.commit_partition).tolist())


class OpenTransactions:
    """Tracks the open transactions of all partitions, from round to round."""

    def __init__(self) -> None:
        self._open: dict[Partition, OpenTransaction] = {}
        self._round_before: Round | None = None
        """A transaction that was not open then and is open now has just begun."""

    def note(self, found: Round) -> None:
        """Process a round: a transaction is open where the log goes on past its last stable offset."""
        before, self._open = self._open, {}
        round_before, self._round_before = self._round_before, found
        open_now = np.flatnonzero((found.end >= 0) & (found.high > found.end)).tolist()
        watched = _watched(round_before) if open_now and round_before is not None else frozenset()
        for number in open_now:
            key, end, high = found.partitions[number], int(found.end[number]), int(found.high[number])
            known = before.get(key)
            if known is None or known.offset != end:
                known = OpenTransaction(end, found.time_ms, key in watched, seen_ms=found.time_ms, records=0)
            known.seen_ms, known.records = max(known.seen_ms, found.time_ms), high - end
            self._open[key] = known

    def by_row(self, partitions: Sequence[Partition]) -> dict[int, OpenTransaction]:
        """By row, the open transaction of that partition, where there is one."""
        if not self._open:
            return {}
        return {row: one for row, key in enumerate(partitions) if (one := self._open.get(key)) is not None}

    def questions(self, count_max: int) -> list[Question]:
        """First records of transactions whose beginning was not seen; to be read uncommitted."""
        return [
            Question(*key, one.offset, one.offset + one.records)
            for key, one in self._open.items()
            if not one.is_begin_known and one.told_ms is None and one.seen_ms > one.first_ms
        ][:count_max]

    def learn(self, answers: Iterable[Answer]) -> None:
        """Process the answers to `questions`."""
        for answer in answers:
            one = self._open.get((answer.question.topic, answer.question.partition))
            if one is not None and one.offset == answer.question.offset:
                one.told_ms = answer.timestamp_ms if answer.timestamp_ms is not None else one.first_ms
