"""Sections of held events that are looked through without being unpacked."""

from typing import Any

import numpy as np
import pytest

from streams.batch.columns import objects
from streams.batch.events import Events, Fields
from streams.operators.reorder.held import Held
from streams.operators.reorder.journalled import HeldInJournal
from streams.operators.reorder.packed import PackedHeld
from streams.operators.reorder.section import pack_held, unpack_held
from streams.state.journal import JournalCorrupted
from streams.state.memory import MemoryStore
from streams.state.space import StoreSpace

FIELDS = Fields(("speed",), ("status",))
BYTES_MAX = 1 << 30


def held(times: list[int], headers: Any = None) -> Events:
    count = len(times)
    names = objects([b"%d" % time for time in times])
    words = np.array(times, dtype=np.uint64)
    return Events(
        row=np.full(count, -1), timestamp_ms=np.array(times), event_time=np.array(times), sequence=np.arange(count),
        event_id=names, id_hi=words, id_lo=words, id_word=words, key=names, value=names, headers=headers,
        payload=np.zeros((1, count)), texts=objects([b"on"] * count).reshape(1, count), slot=np.full(count, -1),
        fields=FIELDS,
    )  # fmt: skip


def section(times: list[int], headers: Any = None) -> memoryview:
    [packed] = pack_held(held(times, headers), bytes_max=BYTES_MAX)
    return memoryview(packed)


def journalled() -> HeldInJournal:
    space = StoreSpace(MemoryStore(), "reorder.held")
    return HeldInJournal(Held(FIELDS, space, lambda _keys: None), FIELDS)


def test_what_is_released_is_not_kept_and_the_rest_is_as_it_was_held() -> None:
    found = journalled()
    assert [found.add(section(times), 0, BYTES_MAX) for times in ([1, 2], [3, 40], [50])] == [2, 2, 1]
    rest = found.rest(watermark=3)
    assert rest is not None
    assert (rest.event_time.tolist(), rest.key.tolist()) == ([40, 50], [b"40", b"50"])
    assert found.rest(watermark=3) is None


@pytest.mark.parametrize("bytes_max", [1, 2_000, 4_000])
def test_what_there_is_no_room_for_goes_into_pages(bytes_max: int) -> None:
    store = MemoryStore()
    pages = Held(FIELDS, StoreSpace(store, "reorder.held"), lambda _keys: None)
    found = HeldInJournal(pages, FIELDS)
    for start in range(0, 60, 6):
        found.add(section(list(range(start, start + 6))), start - 20, bytes_max)
    rest = found.rest(watermark=45)
    pages.restore_pages(45)
    paged = [one for events in pages.load_due_pages(1_000) for one in events.event_time.tolist()]
    in_memory = [] if rest is None else rest.event_time.tolist()
    assert sorted({*in_memory, *paged}) == list(range(46, 60))


@pytest.mark.parametrize("headers", [None, objects([[("trace", b"1")], None, []])])
def test_a_section_is_refused_where_unpacking_it_would_be(headers: Any) -> None:
    whole = section([1, 2, 3], headers)
    assert PackedHeld.of(whole, FIELDS).count == 3
    for end in range(len(whole)):
        with pytest.raises(JournalCorrupted):
            unpack_held(whole[:end], FIELDS)
        with pytest.raises(JournalCorrupted):
            PackedHeld.of(whole[:end], FIELDS)
