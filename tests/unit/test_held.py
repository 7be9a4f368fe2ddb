import numpy as np
import pytest

from streams.batch.columns import Int64, object_rows, objects
from streams.batch.events import Events, Fields
from streams.batch.refs import ByteColumn, byte_objects, byte_values
from streams.operators.reorder.held import Held, without_repeats
from streams.state.memory import MemoryStore
from streams.state.names import operator_prefix
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

FOREVER = np.iinfo(np.int64).max
HELD = operator_prefix("reorder.held")
FIELDS = Fields(("a", "b", "c", "d"))


def events(
    *times: int, first_id: int = 0, headers: list[list[tuple[str, None] | tuple[str, bytes]] | None] | None = None
) -> Events:
    count = len(times)
    number = np.arange(first_id, first_id + count)
    time = np.array(times, dtype=np.int64)
    words = number.astype(np.uint64)
    return Events(
        row=number,
        timestamp_ms=number,
        event_time=time,
        sequence=number,
        event_id=objects([b"e%d" % i for i in number]),
        id_hi=words,
        id_lo=words,
        id_word=(2 * time + 2).astype(np.uint64),
        key=objects([b"k%d" % (i % 3) for i in number]),
        value=objects([b"v%d" % i for i in number]),
        headers=None if headers is None else objects(headers),
        payload=np.full((4, count), 1.5),
        texts=object_rows([], count),
        slot=number % 3,
        fields=FIELDS,
    )


def times(parts: Events | list[Events]) -> list[int]:
    parts = [parts] if isinstance(parts, Events) else parts
    return sorted(time for part in parts for time in part.event_time.tolist())


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def held(store: MemoryStore) -> Held:
    return held_over(store)


def held_over(store: MemoryStore) -> Held:
    return Held(FIELDS, StoreSpace(store, "reorder.held"))


def spill(held: Held, store: MemoryStore, *, keep: int) -> WriteBatch:
    batch = WriteBatch()
    held.spill(batch, keep_events=keep)
    store.write(batch)
    return batch


def test_nothing_is_held_at_first(held: Held) -> None:
    assert (len(held), held.event_time_min(), held.bytes_used) == (0, FOREVER, 0)
    assert held.take_due(FOREVER) == []
    held.add(events(), 1)
    assert held.all() == []


def test_due_events_leave_and_the_rest_stays(held: Held) -> None:
    held.add(events(5, 9, 7), 1)
    held.add(events(6, 20), 2)
    assert times(held.take_due(7)) == [5, 6, 7]
    assert (len(held), held.event_time_min()) == (2, 9)
    assert held.take_due(8) == []
    assert times(held.take_due(20)) == [9, 20]
    assert len(held) == 0


def test_a_cycle_knows_the_events_that_came_in_it_and_still_wait(held: Held) -> None:
    held.add(events(5, 9), 1)
    held.add(events(6), 2)
    held.add(events(8, 11), 2)
    assert times(held.came_in(2)) == [6, 8, 11]
    held.take_due(8)
    assert times(held.came_in(1)) == [9]
    assert times(held.came_in(2)) == [11]
    assert len(held.came_in(3)) == 0


def test_many_small_chunks_become_few_and_lose_nothing(held: Held) -> None:
    for cycle in range(1, 200):
        held.add(events(1000 + cycle, first_id=cycle), cycle)
    assert len(held.all()) < 40
    assert times(held.all()) == [1000 + cycle for cycle in range(1, 200)]
    assert times(held.came_in(199)) == [1199]


def test_restored_events_came_in_no_cycle_that_is_to_come(held: Held) -> None:
    held.add(events(5), 0)
    assert len(held.came_in(1)) == 0
    assert len(held) == 1


def test_the_oldest_stay_in_memory_and_the_others_go_to_the_store(held: Held, store: MemoryStore) -> None:
    held.add(events(50, 10, 40), 1)
    held.add(events(30, 20, first_id=3), 2)
    spill(held, store, keep=2)
    assert times(held.all()) == [10, 20]
    assert held.event_time_min() == 10
    assert not held.pages_due(29)
    assert held.pages_due(30)


def test_few_enough_events_are_not_spilled(held: Held, store: MemoryStore) -> None:
    held.add(events(1, 2), 1)
    assert spill(held, store, keep=2).puts == []


def test_spilled_events_come_back_as_they_were(held: Held, store: MemoryStore) -> None:
    original = events(10, 20, headers=[None, [("h", None), ("ü", b"x")]])
    held.add(original, 1)
    spill(held, store, keep=0)
    assert (len(held), held.event_time_min()) == (0, 10)
    [back] = held.load_due_pages(10)
    for name in ("event_time", "sequence", "timestamp_ms", "id_hi", "id_lo", "id_word"):
        assert np.array_equal(getattr(back, name), getattr(original, name))
    for name in ("event_id", "key", "value", "headers"):
        assert getattr(back, name).tolist() == getattr(original, name).tolist()
    assert np.array_equal(back.payload, original.payload)
    assert not held.pages_due(FOREVER)


def test_only_pages_that_may_hold_due_events_are_loaded(held: Held, store: MemoryStore) -> None:
    held.add(events(*range(5_000)), 1)
    spill(held, store, keep=100)
    loaded = held.load_due_pages(1_500)
    assert times(loaded) == list(range(100, 100 + 2 * 1024))
    assert held.event_time_min() == 0
    assert held.pages_due(100 + 2 * 1024)
    assert not held.pages_due(100 + 2 * 1024 - 1)


def test_a_page_is_deleted_once_all_of_it_is_released(held: Held, store: MemoryStore) -> None:
    held.add(events(10, 20), 1)
    spill(held, store, keep=0)
    held.load_due_pages(10)
    for watermark, pages in ((19, 1), (20, 0)):
        batch = WriteBatch()
        held.forget_released_pages(watermark, batch)
        store.write(batch)
        assert len(list(store.scan(HELD))) == pages


def test_pages_that_nobody_has_loaded_are_not_deleted(held: Held, store: MemoryStore) -> None:
    held.add(events(10), 1)
    spill(held, store, keep=0)
    batch = WriteBatch()
    held.forget_released_pages(1_000, batch)
    assert batch.delete_ranges == []


def test_a_restart_finds_what_is_still_held_and_what_is_not(held: Held, store: MemoryStore) -> None:
    held.add(events(10, 20, 30), 1)
    spill(held, store, keep=0)
    again = held_over(store)
    again.restore_pages(15)
    assert again.event_time_min() == 20
    assert times(again.load_due_pages(20)) == [20, 30]
    again.add(events(40, first_id=9), 1)
    spill(again, store, keep=0)
    assert len(list(store.scan(HELD))) == 2, "a new page does not overwrite an old one"
    batch = WriteBatch()
    again.forget_released_pages(30, batch)
    store.write(batch)
    assert len(list(store.scan(HELD))) == 1


def test_an_event_that_two_pages_and_the_journal_have_comes_into_memory_once(held: Held, store: MemoryStore) -> None:
    """Pages stay in the store until all of them is released, and the journal is read again from before them."""
    held.add(events(10, 20, 30, 40), 1)
    spill(held, store, keep=0)
    held.add(Events.concat(held.load_due_pages(10)), 1)
    spill(held, store, keep=0)
    again = held_over(store)
    again.put_into_pages([events(10, 20, 30, 40).take(slice(1, 3)), events(25, first_id=7)])
    again.add(events(10, 20, 30, 40).take(slice(3, 4)), 0)
    again.restore_pages(15)
    assert not again.pages_due(19)
    found = again.load_due_pages(20)
    again.add(Events.concat(found), 0)
    found += again.load_due_pages(100)
    assert sorted(times(found)) == [20, 25, 30]
    assert times(again.take_due(100)) == [20, 25, 30, 40]


def test_events_in_a_page_and_in_the_journal_and_in_another_page_are_held_once() -> None:
    page, journalled = events(10, 20, 30), events(20, 30, 40, first_id=1)
    found = without_repeats([page, journalled, events(), page.take(slice(1, 2))])
    assert found is not None
    assert sorted(found.event_id.tolist()) == [b"e0", b"e1", b"e2", b"e3"]
    assert times(found) == [10, 20, 30, 40]


def test_one_id_at_two_times_is_two_events() -> None:
    found = without_repeats([events(10), events(11)])
    assert found is not None
    assert len(found) == 2


def test_no_events_have_no_repeats() -> None:
    assert without_repeats([]) is None
    assert without_repeats([events()]) is None


def test_slots_are_looked_up_anew_once_events_are_due_and_those_of_no_others(held: Held) -> None:
    asked: list[bytes] = []

    def slots_of(keys: ByteColumn) -> Int64:
        asked.extend(byte_values(keys))
        return np.array([100 + int(key[1:]) for key in byte_values(keys)])

    held.add(events(10, 20, 30), 1)
    held.unlink()
    held.link_due(9, slots_of)
    assert not asked
    held.link_due(20, slots_of)
    [chunk] = held.all()
    assert chunk.slot.tolist() == [100, 101, -1]
    assert times(held.came_in(1)) == [10, 20, 30]
    held.link_due(20, slots_of)
    held.add(events(15, first_id=7), 2)
    held.link_due(30, slots_of)
    assert asked == [b"k0", b"k1", b"k2"]
    assert all((events.slot >= 0).all() for events in held.all())


def test_memory_counts_values_and_what_surrounds_them(held: Held) -> None:
    held.add(events(*range(100)), 1)
    small = held.bytes_used
    assert small > 100 * 200
    large = events(1)
    byte_objects(large.value)[0] = b"x" * 100_000
    held.add(large, 1)
    assert held.bytes_used >= small + 100_000


def test_events_that_are_held_keep_no_others_of_their_batch_in_memory(held: Held) -> None:
    batch = events(*range(10_000))
    held.add(batch, 0, np.array([5, 3]))

    (kept,) = held.all()

    assert [3, 5] == kept.event_time.tolist()
    assert not np.shares_memory(kept.value, batch.value)


def test_the_memory_of_released_events_is_counted_until_it_is_given_back(held: Held) -> None:
    held.add(events(*range(1_000)), 0)
    whole = held.bytes_used

    held.take_due(399)
    assert whole == held.bytes_used, "600 of 1,000 are left, and share memory with those released"
    assert times(held.all()) == list(range(400, 1_000))

    held.take_due(899)
    assert held.bytes_used < whole / 5, "100 are left: a copy of their own"
    assert times(held.take_due(FOREVER)) == list(range(900, 1_000))
