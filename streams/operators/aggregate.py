"""What every aggregate is: a fold of clean events, per key, in order, over fixed-size rows.

State is a structured numpy array with one element per key, so that a batch is folded by vector operations and a row is
packed for the store by copying its bytes. Folds are exact (integers; the maximum of floats), so that the result does
not depend on how the events were cut into batches.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from streams.operators.columns import Events, Float64, Int64, Objects

Rows = np.ndarray[Any, Any]
"""Structured array of an aggregate's dtype."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Events sorted by key, then in order: one segment per key. Only the columns that folds read are sorted."""

    event_time: Int64
    sequence: Int64
    payload: Float64
    start: Int64
    """First row of each segment."""
    end: Int64
    """Last row of each segment, inclusive."""
    slot: Int64
    """Slot of each segment's key; each occurs once."""
    last_id: Objects
    """Id of each segment's last event."""

    @staticmethod
    def of(events: Events) -> "Segments":
        """Segments of events that are in order (at least one)."""
        slots = events.slot
        # numpy sorts 16-bit integers by radix: an order of magnitude faster than a comparison sort.
        sortable = slots.astype(np.uint16) if int(slots.max()) < 1 << 16 else slots
        order = np.argsort(sortable, kind="stable")
        sorted_slots = slots.take(order)
        change = np.flatnonzero(sorted_slots[1:] != sorted_slots[:-1])
        start = np.concatenate([[0], change + 1])
        end = np.concatenate([change, [len(order) - 1]])
        return Segments(
            event_time=events.event_time.take(order),
            sequence=events.sequence.take(order),
            payload=events.payload.take(order, axis=1),
            start=start,
            end=end,
            slot=sorted_slots[start],
            last_id=events.event_id[order[end]],
        )


class Aggregate(Protocol):
    """A fold of clean events into one row per key."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout of a row; all zero bytes is the state of a key that has no events."""

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Rows after the events of each segment, given the rows before (`state[i]` belongs to segment `i`)."""

    def table(self, keys: Objects, state: Rows) -> pa.RecordBatch:
        """Public rows, in the field order of the table's Avro schema."""
