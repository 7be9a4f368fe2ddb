"""Events that wait for the watermark, in memory; when they are too many, the newest wait in the store."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from streams.batch.columns import TIME_MIN, Bools, Int64, header_memory
from streams.batch.events import Events, Fields
from streams.batch.refs import ByteColumn, byte_sizes, byte_values
from streams.limits import JOURNAL_RECORD_BYTES_MAX
from streams.operators.base import ALL, Spill
from streams.operators.reorder.judge import release_order
from streams.operators.reorder.section import pack_held, unpack_held
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

_EVENT_OVERHEAD_BYTES: Final = 330
"""Rough memory of a held event beyond its value: objects, words, payload."""
_CHUNKS_MAX: Final = 16
_PAGE_EVENTS: Final = 1024
_PAGE_KEY: Final = struct.Struct(">qqI")  # oldest event time, newest event time, number
_PAGE_BYTES_MAX: Final = 1 << 62
_SETTLED: Final = -1

Kept = Callable[[Sequence[bytes]], Bools | None]
"""Which of some keys are kept; None: all."""


def _all_keys(_: Sequence[bytes]) -> None:
    return None


@dataclass(frozen=True, slots=True)
class _Chunk:
    cycle: int
    """Commit cycle in which the events came; `_SETTLED` for any earlier one."""
    events: Events
    """By event time, oldest first: those that are due are the first ones, and cost a look and no copy."""
    bytes_used: int
    """Approximate memory, that of released events included which these share it with."""
    count: int
    """Number of events that share the memory, these included."""

    @staticmethod
    def of(cycle: int, events: Events, rows: Int64 | None = None) -> "_Chunk":
        """Hold those at `rows`; None: all. A copy: `events` may share memory with a whole micro-batch."""
        if rows is None:
            order = np.argsort(events.event_time, kind="stable")
        else:
            order = rows[np.argsort(events.event_time[rows], kind="stable")]
        events = events.take(order).compact()
        return _Chunk(cycle, events, memory_of(events), len(events))

    @property
    def event_time_min(self) -> int:
        """Event time of the oldest held event, in milliseconds."""
        return int(self.events.event_time[0])

    def after(self, released: int) -> "_Chunk":
        """What is left when the first `released` events are gone; a copy of less than half of what shares memory."""
        rest = self.events.take(slice(released, None))
        if 2 * len(rest) < self.count:
            return _Chunk.of(self.cycle, rest)
        return replace(self, events=rest)


def memory_of(events: Events) -> int:
    """Approximate memory of events that are held."""
    return int(_sizes(events).sum())


def memory_of_values(value_bytes: int, count: int) -> int:
    """Approximate memory of `count` events without headers whose values have so many bytes together."""
    return 2 * value_bytes + count * _EVENT_OVERHEAD_BYTES


def _sizes(events: Events) -> Int64:
    """Approximate memory of each event. Its id, key and texts are parts of its value, each an object of its own."""
    sizes = 2 * byte_sizes(events.value) + _EVENT_OVERHEAD_BYTES
    if events.headers is not None:
        sizes += np.array([header_memory(headers) for headers in events.headers], dtype=np.int64)
    return sizes


class Held:
    """Held events of one partition."""

    def __init__(self, fields: Fields, space: StoreSpace, kept: Kept = _all_keys) -> None:
        """`space`: the part of the store that pages of events are in; those of keys that are not `kept` are void."""
        self._fields = fields
        self._kept = kept
        self._space = space
        self._none = Events.none(fields)
        self._chunks: list[_Chunk] = []
        self._pages: list[tuple[int, bytes]] = []
        """(oldest event time, store key) of pages whose events are in the store only, oldest first."""
        self._loaded: list[bytes] = []
        """Keys of pages whose events are in memory again; deleted once all of them are released."""
        self._page_next = 0
        self._released = TIME_MIN
        """Watermark at the restore: events of pages up to there were released before it."""
        self._has_unlinked = False
        """Whether some events in memory have no slots."""
        self._repeats = False
        """Whether an event of a page may also be in another page or in memory: pages from before a restore exist."""

    def __len__(self) -> int:
        return sum(len(chunk.events) for chunk in self._chunks)

    @property
    def bytes_used(self) -> int:
        """Approximate memory."""
        return sum(chunk.bytes_used for chunk in self._chunks)

    def events_of(self, bytes_max: int) -> int:
        """Number of held events that fill `bytes_max`, if all have the average size."""
        return bytes_max * len(self) // max(1, self.bytes_used)

    def bytes_since(self, cycle: int) -> int:
        """Approximate memory of those that came in commit cycle `cycle`."""
        return sum(chunk.bytes_used for chunk in self._chunks if chunk.cycle >= cycle)

    def event_time_min(self) -> int:
        """Oldest event time among all held events; the largest number when there are none."""
        oldest = [chunk.event_time_min for chunk in self._chunks] + [page[0] for page in self._pages]
        return min(oldest, default=np.iinfo(np.int64).max)

    def add(self, events: Events, cycle: int, rows: Int64 | None = None) -> None:
        """Hold `events`, those at `rows` (None: all), which came in commit cycle `cycle`."""
        if not len(events if rows is None else rows):
            return
        self._chunks.append(_Chunk.of(cycle, events, rows))
        self._has_unlinked |= bool((self._chunks[-1].events.slot < 0).any())
        settled = [chunk for chunk in self._chunks if chunk.cycle < cycle]
        if len(settled) > _CHUNKS_MAX:
            merged = Events.concat([chunk.events for chunk in settled])
            fresh = [chunk for chunk in self._chunks if chunk.cycle >= cycle]
            self._chunks = [_Chunk.of(_SETTLED, merged), *fresh]

    def all(self) -> list[Events]:
        """All events in memory."""
        return [chunk.events for chunk in self._chunks]

    def ripe(self, watermark: int) -> list[Events]:
        """Events in memory some of which are due at `watermark`, with others beside them."""
        return [chunk.events for chunk in self._chunks if chunk.event_time_min <= watermark]

    def has_key(self, key: bytes, watermark: int) -> bool:
        """Whether an event of `key` that is above `watermark` is held, in memory or in a page."""
        if any(key in byte_values(events.key) for events in self.all()):
            return True
        in_pages = held_in_store(self._space, self._fields, watermark)
        return in_pages is not None and key in byte_values(in_pages.key)

    def came_in(self, cycle: int) -> Events:
        """Events that came in `cycle` and are still held."""
        found = [chunk.events for chunk in self._chunks if chunk.cycle == cycle]
        return Events.concat(found) if found else self._none

    def take_due(self, watermark: int) -> list[Events]:
        """Remove and return the events at or below `watermark`."""
        due: list[Events] = []
        kept: list[_Chunk] = []
        for chunk in self._chunks:
            if chunk.event_time_min > watermark:
                kept.append(chunk)
                continue
            ripe = int(chunk.events.event_time.searchsorted(watermark, side="right"))
            due.append(chunk.events.take(slice(0, ripe)))
            if ripe < len(chunk.events):
                kept.append(chunk.after(ripe))
        self._chunks = kept
        return due

    def drop_moved(self) -> None:
        """Hold those of kept keys only; of pages in the store, others are left out when they are loaded."""
        parts = [(chunk, self._kept(byte_values(chunk.events.key))) for chunk in self._chunks]
        self._chunks = [
            chunk if kept is None else _Chunk.of(chunk.cycle, chunk.events, kept.nonzero()[0])
            for chunk, kept in parts
            if kept is None or kept.any()
        ]

    def unlink(self) -> None:
        """Forget the slots of all events, since the key space was emptied."""
        self._chunks = [
            replace(chunk, events=chunk.events.with_slots(np.full(len(chunk.events), -1))) for chunk in self._chunks
        ]
        self._has_unlinked = True

    def link_due(self, watermark: int, slots_of: Callable[[ByteColumn], Int64]) -> None:
        """Look up the slots of events at or below `watermark` that have none.

        Others go without: the rows of a key are in memory from then on, and those of all held events may be too many.
        """
        if self._has_unlinked:
            self._chunks = [_linked(chunk, watermark, slots_of) for chunk in self._chunks]
            self._has_unlinked = any((chunk.events.slot < 0).any() for chunk in self._chunks)

    # --- the part in the store --------------------------------------------------------------------------------------

    def pages_due(self, watermark: int) -> bool:
        """Whether events in the store may be due."""
        return bool(self._pages) and self._pages[0][0] <= watermark

    def load_due_pages(self, watermark: int) -> list[Events]:
        """Remove and return the events of all pages that may hold due ones (slots unset), each once.

        Copies of an event have the same event time, so that they come into memory together, before one is released.
        """
        count = sum(1 for event_time_min, _ in self._pages if event_time_min <= watermark)
        ripe, self._pages = self._pages[:count], self._pages[count:]
        self._loaded += [key for _, key in ripe]
        pages = self._space.get_many([key for _, key in ripe])
        found = [self._waiting(page) for page in pages if page is not None]
        return [self._not_in_memory(found)] if self._repeats else found

    def _waiting(self, page: bytes) -> Events:
        events = unpack_held(memoryview(page), self._fields)
        return _of_kept(events.take(events.event_time > self._released), self._kept)

    def _not_in_memory(self, parts: list[Events]) -> Events:
        known = [chunk.events for chunk in self._chunks]
        events = Events.concat([*known, *parts]) if known or parts else self._none
        first = _first_copies(events)
        return events.take(first[first >= len(self)])

    def spill(self, batch: WriteBatch, *, keep_events: int) -> None:
        """Move all but the `keep_events` oldest events into pages of the store; only between cycles."""
        if len(self) <= keep_events:
            return
        events = Events.concat(self.all())
        events = events.take(release_order(events))
        kept, moved = events.take(slice(0, keep_events)), events.take(slice(keep_events, None))
        self._pages = sorted([*self._pages, *self._written(moved, batch)])
        self._chunks = [_Chunk.of(_SETTLED, kept)] if len(kept) else []

    def make_room(self, goal: Spill, watermark: int, batch: WriteBatch, *, among: int = 1) -> None:
        """Move all but the events that are due first into pages, and delete fully released pages; only between cycles.

        `among`: number of operators that share the memory that `goal` allows.
        """
        keep = goal.rows_keep if goal.rows_keep == ALL else goal.rows_keep // among
        if goal.bytes_keep != ALL:
            keep = min(keep, self.events_of(goal.bytes_keep // among))
        self.spill(batch, keep_events=keep)
        self.forget_released_pages(watermark, batch)

    def _written(self, events: Events, batch: WriteBatch) -> list[tuple[int, bytes]]:
        """Pages of `events`, which are in order of release."""
        pages: list[tuple[int, bytes]] = []
        for start in range(0, len(events), _PAGE_EVENTS):
            page = events.take(slice(start, start + _PAGE_EVENTS))
            event_time_min, event_time_max = int(page.event_time[0]), int(page.event_time[-1])
            key = _PAGE_KEY.pack(event_time_min, event_time_max, self._page_next)
            self._page_next += 1
            self._space.put(batch, [(key, _pack_page(page))])
            pages.append((event_time_min, key))
        return pages

    def forget_released_pages(self, watermark: int, batch: WriteBatch) -> None:
        """Delete pages that were loaded and of which every event is at or below `watermark`, so released."""
        released = [key for key in self._loaded if _PAGE_KEY.unpack(key)[1] <= watermark]
        self._loaded = [key for key in self._loaded if key not in released]
        self._space.delete(batch, released)

    # --- restore ----------------------------------------------------------------------------------------------------

    def put_into_pages(self, parts: list[Events]) -> None:
        """Write events that the journal holds, of which some may be in pages of the store already."""
        events = without_repeats(parts)
        if events is None:
            return
        if not self._page_next:  # the first ones: their numbers follow those of the pages that are there
            for key, _ in self._space.scan():
                self._number_after(key)
        batch = WriteBatch()
        self._written(events.take(release_order(events)), batch)
        self._space.write(batch)

    def _number_after(self, key: bytes) -> None:
        self._page_next = max(self._page_next, _PAGE_KEY.unpack(key)[2] + 1)

    def restore_pages(self, watermark: int) -> None:
        """Look through all pages of the store, one at a time: what is above `watermark` is still held.

        Raises:
            JournalCorrupted: a page is not one.

        """
        self._released = watermark
        for key, page in self._space.scan():
            self._number_after(key)
            events = self._waiting(page)
            if len(events):
                self._pages.append((int(events.event_time.min()), key))
            else:
                self._loaded.append(key)
        self._pages.sort()
        self._repeats = bool(self._pages)


def _linked(chunk: _Chunk, watermark: int, slots_of: Callable[[ByteColumn], Int64]) -> _Chunk:
    due = int(chunk.events.event_time.searchsorted(watermark, side="right"))
    rows = (chunk.events.slot[:due] < 0).nonzero()[0]
    if not len(rows):
        return chunk
    slots = chunk.events.slot.copy()
    slots[rows] = slots_of(chunk.events.key.take(rows))
    return replace(chunk, events=chunk.events.with_slots(slots))


def held_in_store(space: StoreSpace, fields: Fields, watermark: int, kept: Kept = _all_keys) -> Events | None:
    """All events above `watermark` of kept keys in the pages of a store, each once, slots unset; None: none is."""
    pages = (unpack_held(memoryview(page), fields) for _, page in space.scan())
    return without_repeats([_of_kept(events.take(events.event_time > watermark), kept) for events in pages])


def sections_in_store(space: StoreSpace, fields: Fields, watermark: int, kept: Kept = _all_keys) -> list[bytes]:
    """What `held_in_store` finds, as sections of the journal."""
    held = held_in_store(space, fields, watermark, kept)
    return [] if held is None else pack_held(held, bytes_max=JOURNAL_RECORD_BYTES_MAX)


def _of_kept(events: Events, kept: Kept) -> Events:
    rows = kept(byte_values(events.key))
    return events if rows is None else events.take(rows)


def without_repeats(parts: list[Events]) -> Events | None:
    """The events of `parts`, each identity once."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return None
    events = Events.concat(parts)
    return events.take(_first_copies(events))


def _first_copies(events: Events) -> Int64:
    """Rows of the first event of each identity, in order."""
    if not len(events):
        return np.empty(0, dtype=np.int64)
    order = np.lexsort((events.id_lo, events.id_hi, events.id_word))
    words = np.stack([events.id_word[order], events.id_hi[order], events.id_lo[order]])
    first = np.concatenate([[True], (words[:, 1:] != words[:, :-1]).any(axis=0)])
    return np.sort(order[first])


def _pack_page(events: Events) -> bytes:
    [page] = pack_held(events, bytes_max=_PAGE_BYTES_MAX)
    return page
