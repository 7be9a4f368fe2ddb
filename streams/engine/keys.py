"""Keys of a partition and their rows in memory: last released event and one row for each aggregate.

A write-back cache over the store: rows are loaded when their key first occurs, changed here, and written when the cycle
that changed them is committed. Between cycles, when nothing is in flight, keys can be dropped from memory.
"""

import struct
from collections.abc import Callable
from typing import Final

import numpy as np

from streams.operators.aggregate import Aggregate, Rows, Segments
from streams.operators.columns import TIME_MIN, Bools, Int64, Objects, objects
from streams.operators.reorder import LastDue
from streams.state.journal import DueRows
from streams.state.layout import LAST_DUE, aggregate_prefix
from streams.state.store import Store

_DUE: Final = struct.Struct("<qq")
_CAPACITY_MIN: Final = 256
_BYTES_PER_KEY: Final = 450
"""Rough memory of a key: dictionary entry, key, event id, rows."""


class KeyIndex:
    """Slots of keys; columns are indexed by slot."""

    def __init__(self, store: Store, aggregates: tuple[Aggregate, ...], belongs_here: Callable[[bytes], bool]) -> None:
        self._store = store
        self._belongs_here = belongs_here
        self._aggregates = aggregates
        self._slots: dict[bytes, int] = {}
        self._reset()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def bytes_used(self) -> int:
        """Approximate memory."""
        return len(self._slots) * _BYTES_PER_KEY

    def slots(self, keys: Objects) -> Int64:
        """Slot of each key, its rows loaded."""
        names: list[bytes] = keys.tolist()
        found = list(map(self._slots.get, names))
        if None not in found:
            return np.array(found, dtype=np.int64)
        new = list(dict.fromkeys(name for name, slot in zip(names, found, strict=True) if slot is None))
        self._load(new)
        return np.fromiter(map(self._slots.__getitem__, names), dtype=np.int64, count=len(names))

    def misrouted(self, slots: Int64) -> int:
        """How many of the events at `slots` have a key that belongs into another partition."""
        return int(np.count_nonzero(self._misrouted[slots])) if self._any_misrouted else 0

    def last_due(self) -> LastDue:
        """Last released event of every slot."""
        return LastDue(self._due_time, self._due_sequence, self._due_id)

    def fold(self, segments: Segments) -> None:
        """Fold released events into every aggregate, and note each key's last one."""
        for table, aggregate in enumerate(self._aggregates):
            rows = self._rows[table]
            rows[segments.slot] = aggregate.fold(rows[segments.slot], segments)
        last = segments.end
        self._due_time[segments.slot] = segments.event_time[last]
        self._due_sequence[segments.slot] = segments.sequence[last]
        self._due_id[segments.slot] = segments.last_id
        self._dirty[segments.slot] = True

    def take_changed(self) -> "ChangedKeys":
        """Rows of all keys that changed since the last call, as they are now."""
        slots = np.flatnonzero(self._dirty)
        self._dirty[slots] = False
        due = DueRows(self._keys[slots], self._due_time[slots], self._due_sequence[slots], self._due_id[slots])
        return ChangedKeys(due, [rows[slots] for rows in self._rows])

    def drop_all(self) -> None:
        """Forget all keys; only between cycles, when every row is in the store."""
        self._slots.clear()
        self._reset()

    def _reset(self) -> None:
        self._keys: Objects = objects([])
        self._due_time: Int64 = np.empty(0, dtype=np.int64)
        self._due_sequence: Int64 = np.empty(0, dtype=np.int64)
        self._due_id: Objects = objects([])
        self._dirty: Bools = np.empty(0, dtype=np.bool_)
        self._misrouted: Bools = np.empty(0, dtype=np.bool_)
        self._any_misrouted = False
        self._rows: list[Rows] = [np.empty(0, dtype=aggregate.dtype) for aggregate in self._aggregates]

    def _load(self, keys: list[bytes]) -> None:
        first = len(self._slots)
        self._reserve(first + len(keys))
        slots = range(first, first + len(keys))
        self._slots.update(zip(keys, slots, strict=True))
        self._keys[first : first + len(keys)] = objects(keys)
        for slot, key in zip(slots, keys, strict=True):
            if not self._belongs_here(key):
                self._misrouted[slot] = self._any_misrouted = True
        for slot, row in zip(slots, self._store.get_many([LAST_DUE + key for key in keys]), strict=True):
            if row is not None:
                self._due_time[slot], self._due_sequence[slot] = _DUE.unpack_from(row)
                self._due_id[slot] = row[_DUE.size :]
        for table, rows in enumerate(self._rows):
            prefix = aggregate_prefix(table)
            for slot, row in zip(slots, self._store.get_many([prefix + key for key in keys]), strict=True):
                if row is not None:
                    rows[slot] = np.frombuffer(row, dtype=rows.dtype)[0]

    def _reserve(self, count: int) -> None:
        old = len(self._keys)
        if count <= old:
            return
        more = max(_CAPACITY_MIN, count, old * 2) - old
        self._keys = np.concatenate([self._keys, objects([b""] * more)])
        self._due_time = np.concatenate([self._due_time, np.full(more, TIME_MIN)])
        self._due_sequence = np.concatenate([self._due_sequence, np.full(more, TIME_MIN)])
        self._due_id = np.concatenate([self._due_id, objects([b""] * more)])
        self._dirty = np.concatenate([self._dirty, np.zeros(more, dtype=np.bool_)])
        self._misrouted = np.concatenate([self._misrouted, np.zeros(more, dtype=np.bool_)])
        self._rows = [np.concatenate([rows, np.zeros(more, dtype=rows.dtype)]) for rows in self._rows]


class ChangedKeys:
    """Rows of changed keys: of each its last released event, and one row for each aggregate."""

    __slots__ = ("due", "rows")

    def __init__(self, due: DueRows, rows: list[Rows]) -> None:
        self.due = due
        self.rows = rows

    def puts(self) -> list[tuple[bytes, bytes]]:
        """The rows as pairs for the store."""
        keys: list[bytes] = self.due.key.tolist()
        pairs = due_puts(self.due)
        for table, rows in enumerate(self.rows):
            prefix = aggregate_prefix(table)
            pairs += [(prefix + key, row) for key, row in zip(keys, pack_rows(rows), strict=True)]
        return pairs


def due_puts(due: DueRows) -> list[tuple[bytes, bytes]]:
    """Last released events as pairs for the store."""
    columns = (due.key.tolist(), due.event_time.tolist(), due.sequence.tolist(), due.event_id.tolist())
    return [
        (LAST_DUE + key, _DUE.pack(event_time, sequence) + event_id)
        for key, event_time, sequence, event_id in zip(*columns, strict=True)
    ]


def pack_rows(rows: Rows) -> list[bytes]:
    """Each row's bytes, as kept in the store and in the table topic's `state.fold` header."""
    size, data = rows.dtype.itemsize, rows.tobytes()
    return [data[at : at + size] for at in range(0, len(data), size)]
