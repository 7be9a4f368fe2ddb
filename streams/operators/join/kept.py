"""Rows of one side of a join that matter for a time: those of each key, in the order in which they were passed.

A key's rows are in memory while the key is: new ones from the cycle in which they come, earlier ones from when the key
is met. The journal has the rows of each cycle; the store has them once they had to leave memory, by bucket of event
time and key, so that what is too old is deleted a bucket at a time.

Rows are numbered in the order in which they are passed, which of one key is that of their event times. Numbers say
which rows the store has, and which ones an event may be joined with: those before it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final

import numpy as np

from streams.batch.columns import TIME_MIN, Bools, Int64, Objects, objects
from streams.batch.rows import Rows, empty_rows
from streams.operators.join.bucketed import NUMBER, TIME, BucketedRows
from streams.operators.join.chunk import Chunk
from streams.operators.join.packed import memory_of, pack_section, unpack_section
from streams.operators.keyed import KeySpace
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

_BUCKETS: Final = 8
"""Number of buckets of the store in the time for which rows matter."""

Kept = Callable[[Sequence[bytes]], Bools | None]


@dataclass(frozen=True, slots=True)
class Matches:
    """Rows that were found for queries."""

    query: Int64
    """Position of the query of each row, ascending."""
    rows: Rows
    """Rows found; those of one query in the order in which they were passed."""
    beyond: int = 0
    """Rows that were left out since a query had more than it may have."""


class KeptRows:
    """The rows of one side of a join that one partition keeps. Attached to the partition's key space."""

    def __init__(self, dtype: np.dtype[Any], keep_ms: int, space: StoreSpace, keys: KeySpace, kept: Kept) -> None:
        """Rows of `dtype`, which has `NUMBER` and `TIME`; they matter until the watermark is `keep_ms` beyond them.

        `kept` says which keys the partition keeps state of.
        """
        self._dtype, self._keep_ms, self._keys, self._kept = dtype, keep_ms, keys, kept
        self._bucket_ms = keep_ms // _BUCKETS + 1
        self._stored = BucketedRows(dtype, self._bucket_ms, space)
        self._chunks: list[Chunk] = []
        self._came: list[tuple[Int64, Rows]] = []
        """Slots and rows of the open cycle."""
        self._came_bytes = 0
        self._unplaced: list[tuple[list[bytes], Rows]] = []
        """Keys and rows that a restore has read, and that the store lacks: their keys are looked up later."""
        self._unplaced_bytes = 0
        self._cutoff = TIME_MIN
        self._loaded: set[int] = set()
        """Buckets of the store of which every key is in memory."""
        self._expired = TIME_MIN
        self._next = 0
        keys.attach(self)

    # --- rows in memory ---------------------------------------------------------------------------------------------

    @property
    def next_number(self) -> int:
        """A number above those of all rows that still matter."""
        return max(self._next, self._stored.below)

    def add(self, slots: Int64, rows: Rows) -> None:
        """New rows, in the order in which they are passed, their numbers ascending."""
        if not len(rows):
            return
        self._came.append((slots, rows))
        self._came_bytes += memory_of(rows)
        self._next = int(rows[NUMBER][-1]) + 1
        self._append(Chunk.of(slots, rows))

    def _append(self, chunk: Chunk) -> None:
        """Add a chunk; those of about the same size become one, without what is too old."""
        self._chunks.append(chunk)
        while len(self._chunks) > 1 and len(self._chunks[-2]) <= 2 * len(self._chunks[-1]):
            newer, older = self._chunks.pop(), self._chunks.pop()
            slot, rows = np.concatenate([older.slot, newer.slot]), np.concatenate([older.rows, newer.rows])
            fresh = rows[TIME] >= self._cutoff
            self._chunks.append(Chunk.of(slot, rows) if fresh.all() else Chunk.of(slot[fresh], rows[fresh]))

    def passed(self, watermark: int) -> None:
        """What comes from now on is passed at this watermark, or later."""
        if watermark > TIME_MIN:
            self._cutoff = max(self._cutoff, watermark - self._keep_ms)

    def place(self) -> None:
        """Bring what a restore has left into memory; before rows are asked for."""
        unplaced, self._unplaced, self._unplaced_bytes = self._unplaced, [], 0
        for keys, rows in unplaced:
            slots = self._keys.slots(objects(keys))
            self._append(Chunk.of(slots, rows))

    def latest(self, slots: Int64, low: Int64, high: Int64, before: Int64, column: str = NUMBER) -> tuple[Bools, Rows]:
        """For each query, find the last row of its slot from time `low` to `high` with a number below `before`.

        Another `column` than the number ascends with it. Returns which queries have one, and a row for each query.
        """
        found, rows = np.zeros(len(slots), dtype=np.bool_), empty_rows(self._dtype, len(slots))
        left = np.arange(len(slots))
        for chunk in reversed(self._chunks):
            if not len(left):
                break
            place = chunk.last(slots[left], low[left], high[left], before[left], column)
            hit = place >= 0
            rows[left[hit]] = chunk.rows[place[hit]]
            found[left[hit]] = True
            left = left[~hit]
        return found, rows

    def between(self, slots: Int64, low: Int64, high: Int64, before: Int64, at_most: int) -> Matches:
        """For each query, find the rows of its slot from time `low` to `high` with a number below `before`.

        Those that were passed last, if there are more than `at_most`.
        """
        spans = [(chunk, *chunk.ends(slots, low, high, before, NUMBER)) for chunk in self._chunks]
        left = np.full(len(slots), at_most, dtype=np.int64)
        queries: list[Int64] = []
        parts: list[Rows] = []
        beyond = 0
        for chunk, start, end in reversed(spans):
            count = np.minimum(np.maximum(end - start, 0), left)
            beyond += int((np.maximum(end - start, 0) - count).sum())
            left -= count
            if not count.any():
                continue
            query = np.repeat(np.arange(len(slots)), count)
            offset = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
            queries.append(query)
            parts.append(chunk.rows[np.repeat(end - count, count) + offset])
        if not queries:
            return Matches(np.empty(0, dtype=np.int64), empty_rows(self._dtype, 0), beyond)
        query, rows = np.concatenate(queries), np.concatenate(parts)
        order = np.lexsort((rows[NUMBER], query))
        return Matches(query[order], rows[order], beyond)

    def from_time(self, low: int, below: int) -> tuple[Int64, Rows]:
        """Slots and rows of all keys from time `low`, and below another one, in the order in which they were passed."""
        self._load_buckets(low, below)
        slots, parts = [np.empty(0, dtype=np.int64)], [empty_rows(self._dtype, 0)]
        for chunk in self._chunks:
            inside = (chunk.time >= low) & (chunk.time < below)
            if inside.any():
                slots.append(chunk.slot[inside])
                parts.append(chunk.rows[inside])
        slot, rows = np.concatenate(slots), np.concatenate(parts)
        order = np.argsort(rows[NUMBER], kind="stable")
        return slot[order], rows[order]

    def oldest(self, low: int) -> int:
        """A time, not below `low`, from which on there are rows; the end of time when there are none.

        It is that of a row, or that at which a bucket of the store begins which was not loaded yet.
        """
        found = [int(np.iinfo(np.int64).max)]
        for chunk in self._chunks:
            later = chunk.time[chunk.time >= low]
            if len(later):
                found.append(int(later.min()))
        found += [int(rows[TIME][rows[TIME] >= low].min(initial=found[0])) for _, rows in self._unplaced]
        not_loaded = (one for one in self._stored.buckets(low) if one not in self._loaded)
        found += [max(low, self._stored.begins(one)) for one in not_loaded]
        return min(found)

    def _load_buckets(self, low: int, below: int) -> None:
        """Have the keys of buckets in memory that may hold rows between two times."""
        for bucket in self._stored.buckets(low, below):
            if bucket in self._loaded:
                continue
            self._loaded.add(bucket)
            keys = self._stored.keys_in(bucket)
            if keys:
                kept = self._kept(keys)
                self._keys.slots(objects(keys if kept is None else [keys[at] for at in np.flatnonzero(kept)]))

    # --- the commit cycle -------------------------------------------------------------------------------------------

    @property
    def has_come(self) -> bool:
        """Whether rows of the open cycle are to be journalled."""
        return bool(self._came)

    @property
    def cycle_bytes(self) -> int:
        """Approximate memory that journalling the open cycle takes."""
        return 2 * self._came_bytes

    def take_came(self) -> tuple[list[bytes], int]:
        """Pieces of a section with the rows of the open cycle, and their newest time."""
        came, self._came, self._came_bytes = self._came, [], 0
        if not came:
            return [], TIME_MIN
        slots, rows = np.concatenate([slots for slots, _ in came]), np.concatenate([rows for _, rows in came])
        return pack_section(self._keys.keys_at(slots).tolist(), rows), int(rows[TIME].max())

    # --- restore ----------------------------------------------------------------------------------------------------

    def replay(self, section: memoryview, bytes_max: int) -> int:
        """Take the rows of a piece that the store lacks; returns how many there are in it."""
        keys, rows = unpack_section(section, self._dtype)
        self._next = max(self._next, int(rows[NUMBER].max(initial=-1)) + 1)
        keys, lacking = _of_kept(self._kept, keys, rows)
        missing = lacking[NUMBER] >= self._stored.below
        if missing.any():
            if not missing.all():
                keys, lacking = [keys[at] for at in np.flatnonzero(missing)], lacking[missing]
            self._unplaced.append((keys, lacking))
            self._unplaced_bytes += memory_of(lacking) + sum(map(len, keys))
            if self._unplaced_bytes > bytes_max:
                batch = WriteBatch()
                self.store(batch)
                self._stored.write(batch)
        return len(rows)

    def forget_keys(self, keys: Sequence[bytes]) -> None:
        """While the journal is read: nothing is known of these keys any more."""
        gone = set(keys)
        unplaced, self._unplaced = self._unplaced, []
        for names, rows in unplaced:
            stays = np.array([name not in gone for name in names], dtype=np.bool_)
            self._unplaced.append(([name for name in names if name not in gone], rows[stays]))
        batch = WriteBatch()
        self._stored.delete_keys(batch, keys)
        self._stored.write(batch)

    def restored(self, watermark: int) -> None:
        """The journal has been read, and the partition stands at `watermark`."""
        self._next = self.next_number
        self.passed(watermark)
        if not self._stored.is_as_declared:
            self._stored.lay_out_again(self._cutoff)

    def snapshot(self) -> tuple[list[bytes], int]:
        """Pieces of a section with all rows of the store, and their newest time."""
        keys: list[bytes] = []
        parts = [empty_rows(self._dtype, 0)]
        for names, rows in self._stored.all():
            keys += names
            parts.append(rows)
        rows = np.concatenate(parts)
        order = np.argsort(rows[NUMBER], kind="stable")
        keys, rows = _of_kept(self._kept, [keys[at] for at in order.tolist()], rows[order])
        return pack_section(keys, rows), int(rows[TIME].max(initial=TIME_MIN))

    # --- the part in the store --------------------------------------------------------------------------------------

    def store(self, batch: WriteBatch) -> None:
        """Have `batch` put all rows that the store lacks; only between cycles, or while the journal is read."""
        if not self._stored.is_as_declared:
            self._stored.lay_out_again(self._cutoff)
        lacking = [(keys, rows) for keys, rows in self._unplaced if len(rows)]
        for chunk in self._chunks:
            missing = chunk.number >= self._stored.below
            if missing.any():
                lacking.append((self._keys.keys_at(chunk.slot[missing]).tolist(), chunk.rows[missing]))
        self._unplaced, self._unplaced_bytes = [], 0
        if lacking:
            names = [key for keys, _ in lacking for key in keys]
            self._stored.put(batch, names, np.concatenate([rows for _, rows in lacking]), self._cutoff)

    def expire(self, watermark: int, batch: WriteBatch) -> None:
        """Forget what is too old, when a bucket's time has passed since the last call that did."""
        self.passed(watermark)
        if self._cutoff < self._expired + self._bucket_ms and self._expired > TIME_MIN:
            return
        self._expired = self._cutoff
        self._chunks = [kept for chunk in self._chunks if len(kept := chunk.take(chunk.time >= self._cutoff))]
        self._loaded.difference_update(self._stored.expire(batch, self._cutoff))

    def durable_below(self) -> int:
        """Event time below which nothing that matters is in memory only."""
        below = self._stored.below
        lacks = bool(self._unplaced) or any((chunk.number >= below).any() for chunk in self._chunks)
        return self._cutoff if lacks else int(np.iinfo(np.int64).max)

    # --- with the keys of the partition -----------------------------------------------------------------------------

    @property
    def bytes_used(self) -> int:
        """Approximate memory in bytes."""
        return sum(chunk.bytes_used for chunk in self._chunks) + self._unplaced_bytes

    def __len__(self) -> int:
        return sum(map(len, self._chunks)) + sum(len(rows) for _, rows in self._unplaced)

    def reserve(self, more: int) -> None:
        """Rows lie in no array by slot."""

    def load(self, first: int, keys: list[bytes]) -> None:
        """Take the rows of new keys from the store."""
        for places, rows in self._stored.of_keys(keys, self._cutoff):
            self._append(Chunk.of(first + places, rows))
        if self._unplaced:
            self._place_of({key: first + at for at, key in enumerate(keys)})

    def _place_of(self, slots: Mapping[bytes, int]) -> None:
        """Bring what a restore has left of these keys into memory: all rows of a key that is there are there."""
        unplaced, self._unplaced, self._unplaced_bytes = self._unplaced, [], 0
        for keys, rows in unplaced:
            found = np.array([slots.get(key, -1) for key in keys], dtype=np.int64)
            here = found >= 0
            if here.any():
                self._append(Chunk.of(found[here], rows[here]))
            if not here.all():
                others = list(compress(keys, ~here))
                self._unplaced.append((others, rows[~here]))
                self._unplaced_bytes += memory_of(rows[~here]) + sum(map(len, others))

    def forget(self, keys: Objects, batch: WriteBatch) -> None:
        """Drop the rows in memory, with the keys; what the store lacks of them is put there."""
        del keys
        if any((chunk.number >= self._stored.below).any() for chunk in self._chunks):
            self.store(batch)
        self._chunks, self._loaded = [], set()

    def drop_moved(self) -> None:
        """Keep the rows of kept keys only."""
        chunks = []
        for chunk in self._chunks:
            kept = self._kept(self._keys.keys_at(chunk.slot).tolist())
            chunks.append(chunk if kept is None else chunk.take(kept))
        self._chunks = [chunk for chunk in chunks if len(chunk)]


def from_watermark(watermark: Int64, keep_ms: int) -> Int64:
    """Time from which on rows matter that do so for `keep_ms`, at each watermark."""
    return np.where(watermark > TIME_MIN, watermark, keep_ms) - keep_ms


def _of_kept(kept_of: Kept, keys: list[bytes], rows: Rows) -> tuple[list[bytes], Rows]:
    kept = kept_of(keys) if keys else None
    if kept is None:
        return keys, rows
    return [keys[at] for at in np.flatnonzero(kept)], rows[kept]
