"""Dedup: the first copy in the log wins, within the horizon.

`IdSet` is the memory tier: an open-addressing hash set of 24-byte identities on numpy arrays. A whole micro-batch is
looked up and inserted in a handful of vector operations, at about 56 bytes an id (a Python set of 16-byte strings takes
90 and knows nothing of the event time).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.batch.columns import Bools, Int64, UInt64
from streams.batch.event_ids import AddIds, mix

_CAPACITY_MIN: Final = 1 << 10
_FAST_GROWTH_IDS: Final = 1 << 16
_TAIL_ROWS: Final = 12
BYTES_PER_SLOT: Final = 28


class IdSet:
    """Set of identities with first-wins insertion of whole batches.

    Deterministic: which rows are new depends on the set's content and the rows' order only, not on `seed`, which
    merely keeps a sender from choosing ids that collide; nor on whether they are inserted natively.
    """

    __slots__ = ("_add_ids", "_claim", "_count", "_hi", "_lo", "_seed", "_word")

    def __init__(self, seed: int = 0, add_ids: AddIds | None = None) -> None:
        """Create an empty set; `add_ids` inserts by the native library, None: by numpy."""
        self._seed = seed
        self._add_ids = add_ids
        self._count = 0
        self._allocate(_CAPACITY_MIN)

    def __len__(self) -> int:
        return self._count

    @property
    def bytes_used(self) -> int:
        """Memory of the arrays."""
        return len(self._word) * BYTES_PER_SLOT

    def add(self, hi: UInt64, lo: UInt64, word: UInt64) -> Bools:
        """Insert identities in row order; says of each row whether it was new (the first of equal rows is)."""
        self._reserve(self._count + len(word))
        new = self._added(hi, lo, word) if self._add_ids is None else self._natively(self._add_ids, hi, lo, word)
        self._count += int(np.count_nonzero(new))
        return new

    def _natively(self, add_ids: AddIds, hi: UInt64, lo: UInt64, word: UInt64) -> Bools:
        # Columns that were unpacked from a record stand where they stood in it.
        hi, lo, word = (np.require(column, requirements=["C", "A"]) for column in (hi, lo, word))
        return add_ids(self._hi, self._lo, self._word, self._seed, hi, lo, word)

    def _added(self, hi: UInt64, lo: UInt64, word: UInt64) -> Bools:
        new = np.zeros(len(word), dtype=np.bool_)
        mask = len(self._word) - 1
        hashed = mix(hi, lo, word, self._seed)
        at = (hashed >> np.uint64(64 - mask.bit_length())).astype(np.int64)
        # Double hashing: an odd step visits every place, and rows that collide once take different steps afterwards.
        step = (hashed & np.uint64(mask) | np.uint64(1)).astype(np.int64)
        row = np.arange(len(word), dtype=np.int32)
        while len(row) > _TAIL_ROWS:
            found = self._word[at]
            empty = found == 0
            # Free places go to the first row that asks (assigned backwards, so that the first row is written last).
            claimants, wanted = row[empty], at[empty]
            self._claim[wanted[::-1]] = claimants[::-1]
            won = self._claim[wanted] == claimants
            winners, taken = claimants[won], wanted[won]
            self._hi[taken], self._lo[taken], self._word[taken] = hi[winners], lo[winners], word[winners]
            new[winners] = True
            # Taken places: the same identity is a duplicate; another one sends the row on.
            others, met = row[~empty], at[~empty]
            differs = (found[~empty] != word[others]) | (self._hi[met] != hi[others]) | (self._lo[met] != lo[others])
            onward = others[differs]
            # Rows that lost look at the same place again: it now holds the winner, which may be the same identity.
            row = np.concatenate([claimants[~won], onward])
            at = np.concatenate([wanted[~won], (met[differs] + step[onward]) & mask])
        self._add_tail(row, at, step, hi, lo, word, new)
        return new

    def _add_tail(
        self, rows: NDArray[np.int32], places: Int64, step: Int64, hi: UInt64, lo: UInt64, word: UInt64, new: Bools
    ) -> None:
        """The last few rows one by one, in row order: cheaper than another round of vector operations."""
        mask = len(self._word) - 1
        for row, start in sorted(zip(rows.tolist(), places.tolist(), strict=True)):
            at = start
            while self._word[at] and (
                self._word[at] != word[row] or self._hi[at] != hi[row] or self._lo[at] != lo[row]
            ):
                at = (at + int(step[row])) & mask
            if not self._word[at]:
                self._hi[at], self._lo[at], self._word[at], new[row] = hi[row], lo[row], word[row], True

    def rows(self) -> tuple[UInt64, UInt64, UInt64]:
        """All identities, in no particular order."""
        used = self._word.nonzero()[0]
        return self._hi[used], self._lo[used], self._word[used]

    def retain(self, keep: Bools) -> None:
        """Keep only those rows of `rows()` for which `keep` is true, and give memory back."""
        hi, lo, word = self.rows()
        hi, lo, word = hi[keep], lo[keep], word[keep]
        self._count = 0
        self._allocate(_CAPACITY_MIN)
        self.add(hi, lo, word)

    def _reserve(self, count: int) -> None:
        if count * 2 <= len(self._word):
            return
        hi, lo, word = self.rows()
        growth = 4 if count < _FAST_GROWTH_IDS else 2
        self._allocate(1 << (count * growth - 1).bit_length())
        self._count = 0
        self.add(hi, lo, word)

    def _allocate(self, capacity: int) -> None:
        self._hi: UInt64 = np.empty(capacity, dtype=np.uint64)
        self._lo: UInt64 = np.empty(capacity, dtype=np.uint64)
        self._word: UInt64 = np.zeros(capacity, dtype=np.uint64)
        self._claim: NDArray[np.int32] = np.empty(0 if self._add_ids else capacity, dtype=np.int32)
