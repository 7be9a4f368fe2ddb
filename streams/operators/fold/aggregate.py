"""What every aggregate is: a fold of clean events, per key, in order, over fixed-size rows.

State is a structured numpy array with one element per key, so that a batch is folded by vector operations and a row is
packed for the store by copying its bytes. Folds are exact (integers; the maximum of floats), so that the result does
not depend on how the events were cut into batches.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from streams.batch.columns import Float64, Int64, Objects
from streams.batch.events import NO_FIELDS, Events, Fields
from streams.batch.rows import Rows


@dataclass(frozen=True, slots=True)
class Segments:
    """Events sorted by key, then in order, cut into segments of one key each."""

    event_time: Int64
    sequence: Int64
    payload: Float64
    texts: Objects
    prior: Int64
    """Watermark just before each event became due: what windows are closed by. Empty where there are no windows."""
    start: Int64
    """First row of each segment."""
    end: Int64
    """Last row of each segment, inclusive."""
    fields: Fields = NO_FIELDS
    """Names of the rows of `payload` and `texts`."""

    def __len__(self) -> int:
        return len(self.start)

    def number(self, name: str) -> Float64:
        """The numeric field `name` of each event; null is NaN.

        Raises:
            KeyError: there is no such field.

        """
        return self.fields.number(self.payload, name)

    def text(self, name: str) -> Objects:
        """The text field `name` of each event, UTF-8 bytes or None.

        Raises:
            KeyError: there is no such field.

        """
        return self.fields.text(self.texts, name)

    def pick(self, start: Int64, end: Int64) -> "Segments":
        """Other segments of the same events: rows `start` to `end` inclusive of each."""
        if np.array_equal(start, self.start) and np.array_equal(end, self.end):
            return self
        lengths = end - start + 1
        first = np.cumsum(lengths) - lengths
        rows = np.arange(int(lengths.sum())) - np.repeat(first, lengths) + np.repeat(start, lengths)
        return Segments(
            event_time=self.event_time[rows],
            sequence=self.sequence[rows],
            payload=self.payload[:, rows],
            texts=self.texts[:, rows],
            prior=self.prior[rows],
            start=first,
            end=first + lengths - 1,
            fields=self.fields,
        )


@dataclass(frozen=True, slots=True)
class KeySegments:
    """All released events of a batch, one segment for each key. Only the columns that folds read are sorted."""

    segments: Segments
    slot: Int64
    """Slot of each segment's key; each occurs once."""
    last_id: Objects
    """Id of each segment's last event."""

    @staticmethod
    def of(events: Events, prior: Int64) -> "KeySegments":
        """Segments of events that are in order (at least one)."""
        slots = events.slot
        # numpy sorts 16-bit integers by radix: an order of magnitude faster than a comparison sort.
        sortable = slots.astype(np.uint16) if int(slots.max()) < 1 << 16 else slots
        order = np.argsort(sortable, kind="stable")
        sorted_slots = slots.take(order)
        change = np.flatnonzero(sorted_slots[1:] != sorted_slots[:-1])
        start = np.concatenate([[0], change + 1])
        end = np.concatenate([change, [len(order) - 1]])
        segments = Segments(
            event_time=events.event_time.take(order),
            sequence=events.sequence.take(order),
            payload=events.payload.take(order, axis=1),
            texts=events.texts.take(order, axis=1),
            prior=prior.take(order) if len(prior) else prior,
            start=start,
            end=end,
            fields=events.fields,
        )
        return KeySegments(segments, sorted_slots[start], events.event_id[order[end]])


class Aggregate(Protocol):
    """A fold of clean events into one row per key."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout of a row: numbers, and texts as objects (bytes or None).

        Zeros and None are the state of a key that has no events. A field `contradictions` counts events that
        contradict the state; what it grows by is counted in the metrics.
        """

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Rows after the events of each segment, given the rows before (`state[i]` belongs to segment `i`)."""

    def table(self, keys: Objects, state: Rows) -> pa.RecordBatch:
        """Public rows, in the field order of the table's Avro schema."""


class WindowAggregate(Protocol):
    """A fold of the events of one key and window. Its rows hold numbers only."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout of a row; all zero bytes is the state of a key that has no events."""

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Rows after the events of each segment, given the rows before (`state[i]` belongs to segment `i`)."""

    def carry(self, state: Rows) -> Rows:
        """Rows that the next window of each key begins with, given the last one's: zeros, and what passes over.

        Best is what follows from the last window's own events, such as its last position: history of many windows is
        then folded at once. Anything else is right as well, and costs a step for each window.
        """

    def table(self, keys: Objects, start: Int64, end: Int64, revision: Int64, state: Rows) -> pa.RecordBatch:
        """Public rows, in the field order of the window's Avro schema; `start` and `end` (exclusive) in ms."""
