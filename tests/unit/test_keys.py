from dataclasses import replace

import numpy as np

from logistics.flows.gps import GPS
from logistics.folds.vehicle_state import VehicleState
from streams.batch.columns import TIME_MIN, object_rows, objects
from streams.batch.events import Events, Fields
from streams.batch.rows import pack_rows
from streams.engine.keys import KeyIndex, due_puts, windows_of
from streams.operators.fold.aggregate import KeySegments
from streams.operators.window.windows import NEVER
from streams.state.checkpoint import LAST_DUE, open_window_prefix, table_prefix, window_prefix
from streams.state.memory import MemoryStore
from streams.state.store import WriteBatch

AGGREGATE = VehicleState()
PIPELINE = replace(GPS, windows=())


class CountingStore(MemoryStore):
    def __init__(self):
        super().__init__()
        self.asked = []

    def get_many(self, keys):
        self.asked.append(list(keys))
        return super().get_many(keys)


def index(store=None, belongs=lambda _: True):
    return KeyIndex(store or MemoryStore(), PIPELINE, belongs)


def names(*keys):
    return objects(list(keys))


def released(subject, *rows):
    """Events of (key, time, sequence, id), in order, with their slots."""
    keys, time, sequence, ids = zip(*rows, strict=True)
    count = len(rows)
    words = np.zeros(count, np.uint64)
    numbers = np.zeros(count, np.int64)
    found = Events(
        row=numbers,
        timestamp_ms=numbers,
        event_time=np.array(time),
        sequence=np.array(sequence),
        event_id=objects(list(ids)),
        id_hi=words,
        id_lo=words,
        id_word=words,
        key=objects(list(keys)),
        value=objects([b""] * count),
        headers=None,
        payload=np.ones((4, count)),
        texts=object_rows([], count),
        slot=subject.slots(objects(list(keys))),
        fields=Fields(GPS.payload_fields),
    )
    subject.fold(KeySegments.of(found, numbers))


def commit(subject, store):
    changed = subject.take_changed()
    store.write(WriteBatch(puts=changed.puts()))
    return changed


def test_a_key_keeps_its_slot_and_keys_are_told_apart():
    subject = index()
    assert subject.slots(names(b"a", b"b", b"a")).tolist() == [0, 1, 0]
    assert subject.slots(names(b"b", b"c", b"\xff", b"")).tolist() == [1, 2, 3, 4]
    assert len(subject) == 5


def test_a_new_key_has_nothing_due():
    subject = index()
    [slot] = subject.slots(names(b"a"))
    assert subject.last_due().of(slot) == (TIME_MIN, TIME_MIN, b"")


def test_rows_are_loaded_once_for_all_new_keys_of_a_batch():
    store = CountingStore()
    subject = index(store)
    subject.slots(names(*(b"k%d" % (i % 300) for i in range(1000))))
    assert [len(keys) for keys in store.asked] == [300, 300]
    subject.slots(names(b"k0", b"k299"))
    assert len(store.asked) == 2


def test_more_keys_than_reserved_keep_their_rows():
    subject = index()
    released(subject, (b"first", 7, 1, b"x"))
    subject.slots(names(*(b"k%d" % i for i in range(5_000))))
    [slot] = subject.slots(names(b"first"))
    assert subject.last_due().of(slot) == (7, 1, b"x")


def test_only_changed_keys_are_taken_and_only_once():
    subject = index()
    subject.slots(names(b"quiet"))
    released(subject, (b"a", 1, 0, b"x"), (b"b", 2, 0, b"y"), (b"a", 3, 5, b"z"))
    changed = subject.take_changed()
    assert changed.due.key.tolist() == [b"a", b"b"]
    assert (changed.due.event_time.tolist(), changed.due.sequence.tolist()) == ([3, 2], [5, 0])
    assert changed.due.event_id.tolist() == [b"z", b"y"]
    assert changed.rows[0]["events"].tolist() == [2, 1]
    assert len(subject.take_changed().due) == 0


def test_what_was_taken_does_not_change_with_later_folds():
    subject = index()
    released(subject, (b"a", 1, 0, b"x"))
    changed = subject.take_changed()
    released(subject, (b"a", 2, 0, b"y"))
    assert (changed.due.event_time.tolist(), changed.rows[0]["events"].tolist()) == ([1], [1])


def test_dropped_keys_come_back_from_the_store_as_they_were():
    store = MemoryStore()
    subject = index(store)
    released(subject, (b"a", 10, -3, "é".encode()), (b"b\xff", 20, 2**62, b""))
    expected = commit(subject, store)
    subject.drop_all(WriteBatch())
    assert len(subject) == 0
    slots = subject.slots(names(b"b\xff", b"a", b"new"))
    due = subject.last_due()
    assert [due.of(int(slot)) for slot in slots] == [
        (20, 2**62, b""),
        (10, -3, "é".encode()),
        (TIME_MIN, TIME_MIN, b""),
    ]
    released(subject, (b"a", 11, 0, b"x"))
    [row] = commit(subject, store).rows[0]
    assert row["events"] == 2
    assert row["first_event_time"] == expected.rows[0]["first_event_time"][0] == 10


def test_rows_lie_under_their_prefix_with_the_key_behind_it():
    store = MemoryStore()
    subject = index(store)
    released(subject, (b"a", 1, 0, b"x"))
    changed = commit(subject, store)
    assert [key for key, _ in store.scan(b"")] == [table_prefix("vehicles.state.v1") + b"a", LAST_DUE + b"a"]
    assert due_puts(changed.due) == [(LAST_DUE + b"a", b"\1" + bytes(15) + b"x")]


def test_packed_rows_are_the_rows_bytes():
    rows = np.zeros(3, AGGREGATE.dtype)
    rows["events"] = [1, 2, 3]
    packed = pack_rows(rows)
    assert [np.frombuffer(one, AGGREGATE.dtype)[0]["events"] for one in packed] == [1, 2, 3]
    assert b"".join(packed) == rows.tobytes()
    assert pack_rows(rows[:0]) == []


def test_events_of_keys_that_belong_elsewhere_are_counted():
    subject = index(belongs=lambda key: key.startswith(b"a"))
    assert subject.misrouted(subject.slots(names(b"a1", b"a2"))) == 0
    assert subject.misrouted(subject.slots(names(b"a1", b"b", b"b", b"c"))) == 3
    assert subject.misrouted(subject.slots(names(b"a1"))) == 0
    subject.drop_all(WriteBatch())
    assert subject.misrouted(subject.slots(names(b"b", b"a1"))) == 1


def test_memory_grows_with_keys_and_goes_with_them():
    subject = index()
    subject.slots(names(*(b"k%d" % i for i in range(100))))
    assert subject.bytes_used > 10_000
    subject.drop_all(WriteBatch())
    assert subject.bytes_used == 0


def test_long_keys_count_with_their_length():
    short, long = index(), index()
    short.slots(names(*(b"%05d" % i for i in range(500))))
    long.slots(names(*(b"%01000d" % i for i in range(500))))
    assert long.bytes_used - short.bytes_used == 500 * 995


def test_changed_keys_count_until_they_are_taken():
    subject = index()
    released(subject, (b"a" * 1_000, 1, 0, b"x"))
    once = subject.changed_bytes
    released(subject, (b"a" * 1_000, 2, 0, b"y"))
    assert once == subject.changed_bytes > 5_000
    subject.take_changed()
    assert 0 == subject.changed_bytes


def with_windows(store, devices, monkeypatch):
    """An index over `devices` keys of which every second has an open window, all of them in the store only."""
    monkeypatch.setattr("streams.engine.keys._SCAN_ROWS", 7)
    operator = windows_of(GPS)[0]
    rows = operator.empty(devices)
    rows["start"], rows["close_at"] = 0, 100 + np.arange(devices)
    rows["close_at"][1::2] = NEVER
    puts = [(window_prefix("vehicles.minutes.v1") + b"k%03d" % i, row) for i, row in enumerate(pack_rows(rows))]
    store.write(WriteBatch(puts=puts))
    subject = KeyIndex(store, GPS, lambda _: True)
    subject.load_open_windows()
    return subject


def test_open_windows_of_the_store_are_not_loaded_before_the_watermark_has_passed_them(monkeypatch):
    store = CountingStore()
    subject = with_windows(store, 40, monkeypatch)
    assert (0, 100) == (len(subject), subject.windows_close_at())
    assert not subject.close_windows(99)
    assert subject.close_windows(104)
    assert ([b"k000", b"k002", b"k004"], 106) == (subject.take_closed()[0].keys.tolist(), subject.windows_close_at())


def test_of_many_windows_that_end_at_once_a_bounded_number_is_loaded_in_a_cycle(monkeypatch):
    monkeypatch.setattr("streams.engine.keys._LOADED_MAX", 6)
    store = MemoryStore()
    subject = with_windows(store, 40, monkeypatch)
    closed = []
    for _ in range(4):
        subject.close_windows(10_000)
        subject.close_windows(10_000)  # no more in this cycle
        closed.append([key for part in subject.take_closed() for key in part.keys.tolist()])
        store.write(WriteBatch(delete_ranges=subject.take_forgotten(), puts=subject.take_changed().puts()))
    assert [6, 6, 6, 2] == list(map(len, closed))
    assert NEVER == subject.windows_close_at()
    assert [] == list(store.scan(open_window_prefix("vehicles.minutes.v1")))


def test_a_window_that_is_dropped_after_later_ones_were_loaded_is_found_again(monkeypatch):
    """It was skipped as one that had been loaded: its row never came out."""
    store = MemoryStore()
    subject = with_windows(store, 40, monkeypatch)
    subject.slots(names(b"k000"))
    subject.close_windows(99)
    store.write(WriteBatch(delete_ranges=subject.take_forgotten()))
    subject._waited = [open_window_prefix("vehicles.minutes.v1") + b"\xff" * 16]  # as after a load of later ones
    batch = WriteBatch()
    subject.drop_all(batch)
    store.write(batch)
    assert 100 == subject.windows_close_at()
    subject.close_windows(100)
    assert [b"k000"] == subject.take_closed()[0].keys.tolist()


def test_keys_with_open_windows_are_dropped_as_well_and_close_all_the_same(monkeypatch):
    store = MemoryStore()
    subject = with_windows(store, 40, monkeypatch)
    subject.slots(names(b"k038"))
    batch = WriteBatch()
    subject.drop_all(batch)
    store.write(batch)
    assert 0 == len(subject)
    subject.close_windows(10_000)
    assert [b"k%03d" % i for i in range(0, 40, 2)] == subject.take_closed()[0].keys.tolist()
