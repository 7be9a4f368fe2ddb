"""Disk tier of dedup: ids that are old or too many for memory, in pages of the store.

Ids are grouped by event-time bucket, so that expired ones go with one range delete, and within a bucket by the top bits
of their hash, so that looking one up reads one small page. A page costs one row for some 256 ids: a hundredth of what a
row per id would.
"""

import struct
from typing import Final

import numpy as np

from streams.batch.columns import Bools, Int64, UInt64
from streams.batch.event_ids import event_time_of, mix
from streams.limits import DEDUP_BUCKET_MS, DEDUP_PAGE_IDS
from streams.operators.dedup.section import Ids
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

_KEY: Final = struct.Struct(">qIBI")  # bucket, run, page bits, page
_ID_BYTES: Final = 24
_PAGES_MAX: Final = 1_024
"""Pages that are in memory at once while ids are looked up: some 6 MB."""
_COMPARED_MAX: Final = 1 << 18
"""Words of pages that are compared at once."""


class SpilledIds:
    """Ids of one partition that live in dedup's part of its store."""

    def __init__(self, space: StoreSpace) -> None:
        """Read the index of pages (keys only matter: bucket, run and number of pages)."""
        self._space = space
        self._runs: dict[int, list[tuple[int, int]]] = {}
        """Bucket to its runs: (run, page bits)."""
        self._run_next = 0
        for key, _ in space.scan():
            bucket, run, bits, _page = _KEY.unpack(key)
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
        pages = [np.frombuffer(page, dtype="<u8").reshape(-1, 3) for _, page in self._space.scan()]
        if not pages:
            return Ids.concat([])
        words = np.concatenate(pages)
        return Ids(*(np.ascontiguousarray(words[:, column]) for column in range(3)))

    def contains(self, ids: Ids) -> Bools:
        """Which of `ids` are here. Reads a page at a time for each id and run of its bucket, `_PAGES_MAX` at once."""
        found = np.zeros(len(ids), dtype=np.bool_)
        buckets = (event_time_of(ids.word) // DEDUP_BUCKET_MS).tolist()
        hashes = mix(ids.hi, ids.lo, ids.word).tolist()
        wanted: dict[bytes, list[int]] = {}
        for row, (bucket, hashed) in enumerate(zip(buckets, hashes, strict=True)):
            for run, bits in self._runs.get(bucket, ()):
                page = hashed >> (64 - bits) if bits else 0
                wanted.setdefault(_KEY.pack(bucket, run, bits, page), []).append(row)
        keys, rows = list(wanted), list(wanted.values())
        for start in range(0, len(keys), _PAGES_MAX):
            pages = self._space.get_many(keys[start : start + _PAGES_MAX])
            _look_into(pages, rows[start : start + _PAGES_MAX], ids, found)
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
        starts = (np.concatenate([[True], buckets[1:] != buckets[:-1]])).nonzero()[0].tolist()
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
        self._space.delete_range(batch, b"", _KEY.pack(bucket_min, 0, 0, 0))

    def _put_pages(self, batch: WriteBatch, bucket: int, bits: int, pages: Int64, words: UInt64) -> None:
        edges = (np.concatenate([[True], pages[1:] != pages[:-1]])).nonzero()[0].tolist()
        for first, last in zip(edges, [*edges[1:], len(pages)], strict=True):
            key = _KEY.pack(bucket, self._run_next, bits, int(pages[first]))
            self._space.put(batch, [(key, words[first:last].tobytes())])


def _look_into(pages: list[bytes | None], rows: list[list[int]], ids: Ids, found: Bools) -> None:
    """Mark those of `rows` (ids that would be in the page of the same position) that are there."""
    words = np.frombuffer(b"".join(page or b"" for page in pages), dtype="<u8").reshape(-1, 3)
    sizes = np.array([len(page or b"") // _ID_BYTES for page in pages], dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    row = np.array([one for some in rows for one in some], dtype=np.int64)
    page_of = np.repeat(np.arange(len(rows)), [len(some) for some in rows])
    end = np.cumsum(sizes[page_of])
    at = 0
    while at < len(row):
        done = int(end[at - 1]) if at else 0
        upto = max(at + 1, int(np.searchsorted(end, done + _COMPARED_MAX, side="right")))
        each = sizes[page_of[at:upto]]
        # Every id next to every word of its page.
        place = np.arange(int(each.sum())) + np.repeat(starts[page_of[at:upto]] - (np.cumsum(each) - each), each)
        asked = np.repeat(row[at:upto], each)
        same = (words[place, 2] == ids.word[asked]).nonzero()[0]
        place, asked = place[same], asked[same]
        found[asked[(words[place, 0] == ids.hi[asked]) & (words[place, 1] == ids.lo[asked])]] = True
        at = upto
