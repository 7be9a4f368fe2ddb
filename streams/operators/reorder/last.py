"""The last released event of each key: it decides whether an event below the watermark is late."""

import struct
from collections.abc import Sequence
from typing import Final

import numpy as np

from streams.batch.columns import TIME_MIN, Int64, Objects, objects
from streams.operators.keyed import ChangedKeys, KeySegments
from streams.operators.reorder.judge import LastDue
from streams.operators.reorder.section import DueRows
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

_ROW: Final = struct.Struct("<qq")  # event time, sequence; then the id


class LastReleased:
    """Columns over the slots of a key space."""

    def __init__(self, space: StoreSpace) -> None:
        self._space = space
        self._event_time: Int64
        self._sequence: Int64
        self._event_id: Objects
        self._clear()

    def due(self) -> LastDue:
        """Last released event of every slot."""
        return LastDue(self._event_time, self._sequence, self._event_id)

    def note(self, released: KeySegments) -> None:
        """Record released events."""
        segments, slot = released.segments, released.slot
        last = segments.end
        self._event_time[slot] = segments.event_time[last]
        self._sequence[slot] = segments.sequence[last]
        self._event_id[slot] = released.last_id

    def rows(self, changed: ChangedKeys) -> DueRows:
        """Rows of changed keys."""
        slots = changed.slots
        return DueRows(changed.keys, self._event_time[slots], self._sequence[slots], self._event_id[slots])

    @property
    def bytes_used(self) -> int:
        """Memory of the columns."""
        return self._event_time.nbytes + self._sequence.nbytes + self._event_id.nbytes

    def reserve(self, more: int) -> None:
        """Make room for so many more slots, without a released event."""
        self._event_time = np.concatenate([self._event_time, np.full(more, TIME_MIN)])
        self._sequence = np.concatenate([self._sequence, np.full(more, TIME_MIN)])
        self._event_id = np.concatenate([self._event_id, objects([b""] * more)])

    def load(self, first: int, keys: list[bytes]) -> None:
        """Take rows from the store."""
        for slot, row in enumerate(self._space.get_many(keys), first):
            if row is not None:
                self._event_time[slot], self._sequence[slot] = _ROW.unpack_from(row)
                self._event_id[slot] = row[_ROW.size :]

    def forget(self, keys: Objects, batch: WriteBatch) -> None:
        """Drop all rows."""
        del keys, batch
        self._clear()

    def _clear(self) -> None:
        self._event_time = np.empty(0, dtype=np.int64)
        self._sequence = np.empty(0, dtype=np.int64)
        self._event_id = objects([])


def due_pairs(due: DueRows) -> list[tuple[bytes, bytes]]:
    """Last released events as pairs for the store."""
    numbers = np.column_stack([due.event_time, due.sequence]).astype("<i8").tobytes()
    starts = range(0, len(numbers), _ROW.size)
    return [
        (key, numbers[at : at + _ROW.size] + event_id)
        for key, at, event_id in zip(due.key.tolist(), starts, due.event_id.tolist(), strict=True)
    ]


def due_rows(pairs: Sequence[tuple[bytes, bytes]]) -> DueRows:
    """Make rows of pairs; the inverse of `due_pairs`."""
    times = [_ROW.unpack_from(row) for _, row in pairs]
    return DueRows(
        objects([key for key, _ in pairs]),
        np.array([event_time for event_time, _ in times], dtype=np.int64),
        np.array([sequence for _, sequence in times], dtype=np.int64),
        objects([row[_ROW.size :] for _, row in pairs]),
    )
