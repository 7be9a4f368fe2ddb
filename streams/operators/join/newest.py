"""The newest row of each key of a table that is joined: in memory while its key is, in the store, and in the journal.

Such a row may be of any age, and the journal is cut off after a time: before that all rows of the store are written to
the journal again, some with each cycle (`Sweep`).
"""

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from streams.batch.columns import Bools, Int64
from streams.batch.rows import Rows, pack_rows, text_bytes, unpack_rows
from streams.operators.join.kept import Kept
from streams.operators.join.packed import as_declared, columns_of, dtype_of, pack_section, unpack_section
from streams.operators.keyed import KeySpace, KnownRows
from streams.state.journal import reading
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

_COLUMNS: Final = b"c"
"""Key of the row that says which columns rows have; rows are below `_ROWS`."""
_ROWS: Final = b"r"
_SHARES: Final = 256
"""Parts that the rows are divided into by their keys: a sweep goes through one after the other."""
_SWEPT_BYTES: Final = 500_000
"""Approximate bytes of rows that a cycle writes to the journal again."""
_REPLAYED_MAX: Final = 50_000


def _place(key: bytes) -> bytes:
    """Where the row of a key is in the store."""
    return _ROWS + bytes([zlib.crc32(key) % _SHARES]) + key


IsVoid = Callable[[Rows], Bools]


class Sweep:
    """Writes all rows to the journal again before the part that has them is cut off, a share of them with a cycle."""

    def __init__(self) -> None:
        self._all_from = -1
        """Journal offset from which on it has all rows; -1: not known, since a restart."""
        self._share = _SHARES
        """The next one to be written; none when all are."""
        self._begun_at = -1
        self._has_begun = False

    def needed(self, cut: int) -> int | None:
        """The oldest offset that is needed of those before `cut`; begins a sweep where there is one."""
        if self._all_from >= cut:
            return None
        if self._share == _SHARES:
            self._share, self._begun_at, self._has_begun = 0, -1, False
        return max(0, self._all_from)

    def next(self, rows: "NewestRows") -> list[bytes]:
        """Pieces of the next shares, about `_SWEPT_BYTES`."""
        pieces: list[bytes] = []
        while self._share < _SHARES and sum(map(len, pieces)) < _SWEPT_BYTES:
            pieces += rows.share(self._share)
            self._share += 1
            self._has_begun = True
        return pieces

    def applied(self, journal_first: int) -> None:
        """What `next` has given is in the journal from this offset on."""
        if not self._has_begun:
            return
        if self._begun_at < 0:
            self._begun_at = journal_first
        if self._share == _SHARES:
            self._all_from, self._has_begun = self._begun_at, False


class NewestRows(KnownRows):
    """The newest row of each key of a joined table, in one partition. Attached to the partition's key space."""

    def __init__(self, empty: Rows, space: StoreSpace, keys: KeySpace, kept: Kept) -> None:
        """`empty`: one row, that of a key without any; `kept` says which keys the partition keeps state of."""
        super().__init__(empty, space)
        self._keys, self._kept = keys, kept
        self._dtype: np.dtype[Any] = empty.dtype
        self._changed: list[Int64] = []
        self._written: dict[bytes, int] = {}
        self._written_rows: Rows = empty[:0]
        """Rows of the cycle before, by key: it may be in flight, and not in the store."""
        self._replayed = WriteBatch()
        self._sweep = Sweep()
        keys.attach(self)

    def load(self, first: int, keys: list[bytes]) -> None:
        """Take rows from the store."""
        packed = self._space.get_many([_place(key) for key in keys])
        found = [position for position, row in enumerate(packed) if row is not None]
        if found:
            self._loaded(first + np.array(found), unpack_rows(self._dtype, [row for row in packed if row is not None]))
        self._text_bytes += text_bytes(self.rows[first : first + len(keys)])

    def put(self, slots: Int64, after: Rows, before: Rows) -> None:
        """Set rows; they are written with the cycle."""
        super().put(slots, after, before)
        self._changed.append(slots)

    # --- the commit cycle -------------------------------------------------------------------------------------------

    @property
    def has_changed(self) -> bool:
        """Whether rows of the open cycle are to be written."""
        return bool(self._changed)

    def take_changed(self, batch: WriteBatch) -> list[bytes]:
        """Pieces of a section with the rows that have changed, and those that are due again; `batch` puts the first."""
        pieces = self._sweep.next(self)
        if self._changed:
            slots = np.unique(np.concatenate(self._changed))
            self._changed = []
            keys, rows = self._keys.keys_at(slots).tolist(), self.of(slots)
            self._put(batch, keys, rows)
            self._written, self._written_rows = {key: at for at, key in enumerate(keys)}, rows
            pieces = [*pieces, *pack_section(keys, rows)]  # after what the store had before
        return pieces

    def applied(self, journal_first: int) -> None:
        """The newest changes are committed."""
        self._sweep.applied(journal_first)

    def journal_needed(self, cut: int) -> int | None:
        """The oldest journal offset that is needed of those before `cut`, as `Operator.journal_needed`."""
        return self._sweep.needed(cut)

    # --- restore ----------------------------------------------------------------------------------------------------

    def replay(self, section: memoryview, *, is_new: bool) -> int:
        """Take the rows of a piece that the store lacks; returns how many there are in it."""
        keys, rows = unpack_section(section, self._dtype)
        if is_new:
            self._put(self._replayed, keys, rows)
            if len(self._replayed.puts) > _REPLAYED_MAX:
                self.write_replayed()
        return len(rows)

    def forget_keys(self, keys: Sequence[bytes]) -> None:
        """While the journal is read: nothing is known of these keys any more."""
        self.write_replayed()
        self._space.delete(self._replayed, map(_place, keys))
        self.write_replayed()

    def write_replayed(self) -> None:
        """Write what was read of the journal; before that, all rows in the columns as they are declared now."""
        before = self._dtype_there()
        if before is None or before != self._dtype:
            batch = WriteBatch()
            self._space.put(batch, [(_COLUMNS, json.dumps(columns_of(self._dtype)).encode())])
            if before is not None:
                for pairs in self._pairs():
                    rows = as_declared(unpack_rows(before, [row for _, row in pairs]), self._dtype)
                    self._put(batch, [key for key, _ in pairs], rows)
            self._space.write(batch)
        self._space.write(self._replayed)
        self._replayed = WriteBatch()

    def _dtype_there(self) -> np.dtype[Any] | None:
        """Columns of the rows of the store; None: there are none."""
        (known,) = self._space.get_many([_COLUMNS])
        if known is None:
            return None
        with reading():
            return dtype_of(json.loads(known))

    def snapshot(self) -> list[bytes]:
        """Pieces of a section with all rows of the store."""
        return [piece for share in range(_SHARES) for piece in self.share(share)]

    def share(self, number: int) -> list[bytes]:
        """Pieces of a section with the rows of one share of the keys."""
        skip = len(_ROWS) + 1
        pairs = [(key[skip:], row) for key, row in self._space.scan(_ROWS + bytes([number]))]
        if pairs and (kept := self._kept([key for key, _ in pairs])) is not None:
            pairs = [pairs[at] for at in np.flatnonzero(kept)]
        there = self._dtype_there() or self._dtype
        rows = as_declared(unpack_rows(there, [row for _, row in pairs]), self._dtype)
        for at, (key, _) in enumerate(pairs):
            if (newer := self._written.get(key)) is not None:
                rows[at] = self._written_rows[newer]
        return pack_section([key for key, _ in pairs], rows)

    # --- between cycles ---------------------------------------------------------------------------------------------

    def expire(self, batch: WriteBatch, is_void: IsVoid) -> None:
        """Delete the rows of the store that are void; reads all of them."""
        for pairs in self._pairs():
            void = is_void(unpack_rows(self._dtype, [row for _, row in pairs]))
            self._space.delete(batch, [_place(pairs[at][0]) for at in np.flatnonzero(void)])

    def _pairs(self) -> Iterator[list[tuple[bytes, bytes]]]:
        skip = len(_ROWS) + 1
        for number in range(_SHARES):
            if pairs := [(key[skip:], row) for key, row in self._space.scan(_ROWS + bytes([number]))]:
                yield pairs

    def _put(self, batch: WriteBatch, keys: Sequence[bytes], rows: Rows) -> None:
        self._space.put(batch, zip(map(_place, keys), pack_rows(rows), strict=True))
