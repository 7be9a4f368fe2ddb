"""Decoded events, columnar: one array per attribute, all of one length, in log order unless said otherwise."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from streams.batch.columns import Bools, Float64, Int64, Objects, UInt64, objects


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
