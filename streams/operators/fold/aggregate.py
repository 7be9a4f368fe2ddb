"""What every aggregate is: a fold of clean events, per key, in order, over fixed-size rows.

State is a structured numpy array with one element per key, so that a batch is folded by vector operations and a row is
packed for the store by copying its bytes. Folds are exact (integers; the maximum of floats), so that the result does
not depend on how the events were cut into batches.
"""

from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from streams.batch.columns import Int64, Objects
from streams.batch.rows import Rows
from streams.operators.keyed import KeySegments, Segments

__all__ = ["Aggregate", "KeySegments", "Segments", "WindowAggregate"]


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
        """Rows that the next window of each key begins with, given the last window's: zeros, and carried values.

        Carried values should follow from the last window's own events, such as its last position: then many windows are
        folded at once. Other values work too, and cost a step per window.
        """

    def table(self, keys: Objects, start: Int64, end: Int64, revision: Int64, state: Rows) -> pa.RecordBatch:
        """Public rows, in the field order of the window's Avro schema; `start` and `end` (exclusive) in ms."""
