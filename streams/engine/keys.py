"""Keys of a partition and their rows in memory: last released event, one row for each table and for each window.

A write-back cache over the store: rows are loaded when their key first occurs, changed here, and written when the cycle
that changed them is committed. Between cycles, when nothing is in flight, keys can be dropped from memory.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from streams.operators.aggregate import KeySegments, Rows
from streams.operators.columns import TIME_MIN, Bools, Int64, Objects, objects
from streams.operators.declaration import Pipeline, Window
from streams.operators.reorder import LastDue
from streams.operators.rows import empty_rows, pack_rows, text_bytes, unpack_rows
from streams.operators.windows import NEVER, Closed, Windows
from streams.state.journal import DueRows
from streams.state.layout import LAST_DUE, table_prefix, window_prefix
from streams.state.store import Store

_CONTRADICTIONS: Final = "contradictions"
_DUE: Final = struct.Struct("<qq")
_CAPACITY_MIN: Final = 256
_BYTES_PER_KEY: Final = 450
"""Rough memory of a key: dictionary entry, key, event id, rows."""


@dataclass(frozen=True, slots=True)
class ClosedWindows:
    """Windows of one declaration that closed: their keys, and their state."""

    window: Window
    keys: Objects
    rows: Rows
    """Of the layout of `operators.windows.Windows`."""


class KeyIndex:
    """Slots of keys; columns are indexed by slot."""

    def __init__(self, store: Store, pipeline: Pipeline, belongs_here: Callable[[bytes], bool]) -> None:
        self._store = store
        self._belongs_here = belongs_here
        self._aggregates = tuple(table.aggregate for table in pipeline.tables)
        self._declared = pipeline.windows
        self._operators = windows_of(pipeline)
        self._table_prefixes = [table_prefix(table.topic) for table in pipeline.tables]
        self._window_prefixes = [window_prefix(window.topic) for window in pipeline.windows]
        self._slots: dict[bytes, int] = {}
        self._closed: list[ClosedWindows] = []
        self._text_bytes = 0
        self.contradictions = 0
        """Events so far that contradicted their key's state; they were folded like any other."""
        self._reset()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def bytes_used(self) -> int:
        """Approximate memory."""
        return len(self._slots) * _BYTES_PER_KEY + self._text_bytes

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

    def misrouted_keys(self, slots: Int64, count_max: int) -> list[bytes]:
        """Up to `count_max` of the keys at `slots` that belong into another partition."""
        found: list[bytes] = self._keys[np.unique(slots[self._misrouted[slots]])[:count_max]].tolist()
        return found

    def last_due(self) -> LastDue:
        """Last released event of every slot."""
        return LastDue(self._due_time, self._due_sequence, self._due_id)

    def fold(self, released: KeySegments) -> None:
        """Fold released events into every table, and note each key's last one."""
        segments, slot = released.segments, released.slot
        for table, aggregate in enumerate(self._aggregates):
            rows = self._rows[table]
            before = rows[slot]
            after = aggregate.fold(before, segments)
            rows[slot] = after
            if _CONTRADICTIONS in (after.dtype.names or ()):
                self.contradictions += int(after[_CONTRADICTIONS].sum() - before[_CONTRADICTIONS].sum())
            if after.dtype.hasobject:
                self._text_bytes += text_bytes(after) - text_bytes(before)
        last = segments.end
        self._due_time[slot] = segments.event_time[last]
        self._due_sequence[slot] = segments.sequence[last]
        self._due_id[slot] = released.last_id
        self._dirty[slot] = True

    # --- windows ----------------------------------------------------------------------------------------------------

    def fold_windows(self, released: KeySegments) -> None:
        """Fold released events into every window."""
        for number, operator in enumerate(self._operators):
            rows = self._windows[number]
            after, closed = operator.fold(rows[released.slot], released.segments)
            rows[released.slot] = after
            self._note_closed(number, released.slot[closed.owner], closed)
            self._close_at_min[number] = min(self._close_at_min[number], int(after["close_at"].min()))

    def close_windows(self, watermark: int) -> bool:
        """Close the windows that the watermark has passed; says whether there were any."""
        any_closed = False
        for number, operator in enumerate(self._operators):
            if self._close_at_min[number] > watermark:
                continue
            rows = self._windows[number][: len(self._slots)]
            closed = operator.close(rows, watermark)
            self._close_at_min[number] = int(rows["close_at"].min(initial=NEVER))
            self._note_closed(number, closed.owner, closed)
            self._dirty[closed.owner] = True
            any_closed |= len(closed) > 0
        return any_closed

    def windows_close_at(self) -> int:
        """Watermark that closes the next window; the largest number when none is open."""
        return min((int(rows["close_at"].min(initial=NEVER)) for rows in self._windows), default=NEVER)

    def load_open_windows(self) -> None:
        """Load the keys whose windows are open in the store: the watermark may close them without an event."""
        for number, operator in enumerate(self._operators):
            prefix = self._window_prefixes[number]
            keys, packed = [], []
            for key, row in self._store.scan(prefix):
                keys.append(key[len(prefix) :])
                packed.append(row)
            is_open = unpack_rows(operator.dtype, packed)["close_at"] != NEVER
            self.slots(objects(keys)[is_open])

    def take_closed(self) -> list[ClosedWindows]:
        """Windows that have closed since the last call."""
        closed, self._closed = self._closed, []
        return closed

    def _note_closed(self, number: int, slots: Int64, closed: Closed) -> None:
        if len(closed):
            self._closed.append(ClosedWindows(self._declared[number], self._keys[slots], closed.rows))

    # --- cycles -----------------------------------------------------------------------------------------------------

    def take_changed(self) -> "ChangedKeys":
        """Rows of all keys that changed since the last call, as they are now."""
        slots = np.flatnonzero(self._dirty)
        self._dirty[slots] = False
        due = DueRows(self._keys[slots], self._due_time[slots], self._due_sequence[slots], self._due_id[slots])
        prefixes = [*self._table_prefixes, *self._window_prefixes]
        return ChangedKeys(due, [rows[slots] for rows in self._rows], [rows[slots] for rows in self._windows], prefixes)

    def drop_all(self) -> None:
        """Forget all keys but those with open windows; only between cycles, when every row is in the store."""
        with_open = [self._keys[np.flatnonzero(rows["close_at"] != NEVER)] for rows in self._windows]
        self._slots.clear()
        self._reset()
        for keys in with_open:
            self.slots(keys)

    def _reset(self) -> None:
        self._keys: Objects = objects([])
        self._due_time: Int64 = np.empty(0, dtype=np.int64)
        self._due_sequence: Int64 = np.empty(0, dtype=np.int64)
        self._due_id: Objects = objects([])
        self._dirty: Bools = np.empty(0, dtype=np.bool_)
        self._misrouted: Bools = np.empty(0, dtype=np.bool_)
        self._any_misrouted = False
        self._text_bytes = 0
        self._rows: list[Rows] = [empty_rows(aggregate.dtype, 0) for aggregate in self._aggregates]
        self._windows: list[Rows] = [operator.empty(0) for operator in self._operators]
        self._close_at_min: list[int] = [NEVER] * len(self._operators)

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
            self._fill(rows, first, self._table_prefixes[table], keys)
            self._text_bytes += text_bytes(rows[first : first + len(keys)])
        for number, rows in enumerate(self._windows):
            self._fill(rows, first, self._window_prefixes[number], keys)
            loaded = int(rows["close_at"][first : first + len(keys)].min())
            self._close_at_min[number] = min(self._close_at_min[number], loaded)

    def _fill(self, rows: Rows, first: int, prefix: bytes, keys: list[bytes]) -> None:
        """Rows of `keys`, which stand from slot `first` on, as the store has them."""
        packed = self._store.get_many([prefix + key for key in keys])
        found = [position for position, row in enumerate(packed) if row is not None]
        if found:
            known: list[Any] = [packed[position] for position in found]
            rows[first + np.array(found)] = unpack_rows(rows.dtype, known)

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
        self._rows = [np.concatenate([rows, empty_rows(rows.dtype, more)]) for rows in self._rows]
        self._windows = [
            np.concatenate([rows, operator.empty(more)])
            for rows, operator in zip(self._windows, self._operators, strict=True)
        ]


def windows_of(pipeline: Pipeline) -> tuple[Windows, ...]:
    """The window operators of a pipeline, in the order of its declaration."""
    return tuple(
        Windows(window.aggregate, size_ms=window.size_ms, grace_ms=window.grace_ms) for window in pipeline.windows
    )


class ChangedKeys:
    """Rows of changed keys: of each its last released event, one row for each table, and one for each window."""

    __slots__ = ("_prefixes", "due", "rows", "windows")

    def __init__(self, due: DueRows, rows: list[Rows], windows: list[Rows], prefixes: list[bytes]) -> None:
        self.due = due
        self.rows = rows
        self.windows = windows
        self._prefixes = prefixes

    def puts(self) -> list[tuple[bytes, bytes]]:
        """The rows as pairs for the store."""
        keys: list[bytes] = self.due.key.tolist()
        pairs = due_puts(self.due)
        for prefix, rows in zip(self._prefixes, [*self.rows, *self.windows], strict=True):
            pairs += [(prefix + key, row) for key, row in zip(keys, pack_rows(rows), strict=True)]
        return pairs


def due_rows(pairs: Sequence[tuple[bytes, bytes]]) -> DueRows:
    """Inverse of `due_puts`, of keys without their prefix."""
    times = [_DUE.unpack_from(row) for _, row in pairs]
    return DueRows(
        objects([key for key, _ in pairs]),
        np.array([event_time for event_time, _ in times], dtype=np.int64),
        np.array([sequence for _, sequence in times], dtype=np.int64),
        objects([row[_DUE.size :] for _, row in pairs]),
    )


def due_puts(due: DueRows) -> list[tuple[bytes, bytes]]:
    """Last released events as pairs for the store."""
    columns = (due.key.tolist(), due.event_time.tolist(), due.sequence.tolist(), due.event_id.tolist())
    return [
        (LAST_DUE + key, _DUE.pack(event_time, sequence) + event_id)
        for key, event_time, sequence, event_id in zip(*columns, strict=True)
    ]
