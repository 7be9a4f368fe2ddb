"""Rows of one side of a join in the store: by bucket of event time and key, so that old ones go a bucket at a time."""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from streams.batch.columns import Int64
from streams.batch.rows import Rows
from streams.operators.join.packed import Columns, as_declared, columns_of, dtype_of, pack_values, unpack_values
from streams.state.journal import reading
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

NUMBER: Final = "number"
TIME: Final = "time"
_BUCKET: Final = struct.Struct(">q")
_INDEX: Final = b"i"
"""Key of the row that says what the store has; rows of events are below `_ROWS`."""
_ROWS: Final = b"r"
_PREFIX_BYTES: Final = len(_ROWS) + _BUCKET.size


def _prefix(bucket: int) -> bytes:
    """What the store's keys of a bucket begin with, before those of its events."""
    return _ROWS + _BUCKET.pack(bucket)


@dataclass(slots=True)
class _Index:
    """What the store has."""

    below: int
    """All rows with numbers below this, as far as they still matter."""
    bucket_ms: int
    columns: Columns
    """Columns of the rows, in the order in which the rows are stored."""
    buckets: list[int]

    def pack(self) -> bytes:
        return json.dumps([self.below, self.bucket_ms, self.columns, self.buckets]).encode()

    @staticmethod
    def unpack(data: bytes) -> "_Index":
        with reading():
            below, bucket_ms, columns, buckets = json.loads(data)
            return _Index(int(below), int(bucket_ms), columns, [int(bucket) for bucket in buckets])


class BucketedRows:
    """Rows of one partition in the store. Rows of a key and bucket are one value, in the order of their arrival."""

    def __init__(self, dtype: np.dtype[Any], bucket_ms: int, space: StoreSpace) -> None:
        """Rows of `dtype`, which has `NUMBER` and `TIME`; a bucket is so many milliseconds of event time."""
        self._dtype, self._bucket_ms, self._space = dtype, bucket_ms, space
        self._known: _Index | None = None

    @property
    def _index(self) -> _Index:
        if self._known is None:
            (row,) = self._space.get_many([_INDEX])
            new = _Index(0, self._bucket_ms, columns_of(self._dtype), [])
            self._known = new if row is None else _Index.unpack(row)
        return self._known

    @property
    def below(self) -> int:
        """All rows with numbers below this are here, as far as they still matter."""
        return self._index.below

    def buckets(self, low: int, below: int | None = None) -> list[int]:
        """Buckets that may hold rows from time `low`, and before `below` where that is given."""
        size = self._index.bucket_ms
        return [one for one in self._index.buckets if (one + 1) * size > low and (below is None or one * size < below)]

    def begins(self, bucket: int) -> int:
        """Time of the oldest row that a bucket may hold."""
        return bucket * self._index.bucket_ms

    def keys_in(self, bucket: int) -> list[bytes]:
        """Keys that have rows in a bucket."""
        return [key[_PREFIX_BYTES:] for key, _ in self._space.scan(_prefix(bucket))]

    def of_keys(self, keys: Sequence[bytes], low: int) -> Iterator[tuple[Int64, Rows]]:
        """Rows of keys in the buckets from time `low` on, oldest bucket first: of each row the place of its key."""
        for bucket in self.buckets(low):
            start = _prefix(bucket)
            found = self._space.get_many([start + key for key in keys])
            places = [at for at, value in enumerate(found) if value is not None]
            if places:
                values = [value for value in found if value is not None]
                counts, rows = unpack_values(values, dtype_of(self._index.columns))
                yield np.repeat(np.array(places, dtype=np.int64), counts), as_declared(rows, self._dtype)

    def all(self) -> Iterator[tuple[list[bytes], Rows]]:
        """Keys and rows, bucket after bucket."""
        dtype = dtype_of(self._index.columns)
        for bucket in self._index.buckets:
            pairs = list(self._space.scan(_prefix(bucket)))
            counts, rows = unpack_values([value for _, value in pairs], dtype)
            named = zip(pairs, counts.tolist(), strict=True)
            yield (
                [key[_PREFIX_BYTES:] for (key, _), count in named for _ in range(count)],
                as_declared(rows, self._dtype),
            )

    def put(self, batch: WriteBatch, keys: list[bytes], rows: Rows, cutoff: int) -> None:
        """Have `batch` put rows; those older than `cutoff` are left out. Not twice with one batch."""
        index = self._index
        fresh = rows[TIME] >= cutoff
        index.below = max(index.below, int(rows[NUMBER].max()) + 1)
        order = np.lexsort((rows[NUMBER], rows[TIME] // self._bucket_ms))
        order = order[fresh[order]]
        by_place: dict[tuple[int, bytes], list[int]] = {}
        for at, bucket in zip(order.tolist(), (rows[TIME][order] // self._bucket_ms).tolist(), strict=True):
            by_place.setdefault((bucket, keys[at]), []).append(at)
        if by_place:
            index.buckets = sorted({*index.buckets, *(bucket for bucket, _ in by_place)})
            names = [_prefix(bucket) + key for bucket, key in by_place]
            together = rows[[at for one in by_place.values() for at in one]]
            ends = np.cumsum([len(one) for one in by_place.values()]).tolist()
            before = self._space.get_many(names)
            values = zip(names, before, pack_values(together, ends), strict=True)
            self._space.put(batch, [(name, (there or b"") + value) for name, there, value in values])
        self._space.put(batch, [(_INDEX, index.pack())])

    def delete_keys(self, batch: WriteBatch, keys: Sequence[bytes]) -> None:
        """Have `batch` delete all rows of keys."""
        for bucket in self._index.buckets:
            self._space.delete(batch, [_prefix(bucket) + key for key in keys])

    def expire(self, batch: WriteBatch, cutoff: int) -> list[int]:
        """Have `batch` delete the buckets that hold nothing from `cutoff` on; returns them."""
        index = self._index
        gone = [bucket for bucket in index.buckets if (bucket + 1) * index.bucket_ms <= cutoff]
        if gone:
            for bucket in gone:
                self._space.delete_range(batch, _prefix(bucket), _prefix(bucket + 1))
            index.buckets = [bucket for bucket in index.buckets if bucket not in gone]
            self._space.put(batch, [(_INDEX, index.pack())])
        return gone

    @property
    def is_as_declared(self) -> bool:
        """Whether buckets and columns are those that are declared now."""
        return self._index.bucket_ms == self._bucket_ms and self._index.columns == columns_of(self._dtype)

    def lay_out_again(self, cutoff: int) -> None:
        """Write the rows in buckets and columns as they are declared now."""
        found = list(self.all())
        below = self._index.below
        batch = WriteBatch()
        self._space.clear(batch)
        self._known = _Index(below, self._bucket_ms, columns_of(self._dtype), [])
        self._space.put(batch, [(_INDEX, self._known.pack())])
        self._space.write(batch)
        for keys, rows in found:
            batch = WriteBatch()
            self.put(batch, keys, rows, cutoff)
            self._space.write(batch)

    def write(self, batch: WriteBatch) -> None:
        """Write a batch now: while the journal is read."""
        self._space.write(batch)
