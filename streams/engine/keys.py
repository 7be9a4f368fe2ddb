"""Keys of a partition and their rows in memory: last released event, one row for each table and for each window.

A write-back cache over the store: rows are loaded when their key first occurs, changed here, and written when the cycle
that changed them is committed. Between cycles, when nothing is in flight, keys can be dropped from memory.
"""

import itertools
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streams.batch.columns import TIME_MIN, Bools, Int64, Objects, objects
from streams.batch.rows import Rows, empty_rows, pack_rows, text_bytes, unpack_rows
from streams.flow.declaration import Pipeline, Window
from streams.limits import ID_BYTES_MAX
from streams.operators.fold.aggregate import KeySegments
from streams.operators.reorder.judge import LastDue
from streams.operators.window.windows import NEVER, Closed, Windows
from streams.state.checkpoint import LAST_DUE, open_window_prefix, table_prefix, window_prefix
from streams.state.journal import DueRows
from streams.state.store import Store, WriteBatch, prefix_end

_CONTRADICTIONS: Final = "contradictions"
_DUE: Final = struct.Struct("<qq")
_CAPACITY_MIN: Final = 256
_BYTES_PER_KEY: Final = 180 + ID_BYTES_MAX
"""Rough memory of a key beyond its bytes and its places in arrays: dictionary entry, two objects, event id."""
_CHANGED_COPIES: Final = 10
"""How often a changed key is in memory while its cycle is committed: rows for the store, the journal, tables."""
_BYTES_PER_CHANGED_KEY: Final = 2_000
"""Rough memory of a changed key until its cycle is committed, beyond the copies of the key."""
_SCAN_ROWS: Final = 4_096
"""Rows of windows that are looked at together when open ones are looked for."""
_LOADED_MAX: Final = 10_000
"""Keys that are loaded from the store at once because the watermark has passed the ends of their windows."""
_CLOSE_AT: Final = struct.Struct(">q")


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
        self._open_prefixes = [open_window_prefix(window.topic) for window in pipeline.windows]
        self._slots: dict[bytes, int] = {}
        self._closed: list[ClosedWindows] = []
        self._waits_at = [NEVER] * len(self._operators)
        """Of each declaration, the least watermark that closes a window that is in the store only."""
        self._waited = [b""] * len(self._operators)
        """Where in the store those begin that were not loaded again yet."""
        self._forgotten = [False] * len(self._operators)
        """Whether some were loaded since the last cycle: what is before `_waited` can be deleted."""
        self._changed_bytes = 0
        self.contradictions = 0
        """Events so far that contradicted their key's state; they were folded like any other."""
        self._reset()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def bytes_used(self) -> int:
        """Approximate memory."""
        columns = (self._keys, self._due_time, self._due_sequence, self._due_id, self._key_bytes)
        arrays = sum(column.nbytes for column in (*columns, *self._rows, *self._windows))
        return arrays + len(self._slots) * _BYTES_PER_KEY + self._text_bytes

    @property
    def changed_bytes(self) -> int:
        """Approximate memory that committing the changed keys takes."""
        return self._changed_bytes

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
        self._touch(slot)

    def _touch(self, slot: Int64) -> None:
        new = slot[~self._dirty[slot]]
        self._changed_bytes += len(new) * _BYTES_PER_CHANGED_KEY + _CHANGED_COPIES * int(self._key_bytes[new].sum())
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
        """Close windows that the watermark has passed; says whether anything has changed.

        All that are in memory, and in each cycle `_LOADED_MAX` of those that are in the store only; `windows_close_at`
        says whether there are more. When a window is closed changes nothing about its rows.
        """
        has_changed = False
        for number, operator in enumerate(self._operators):
            if self._waits_at[number] <= watermark and not self._forgotten[number]:
                self._load_waiting(number, watermark)
                has_changed = True
            if self._close_at_min[number] > watermark:
                continue
            rows = self._windows[number][: len(self._slots)]
            closed = operator.close(rows, watermark)
            self._close_at_min[number] = int(rows["close_at"].min(initial=NEVER))
            self._note_closed(number, closed.owner, closed)
            self._touch(closed.owner)
            has_changed |= len(closed) > 0
        return has_changed

    def windows_close_at(self) -> int:
        """Watermark that closes the next window; the largest number when none is open."""
        mins = (int(rows["close_at"].min(initial=NEVER)) for rows in self._windows)
        return min([*self._waits_at, *mins], default=NEVER)

    def has_overdue_windows(self, watermark: int) -> bool:
        """Whether `close_windows` has left some for the next cycle."""
        return any(waits_at <= watermark for waits_at in self._waits_at)

    def load_open_windows(self) -> None:
        """Find the windows that are open in the store: the watermark may close them without an event.

        Reads the rows of all windows, a bounded number at a time, and remembers the open ones in the store.
        """
        for number, operator in enumerate(self._operators):
            open_prefix = self._open_prefixes[number]
            self._store.write(WriteBatch(delete_ranges=[(open_prefix, prefix_end(open_prefix))]))
            self._waits_at[number] = NEVER
            prefix = self._window_prefixes[number]
            rows = self._store.scan(prefix)
            while some := list(itertools.islice(rows, _SCAN_ROWS)):
                close_at = unpack_rows(operator.dtype, [row for _, row in some])["close_at"]
                batch = WriteBatch()
                is_open = np.flatnonzero(close_at != NEVER)
                self._let_wait(number, [some[row][0][len(prefix) :] for row in is_open], close_at[is_open], batch)
                self._store.write(batch)

    def _let_wait(self, number: int, keys: Iterable[bytes], close_at: Int64, batch: WriteBatch) -> None:
        """Have `batch` remember open windows of keys that will not be in memory."""
        prefix = self._open_prefixes[number]
        self._waited[number] = b""  # what was loaded before is deleted by now, and these may close earlier than it did
        batch.puts += [
            (prefix + _CLOSE_AT.pack(at) + key, b"") for key, at in zip(keys, close_at.tolist(), strict=True)
        ]
        self._waits_at[number] = min(self._waits_at[number], int(close_at.min(initial=NEVER)))

    def _load_waiting(self, number: int, watermark: int) -> None:
        """Load keys whose windows were remembered in the store and are passed by the watermark, in their order.

        What is remembered may be no longer so: the key's window was loaded and closed meanwhile. That does no harm.
        """
        prefix = self._open_prefixes[number]
        end = prefix + _CLOSE_AT.pack(watermark + 1)
        keys: list[bytes] = []
        upto = prefix_end(prefix)
        self._waits_at[number] = NEVER
        for row, _ in self._store.scan(prefix):
            if row < self._waited[number]:
                continue  # loaded before, and not yet deleted
            if row >= end or len(keys) == _LOADED_MAX:
                self._waits_at[number] = _CLOSE_AT.unpack_from(row, len(prefix))[0]
                upto = row
                break
            keys.append(row[len(prefix) + _CLOSE_AT.size :])
        self._waited[number], self._forgotten[number] = min(upto, end), True
        if keys:
            self.slots(objects(keys))

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
        self._changed_bytes = 0
        due = DueRows(self._keys[slots], self._due_time[slots], self._due_sequence[slots], self._due_id[slots])
        prefixes = [*self._table_prefixes, *self._window_prefixes]
        return ChangedKeys(due, [rows[slots] for rows in self._rows], [rows[slots] for rows in self._windows], prefixes)

    def take_forgotten(self) -> list[tuple[bytes, bytes]]:
        """Ranges of the store, to be deleted with the cycle's rows, that say nothing any more."""
        columns = zip(self._open_prefixes, self._waited, self._forgotten, strict=True)
        ranges = [(prefix, waited) for prefix, waited, forgotten in columns if forgotten]
        self._forgotten = [False] * len(self._operators)
        return ranges

    def drop_all(self, batch: WriteBatch) -> None:
        """Forget all keys; only between cycles, when every row is in the store.

        `batch` remembers which of them have open windows; it must be written before any other method is called.
        """
        for number, rows in enumerate(self._windows):
            slots = np.flatnonzero(rows["close_at"] != NEVER)
            self._let_wait(number, self._keys[slots].tolist(), rows["close_at"][slots], batch)
        self._slots.clear()
        self._reset()

    def _reset(self) -> None:
        self._keys: Objects = objects([])
        self._due_time: Int64 = np.empty(0, dtype=np.int64)
        self._due_sequence: Int64 = np.empty(0, dtype=np.int64)
        self._due_id: Objects = objects([])
        self._dirty: Bools = np.empty(0, dtype=np.bool_)
        self._misrouted: Bools = np.empty(0, dtype=np.bool_)
        self._key_bytes: NDArray[np.int32] = np.empty(0, dtype=np.int32)
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
        sizes = np.fromiter(map(len, keys), np.int32, len(keys))
        self._key_bytes[first : first + len(keys)] = sizes
        self._text_bytes += int(sizes.sum())
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
        self._key_bytes = np.concatenate([self._key_bytes, np.zeros(more, dtype=np.int32)])
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
