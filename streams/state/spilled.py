"""Disk tier of dedup: ids that are old or too many for memory, in pages of the store.

Ids are grouped by event-time bucket, so that expired ones go with one range delete, and within a bucket by the top bits
of their hash, so that looking one up reads one small page. A page costs one row for some 256 ids: a hundredth of what a
row per id would.
"""

import struct
from typing import Final

import numpy as np

from streams.limits import DEDUP_BUCKET_MS, DEDUP_PAGE_IDS
from streams.operators.columns import Bools, Int64, UInt64
from streams.operators.identity import event_time_of, mix
from streams.state.journal import Ids
from streams.state.layout import SPILLED_IDS
from streams.state.store import Store, WriteBatch

_KEY: Final = struct.Struct(">qIBI")  # bucket, run, page bits, page


class SpilledIds:
    """Ids of one partition that live in its store."""

    def __init__(self, store: Store) -> None:
        """Read the index of pages (keys only matter: bucket, run and number of pages)."""
        self._store = store
        self._runs: dict[int, list[tuple[int, int]]] = {}
        """Bucket to its runs: (run, page bits)."""
        self._run_next = 0
        for key, _ in store.scan(SPILLED_IDS):
            bucket, run, bits, _page = _KEY.unpack(key[1:])
            runs = self._runs.setdefault(bucket, [])
            if (run, bits) not in runs:
                runs.append((run, bits))
            self._run_next = max(self._run_next, run + 1)

    @property
    def newest_bucket_end(self) -> int:
        """No id at or above this event time is here."""
        return (max(self._runs) + 1) * DEDUP_BUCKET_MS if self._runs else 0

    def all(self) -> Ids:
        """Every id that is here."""
        pages = [np.frombuffer(page, dtype="<u8").reshape(-1, 3) for _, page in self._store.scan(SPILLED_IDS)]
        if not pages:
            return Ids.concat([])
        words = np.concatenate(pages)
        return Ids(*(np.ascontiguousarray(words[:, column]) for column in range(3)))

    def contains(self, ids: Ids) -> Bools:
        """Which of `ids` are here."""
        found = np.zeros(len(ids), dtype=np.bool_)
        buckets = event_time_of(ids.word) // DEDUP_BUCKET_MS
        hashes = mix(ids.hi, ids.lo, ids.word)
        wanted: dict[bytes, list[int]] = {}
        for row in range(len(ids)):
            for run, bits in self._runs.get(int(buckets[row]), ()):
                page = int(hashes[row]) >> (64 - bits) if bits else 0
                key = SPILLED_IDS + _KEY.pack(int(buckets[row]), run, bits, page)
                wanted.setdefault(key, []).append(row)
        for (_, rows), page_bytes in zip(wanted.items(), self._store.get_many(list(wanted)), strict=True):
            if page_bytes is None:
                continue
            words = np.frombuffer(page_bytes, dtype="<u8").reshape(-1, 3)
            queries = np.stack([ids.hi[rows], ids.lo[rows], ids.word[rows]], axis=1)
            found[rows] |= (words[None, :, :] == queries[:, None, :]).all(axis=2).any(axis=1)
        return found

    def add(self, ids: Ids, batch: WriteBatch) -> None:
        """Put the pages of `ids` into `batch`; they are found as soon as it is written."""
        if not len(ids):
            return
        buckets = event_time_of(ids.word) // DEDUP_BUCKET_MS
        hashes = mix(ids.hi, ids.lo, ids.word)
        order = np.lexsort((hashes, buckets))
        buckets, hashes = buckets[order], hashes[order]
        words = np.stack([ids.hi[order], ids.lo[order], ids.word[order]], axis=1).astype("<u8", copy=False)
        starts = np.flatnonzero(np.concatenate([[True], buckets[1:] != buckets[:-1]])).tolist()
        for start, end in zip(starts, [*starts[1:], len(buckets)], strict=True):
            bucket = int(buckets[start])
            bits = max(0, ((end - start) // DEDUP_PAGE_IDS).bit_length())
            pages = (
                (hashes[start:end] >> np.uint64(64 - bits)).astype(np.int64)
                if bits
                else np.zeros(end - start, np.int64)
            )
            self._put_pages(batch, bucket, bits, pages, words[start:end])
            self._runs.setdefault(bucket, []).append((self._run_next, bits))
        self._run_next += 1

    def expire(self, event_time_min: int, batch: WriteBatch) -> None:
        """Forget whole buckets that lie before `event_time_min`."""
        bucket_min = event_time_min // DEDUP_BUCKET_MS
        gone = [bucket for bucket in self._runs if bucket < bucket_min]
        if not gone:
            return
        for bucket in gone:
            del self._runs[bucket]
        batch.delete_ranges.append((SPILLED_IDS, SPILLED_IDS + _KEY.pack(bucket_min, 0, 0, 0)))

    def _put_pages(self, batch: WriteBatch, bucket: int, bits: int, pages: Int64, words: UInt64) -> None:
        edges = np.flatnonzero(np.concatenate([[True], pages[1:] != pages[:-1]])).tolist()
        for first, last in zip(edges, [*edges[1:], len(pages)], strict=True):
            key = SPILLED_IDS + _KEY.pack(bucket, self._run_next, bits, int(pages[first]))
            batch.puts.append((key, words[first:last].tobytes()))
