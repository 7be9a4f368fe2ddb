"""Raw records as a source hands them over: columnar, each partition in log order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from streams.batch.columns import Headers, Int64
from streams.batch.refs import RecordBytes, concat_records


@dataclass(frozen=True, slots=True)
class Records:
    """A micro-batch of records as Kafka holds them, possibly of several partitions, each partition in log order."""

    partition: Int64
    """Partition of each record. In a flow with several inputs it is the lane (`streams.batch.lanes`), which equals the
    partition for the first input."""
    offset: Int64
    timestamp_ms: Int64
    key: RecordBytes
    value: RecordBytes
    headers: list[Headers | None] | None = None
    """None when no record of the batch has headers."""
    headers_lost: Mapping[int, int] | None = None
    """Rows that have headers which cannot be read, and how many of them: these are missing from `headers`. None when
    there are no such rows."""
    broker_ms: int = 0
    """Newest timestamp that the broker itself has given to one of the records (LogAppendTime); 0 when it gave none."""
    leader_epochs: Mapping[int, int] = field(default_factory=dict)
    """By partition (or lane), the leader epoch under which the newest record of its batch was appended, where it is
    known."""

    def __len__(self) -> int:
        return len(self.value)

    def take(self, rows: Int64) -> "Records":
        """Return the records at `rows`, in that order."""
        index = rows.tolist()
        return Records(
            self.partition[rows],
            self.offset[rows],
            self.timestamp_ms[rows],
            _taken(self.key, rows, index),
            _taken(self.value, rows, index),
            None if self.headers is None else [self.headers[i] for i in index],
            _lost_at(self.headers_lost, index),
            self.broker_ms,
            self.leader_epochs,
        )

    def listed_keys(self) -> list[Any]:
        """Keys as bytes objects or None."""
        return self.key if isinstance(self.key, list) else self.key.tolist()

    def listed_values(self) -> list[Any]:
        """Values as bytes objects or None."""
        return self.value if isinstance(self.value, list) else self.value.tolist()

    def with_objects(self) -> "Records":
        """The same records with keys and values as bytes objects."""
        if isinstance(self.key, list) and isinstance(self.value, list):
            return self
        return replace(self, key=self.listed_keys(), value=self.listed_values())

    def compact(self) -> "Records":
        """A copy without other records' bytes, for records that wait longer than their batch."""
        if isinstance(self.key, list) or isinstance(self.value, list):
            return self
        return replace(self, key=self.key.compact(), value=self.value.compact())

    @staticmethod
    def concat(parts: Sequence["Records"]) -> "Records":
        """The records of `parts`, one after the other."""
        if len(parts) == 1:
            return parts[0]
        headers: list[Headers | None] | None = None
        if any(part.headers is not None for part in parts):
            headers = []
            for part in parts:
                headers += part.headers if part.headers is not None else [None] * len(part)
        return Records(
            np.concatenate([part.partition for part in parts]),
            np.concatenate([part.offset for part in parts]),
            np.concatenate([part.timestamp_ms for part in parts]),
            concat_records([part.key for part in parts]),
            concat_records([part.value for part in parts]),
            headers,
            _lost_of(parts),
            max(part.broker_ms for part in parts),
            {number: epoch for part in parts for number, epoch in part.leader_epochs.items()},
        )


def _taken(column: RecordBytes, rows: Int64, index: list[int]) -> RecordBytes:
    return [column[row] for row in index] if isinstance(column, list) else column.take(rows)


def _lost_at(lost: Mapping[int, int] | None, index: Sequence[int]) -> Mapping[int, int] | None:
    if lost is None:
        return None
    return {place: lost[row] for place, row in enumerate(index) if row in lost} or None


def _lost_of(parts: Sequence[Records]) -> Mapping[int, int] | None:
    found: dict[int, int] = {}
    first = 0
    for part in parts:
        if part.headers_lost is not None:
            found |= {first + row: number for row, number in part.headers_lost.items()}
        first += len(part)
    return found or None
