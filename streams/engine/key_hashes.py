"""Hashes of the keys of records: most keys repeat, so each hash is computed once where that is faster."""

from collections.abc import Callable
from typing import Final

import numpy as np

from streams.batch.columns import Int64
from streams.batch.key_hash import murmur2_all
from streams.batch.refs import KeyMap, RecordBytes
from streams.growth.forwarding import NO_KEY

_KEPT_BYTES_MAX: Final = 16 << 20
_BYTES_PER_KEY: Final = 100


class KeyHashes:
    """Key hashes of the records that one engine reads. One thread."""

    def __init__(self, new_map: Callable[[], KeyMap] | None) -> None:
        """`new_map` makes an empty native map; None: hashes are computed each time."""
        self._map = None if new_map is None else new_map()
        self._known: Int64 = np.empty(0, dtype=np.int64)
        self._bytes = 0

    def of(self, keys: RecordBytes) -> Int64:
        """The 31-bit hash of each key; `NO_KEY` where there is none."""
        found = np.full(len(keys), NO_KEY, dtype=np.int64)
        if self._map is None or isinstance(keys, list):
            rows = [row for row, key in enumerate(keys) if key is not None]
            found[rows] = murmur2_all([key for key in keys if key is not None])
            return found
        sizes = keys.sizes()
        rows_full = np.flatnonzero(sizes)
        found[rows_full] = self._looked_up(self._map, keys if len(rows_full) == len(keys) else keys.take(rows_full))
        for row in np.flatnonzero(sizes == 0).tolist():
            if (key := keys[row]) is not None:
                found[row] = murmur2_all([key])[0]
        return found

    def _looked_up(self, known: KeyMap, keys: RecordBytes) -> Int64:
        if self._bytes > _KEPT_BYTES_MAX:
            known.clear()
            self._known, self._bytes = self._known[:0], 0
        slots, fresh = known.slots(keys)  # type: ignore[arg-type]  # none of them is null
        if fresh:
            self._known = np.concatenate([self._known, murmur2_all(fresh)])
            self._bytes += sum(map(len, fresh)) + _BYTES_PER_KEY * len(fresh)
        return self._known[slots]
