"""Rows by key to which something happens when the watermark passes a time of theirs, whether in memory or not."""

import itertools
import struct
from typing import Final

import numpy as np

from streams.batch.columns import Int64, Objects, objects
from streams.batch.rows import Rows, unpack_column
from streams.growth.home import Home
from streams.operators.keyed import KeySpace, StoredRows
from streams.operators.trace import NEVER
from streams.state.codec import SIZE, ColumnReader, pack_texts
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

_SCAN_ROWS: Final = 4_096
"""Rows that are looked at together when those that are due once are looked for."""
_LOADED_MAX: Final = 2_000
"""Keys that are loaded from the store at once because the watermark has passed their times."""
_TOGETHER_MAX: Final = 32
"""Keys that are remembered in one row of the store, by the earliest of their times."""
_DUE: Final = struct.Struct(">q")


class TimedRows(StoredRows):
    """Rows by key, each with the watermark at which something happens to it: `NEVER`, or a time in its column `due`.

    Rows of keys that are not in memory are remembered in a part of the store in the order of these times.
    """

    def __init__(self, empty: Rows, space: StoreSpace, waiting: StoreSpace, home: Home, due: str = "close_at") -> None:
        """`waiting`: the part of the store for times of keys that are not in memory; `due`: the column of times."""
        super().__init__(empty, space)
        self._waiting = waiting
        self._home = home
        self._due = due
        self.due_min = NEVER
        """No row in memory is due below this watermark."""
        self.waits_at = NEVER
        """Least watermark at which a row that is in the store only is due."""
        self._upto = b""
        """Where in the store those begin that were not loaded again yet."""
        self._serial = 0
        """Serial of the newest row that keeps some: each process writes such rows again (`find_open`)."""
        self.has_loaded = False
        """Whether some were loaded since the last cycle: what is before `_upto` can be deleted."""

    def load(self, first: int, keys: list[bytes]) -> None:
        """Take rows from the store."""
        super().load(first, keys)
        loaded = int(self.rows[self._due][first : first + len(keys)].min())
        self.due_min = min(self.due_min, loaded)

    def forget(self, keys: Objects, batch: WriteBatch) -> None:
        """Drop all rows; `batch` remembers when which of them are due."""
        slots = (self.rows[self._due] != NEVER).nonzero()[0]
        self._let_wait(keys[slots].tolist(), self.rows[self._due][slots], batch)
        super().forget(keys, batch)
        self.due_min = NEVER

    def find_open(self) -> None:
        """Remember the times of all rows of the store; reads a bounded number at a time. For `rows_restored`."""
        batch = WriteBatch()
        self._waiting.clear(batch)
        self._space.write(batch)
        self.waits_at = NEVER
        for keys, rows in self._space.pages(_SCAN_ROWS):
            due = unpack_column(self.rows.dtype, rows, self._due)
            is_timed = due != NEVER
            timed, times = list(itertools.compress(keys, is_timed.tolist())), due[is_timed]
            if (kept := self._home.kept(timed)) is not None:
                timed, times = list(itertools.compress(timed, kept.tolist())), times[kept]
            batch = WriteBatch()
            self._let_wait(timed, times, batch)
            self._space.write(batch)

    def _let_wait(self, keys: list[bytes], due: Int64, batch: WriteBatch) -> None:
        """Have `batch` remember times of keys that will not be in memory.

        Some that follow each other are remembered in one row by the first one's time, and are loaded together.
        """
        self._upto = b""  # what was loaded before is deleted by now, and these may be due earlier than it was
        order = np.argsort(due, kind="stable")
        times, sorted_keys = due[order].tolist(), [keys[row] for row in order.tolist()]
        pairs: list[tuple[bytes, bytes]] = []
        for first in range(0, len(times), _TOGETHER_MAX):
            some = sorted_keys[first : first + _TOGETHER_MAX]
            self._serial += 1
            name = _DUE.pack(times[first]) + SIZE.pack(self._serial)
            pairs.append((name, b"".join([SIZE.pack(len(some)), *pack_texts(some)])))
        self._waiting.put(batch, pairs)
        self.waits_at = min(self.waits_at, int(due.min(initial=NEVER)))

    def next_timer(self) -> int:
        """Watermark at which the next row is due, in memory or not."""
        return min(self.waits_at, int(self.rows[self._due].min(initial=NEVER)))

    def load_waiting(self, watermark: int, keys: KeySpace) -> None:
        """Bring rows into memory that the watermark has passed; at most `_LOADED_MAX`, once in a cycle.

        `waits_at` says whether there are more. A time may no longer be that of its row, which was loaded and changed
        meanwhile.
        """
        if self.waits_at <= watermark and not self.has_loaded and (waiting := self._take_waiting(watermark)):
            keys.slots(objects(waiting))

    def _take_waiting(self, watermark: int) -> list[bytes]:
        """Keys that were remembered in the store and are passed by the watermark, in the order of their times."""
        end = _DUE.pack(watermark + 1)
        keys: list[bytes] = []
        self.waits_at, upto = NEVER, end
        for row, packed in self._waiting.scan():
            if row < self._upto:
                continue  # loaded before, and not yet deleted
            if row >= end or len(keys) + _count_of(packed) > max(_LOADED_MAX, _count_of(packed)):
                self.waits_at = _DUE.unpack_from(row)[0]
                upto = row
                break
            keys += _keys_of(packed)
        self._upto, self.has_loaded = min(upto, end), True
        kept = self._home.kept(keys)
        return keys if kept is None else list(itertools.compress(keys, kept.tolist()))

    def delete_loaded(self, batch: WriteBatch) -> None:
        """Have `batch` delete the times of rows that were loaded in this cycle. For `changes`."""
        if self.has_loaded:
            self._waiting.delete_range(batch, b"", self._upto)
        self.has_loaded = False


def _count_of(packed: bytes) -> int:
    return int(SIZE.unpack_from(packed)[0])


def _keys_of(packed: bytes) -> list[bytes]:
    columns = ColumnReader(memoryview(packed))
    found: list[bytes] = columns.texts(columns.size()).tolist()
    return found
