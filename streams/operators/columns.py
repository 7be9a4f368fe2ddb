"""The two shapes that travel through the operators: raw records as intake got them, and decoded events.

Both are columnar: one array per attribute, all of one length, in log order unless said otherwise.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Objects = NDArray[np.object_]
Headers = list[tuple[str, bytes | None]]

_HEADER_OVERHEAD_BYTES = 150
"""Rough memory of a header beyond its bytes: a pair, its text and its value as objects."""
TIME_MIN: int = np.iinfo(np.int64).min
"""Minus infinity of event time: the watermark of a partition that has seen nothing."""


def objects(values: Sequence[Any]) -> Objects:
    """One-dimensional object array of `values`, whatever their type (numpy would nest lists)."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def header_bytes(headers: Headers | None) -> int:
    """Bytes of the names and values of a record's headers."""
    return sum([len(name) + len(value or b"") for name, value in headers or ()])


def header_memory(headers: Headers | None) -> int:
    """Approximate memory of a record's headers."""
    return 0 if not headers else header_bytes(headers) + _HEADER_OVERHEAD_BYTES * len(headers)


def object_rows(rows: Sequence[Objects], count: int) -> Objects:
    """Object array of shape (rows, count); there may be no rows."""
    array = np.empty((len(rows), count), dtype=object)
    for position, row in enumerate(rows):
        array[position] = row
    return array


@dataclass(frozen=True, slots=True)
class Records:
    """A micro-batch of records as Kafka holds them, possibly of several partitions, each partition in log order."""

    partition: Int64
    offset: Int64
    timestamp_ms: Int64
    key: list[bytes | None]
    value: list[bytes | None]
    headers: list[Headers | None] | None = None
    """None when no record of the batch has headers."""
    headers_lost: Mapping[int, int] | None = None
    """Rows that have headers which cannot be read, and how many of them: these are missing from `headers`. None when
    there are no such rows."""
    broker_ms: int = 0
    """Newest timestamp that the broker itself has given to one of the records (LogAppendTime); 0 when it gave none."""
    leader_epochs: Mapping[int, int] = field(default_factory=dict)
    """By partition, the leader epoch under which the newest record of its batch was appended, where it is known."""

    def __len__(self) -> int:
        return len(self.value)

    def take(self, rows: Int64) -> "Records":
        """Records at `rows`, in that order."""
        index = rows.tolist()
        return Records(
            self.partition[rows],
            self.offset[rows],
            self.timestamp_ms[rows],
            [self.key[i] for i in index],
            [self.value[i] for i in index],
            None if self.headers is None else [self.headers[i] for i in index],
            _lost_at(self.headers_lost, index),
            self.broker_ms,
            self.leader_epochs,
        )

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
            [key for part in parts for key in part.key],
            [value for part in parts for value in part.value],
            headers,
            _lost_of(parts),
            max(part.broker_ms for part in parts),
            {number: epoch for part in parts for number, epoch in part.leader_epochs.items()},
        )


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


@dataclass(frozen=True, slots=True)
class Events:
    """Decoded events, with the record each came in: what dedup, reorder and aggregate work on."""

    row: Int64
    """Position in the micro-batch; meaningless once events of several batches are mixed."""
    timestamp_ms: Int64
    event_time: Int64
    """Milliseconds since the epoch."""
    sequence: Int64
    event_id: Objects
    """UTF-8 bytes."""
    id_hi: UInt64
    id_lo: UInt64
    id_word: UInt64
    """With `id_hi` and `id_lo` the identity of (event_id, event_time) in 24 bytes: see `operators.identity`."""
    key: Objects
    value: Objects
    """Original bytes."""
    headers: Objects | None
    payload: Float64
    """Shape (fields, events): the pipeline's payload fields; null is NaN."""
    texts: Objects
    """Shape (fields, events): the pipeline's text fields, UTF-8 bytes or None."""
    slot: Int64
    """Position of the key in its partition's key index; -1 before it is looked up."""

    def __len__(self) -> int:
        return len(self.event_time)

    def take(self, rows: Int64 | Bools | slice) -> "Events":
        """Events at `rows` (indices, mask or slice), in that order."""
        if isinstance(rows, slice):
            return Events(*(_each(self, lambda column: column[..., rows])))
        # One look at a mask for all columns; `take` is twice as fast as indexing.
        index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return Events(*(_each(self, lambda column: column.take(index, axis=-1))))

    def with_slots(self, slots: Int64) -> "Events":
        """The same events with other slots."""
        return replace(self, slot=slots)

    def with_rows(self, rows: Int64) -> "Events":
        """The same events at other rows of the micro-batch."""
        return replace(self, row=rows)

    @staticmethod
    def concat(parts: Sequence["Events"]) -> "Events":
        """The events of `parts`, one after the other (at least one part)."""
        if len(parts) == 1:
            return parts[0]
        headers: Objects | None = None
        if any(part.headers is not None for part in parts):
            headers = np.concatenate(
                [part.headers if part.headers is not None else objects([None] * len(part)) for part in parts]
            )
        columns: dict[str, Any] = {"headers": headers}
        for column in fields(Events):
            if column.name == "headers":
                continue
            axis = 1 if column.name in {"payload", "texts"} else 0
            columns[column.name] = np.concatenate([getattr(part, column.name) for part in parts], axis=axis)
        return Events(**columns)


def _each(events: Events, pick: Callable[[Any], Any]) -> Iterator[Any]:
    """Every column through `pick`, in the order of the fields."""
    for name in _COLUMNS:
        column = getattr(events, name)
        yield None if column is None else pick(column)


_COLUMNS = tuple(column.name for column in fields(Events))
