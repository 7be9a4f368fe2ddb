"""Rows by key: the key space with the operators that keep rows of each key."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from logistics.flows.gps import GPS
from logistics.folds.vehicle_state import VehicleState
from streams.batch.columns import TIME_MIN, Bools, object_rows, objects
from streams.batch.events import Events, Fields
from streams.batch.refs import byte_values
from streams.batch.rows import pack_rows
from streams.growth.home import every_key
from streams.operators.base import OperatorContext
from streams.operators.fold.operator import FoldTable, fold_name
from streams.operators.keyed import KeySegments, KeySpace
from streams.operators.output import RefusedOutputs
from streams.operators.reorder.last import LastReleased, due_pairs
from streams.operators.reorder.section import DueRows
from streams.operators.trace import WatermarkTrace
from streams.operators.window.operator import WindowOperator, open_window_name, window_name
from streams.operators.window.runs import NEVER
from streams.operators.window.spec import TumblingWindow
from streams.operators.window.windows import Windows
from streams.state.memory import MemoryStore
from streams.state.names import operator_prefix
from streams.state.space import StoreSpace
from streams.state.store import Store, WriteBatch

AGGREGATE = VehicleState()
PIPELINE = replace(GPS, windows=())
TABLE, MINUTES = GPS.tables[0].topic, GPS.windows[0]
LAST = "reorder.last"


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[bytes]] = []

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        self.asked.append(list(keys))
        return super().get_many(keys)


class Changed:
    """What a cycle has changed: of each key its last released event, and its row of the table."""

    def __init__(self, due: DueRows, rows: list[NDArray[Any]], puts: WriteBatch) -> None:
        self.due, self.rows, self.puts = due, rows, puts


class Index:
    """A key space with last released events and a table, or with windows."""

    def __init__(
        self,
        store: CountingStore | Store,
        belong: Callable[[Sequence[bytes]], Bools] = every_key,
        *,
        windows: bool = False,
    ) -> None:
        self.store = store
        self.keys = KeySpace(belong)
        self.last = LastReleased(StoreSpace(store, LAST))
        context = OperatorContext(
            0, Fields(GPS.payload_fields), lambda name: StoreSpace(store, name), self.keys, RefusedOutputs
        )
        self.keys.attach(self.last)
        self.fold = FoldTable(TABLE, AGGREGATE).build(context)
        self._windows: WindowOperator | None = None
        if windows:
            spec = TumblingWindow(MINUTES.topic, MINUTES.aggregate, MINUTES.size_ms, MINUTES.grace_ms)
            self._windows = spec.build(context)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def bytes_used(self) -> int:
        return self.keys.bytes_used

    def slots(self, keys: NDArray[np.object_]) -> NDArray[np.int64]:
        return self.keys.slots(keys)

    def due_of(self, slot: np.int64) -> tuple[int, int, bytes]:
        return self.last.due().of(int(slot))

    def take_changed(self) -> Changed:
        changed = self.keys.take_changed()
        folded = self.fold.changes(changed)
        due = self.last.rows(changed)
        batch = WriteBatch(puts=list(folded.store.puts))
        StoreSpace(self.store, LAST).put(batch, due_pairs(due))
        return Changed(due, [rows.rows for rows in folded.changelogs], batch)

    def drop_all(self) -> None:
        batch = WriteBatch()
        self.keys.forget(batch)
        self.store.write(batch)

    # --- windows ---

    @property
    def windows(self) -> WindowOperator:
        assert self._windows is not None
        return self._windows

    def close_windows(self, watermark: int) -> bool:
        self.windows.close(watermark)
        return not self.windows.is_settled

    def end_cycle(self) -> list[bytes]:
        """Keys of the windows that have closed, in their order; what changed is written."""
        found = self.windows.changes(self.keys.take_changed())
        self.store.write(found.store)
        return [key for rows in found.rows for key in byte_values(rows.keys)]


def index(store: CountingStore | Store | None = None, belong: Callable[[Sequence[bytes]], Bools] = every_key) -> Index:
    return Index(store or MemoryStore(), belong)


def names(*keys: bytes) -> NDArray[np.object_]:
    return objects(list(keys))


def released(subject: Index, *rows: tuple[bytes, int, int, bytes]) -> None:
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
    trace = WatermarkTrace.of(0, np.zeros(count, np.int64))
    subject.last.note(subject.keys.segments(found, trace))
    subject.fold.process(found, trace)


def commit(subject: Index, store: MemoryStore) -> Changed:
    changed = subject.take_changed()
    store.write(changed.puts)
    return changed


def test_a_key_keeps_its_slot_and_keys_are_told_apart() -> None:
    subject = index()
    assert subject.slots(names(b"a", b"b", b"a")).tolist() == [0, 1, 0]
    assert subject.slots(names(b"b", b"c", b"\xff", b"")).tolist() == [1, 2, 3, 4]
    assert len(subject) == 5


def test_a_new_key_has_nothing_due() -> None:
    subject = index()
    [slot] = subject.slots(names(b"a"))
    assert subject.due_of(slot) == (TIME_MIN, TIME_MIN, b"")


def test_rows_are_loaded_once_for_all_new_keys_of_a_batch() -> None:
    store = CountingStore()
    subject = index(store)
    subject.slots(names(*(b"k%d" % (i % 300) for i in range(1000))))
    assert [len(keys) for keys in store.asked] == [300, 300]
    subject.slots(names(b"k0", b"k299"))
    assert len(store.asked) == 2


def test_more_keys_than_reserved_keep_their_rows() -> None:
    subject = index()
    released(subject, (b"first", 7, 1, b"x"))
    subject.slots(names(*(b"k%d" % i for i in range(5_000))))
    [slot] = subject.slots(names(b"first"))
    assert subject.due_of(slot) == (7, 1, b"x")


def test_segments_are_made_once_for_all_operators_and_anew_for_other_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = index()
    fields = Fields(GPS.payload_fields)
    trace = WatermarkTrace.idle(0, 0)
    some = Events.none(fields)
    made: list[Events] = []

    def of(events: Events, prior: NDArray[np.int64]) -> KeySegments:
        made.append(events)
        nothing: Any = None  # nobody looks into them here
        return KeySegments(nothing, prior, nothing)

    monkeypatch.setattr(KeySegments, "of", staticmethod(of))
    first = subject.keys.segments(some, trace)
    assert subject.keys.segments(some, trace) is first
    assert subject.keys.segments(Events.none(fields), trace) is not first
    assert len(made) == 2


def test_only_changed_keys_are_taken_and_only_once() -> None:
    subject = index()
    subject.slots(names(b"quiet"))
    released(subject, (b"a", 1, 0, b"x"), (b"b", 2, 0, b"y"), (b"a", 3, 5, b"z"))
    changed = subject.take_changed()
    assert changed.due.key.tolist() == [b"a", b"b"]
    assert (changed.due.event_time.tolist(), changed.due.sequence.tolist()) == ([3, 2], [5, 0])
    assert changed.due.event_id.tolist() == [b"z", b"y"]
    assert changed.rows[0]["events"].tolist() == [2, 1]
    assert len(subject.take_changed().due) == 0


def test_what_was_taken_does_not_change_with_later_folds() -> None:
    subject = index()
    released(subject, (b"a", 1, 0, b"x"))
    changed = subject.take_changed()
    released(subject, (b"a", 2, 0, b"y"))
    assert (changed.due.event_time.tolist(), changed.rows[0]["events"].tolist()) == ([1], [1])


def test_dropped_keys_come_back_from_the_store_as_they_were() -> None:
    store = MemoryStore()
    subject = index(store)
    released(subject, (b"a", 10, -3, "é".encode()), (b"b\xff", 20, 2**62, b""))
    expected = commit(subject, store)
    subject.drop_all()
    assert len(subject) == 0
    slots = subject.slots(names(b"b\xff", b"a", b"new"))
    assert [subject.due_of(slot) for slot in slots] == [
        (20, 2**62, b""),
        (10, -3, "é".encode()),
        (TIME_MIN, TIME_MIN, b""),
    ]
    released(subject, (b"a", 11, 0, b"x"))
    [row] = commit(subject, store).rows[0]
    assert row["events"] == 2
    assert row["first_event_time"] == expected.rows[0]["first_event_time"][0] == 10


def test_rows_lie_under_the_name_of_their_operator_with_the_key_behind_it() -> None:
    store = MemoryStore()
    subject = index(store)
    released(subject, (b"a", 1, 0, b"x"))
    changed = commit(subject, store)
    expected = {operator_prefix(fold_name(TABLE)) + b"a", operator_prefix(LAST) + b"a"}
    assert {key for key, _ in store.scan(b"")} == expected
    assert due_pairs(changed.due) == [(b"a", b"\1" + bytes(15) + b"x")]


def test_packed_rows_are_the_rows_bytes() -> None:
    rows = np.zeros(3, AGGREGATE.dtype)
    rows["events"] = [1, 2, 3]
    packed = pack_rows(rows)
    assert [np.frombuffer(one, AGGREGATE.dtype)[0]["events"] for one in packed] == [1, 2, 3]
    assert b"".join(packed) == rows.tobytes()
    assert pack_rows(rows[:0]) == []


def test_events_of_keys_that_belong_elsewhere_are_counted() -> None:
    subject = index(belong=lambda keys: np.array([key.startswith(b"a") for key in keys]))

    def misrouted(*keys: bytes) -> tuple[int, list[bytes]]:
        count = len(keys)
        subject.keys.located(replace(none_located(count), key=names(*keys)))
        return subject.keys.take_misrouted()

    assert misrouted(b"a1", b"a2") == (0, [])
    assert misrouted(b"a1", b"b", b"b", b"c") == (3, [b"b", b"c"])
    assert misrouted(b"a1") == (0, [])
    subject.drop_all()
    assert misrouted(b"b", b"a1") == (1, [b"b"])


def none_located(count: int) -> Events:
    """Events without anything but a place for their keys."""
    column = np.full(count, -1, np.int64)
    return replace(Events.none(Fields()), event_time=column, slot=column)


def test_memory_grows_with_keys_and_goes_with_them() -> None:
    subject = index()
    subject.slots(names(*(b"k%d" % i for i in range(100))))
    assert subject.bytes_used > 10_000
    subject.drop_all()
    assert subject.bytes_used == 0


def test_long_keys_count_with_their_length() -> None:
    short, long = index(), index()
    short.slots(names(*(b"%05d" % i for i in range(500))))
    long.slots(names(*(b"%01000d" % i for i in range(500))))
    assert long.bytes_used - short.bytes_used == 500 * 995


def test_changed_keys_count_until_they_are_taken() -> None:
    subject = index()
    released(subject, (b"a" * 1_000, 1, 0, b"x"))
    once = subject.keys.changed_bytes
    released(subject, (b"a" * 1_000, 2, 0, b"y"))
    assert once == subject.keys.changed_bytes > 5_000
    subject.take_changed()
    assert 0 == subject.keys.changed_bytes


def with_windows(store: CountingStore | Store, devices: int, monkeypatch: pytest.MonkeyPatch) -> Index:
    """An index over `devices` keys of which every second has an open window, all of them in the store only."""
    monkeypatch.setattr("streams.operators.timed._SCAN_ROWS", 7)
    operator = Windows(MINUTES.aggregate, size_ms=MINUTES.size_ms, grace_ms=MINUTES.grace_ms)
    rows = operator.empty(devices)
    rows["start"], rows["close_at"] = 0, 100 + np.arange(devices)
    rows["close_at"][1::2] = NEVER
    prefix = operator_prefix(window_name(MINUTES.topic))
    store.write(WriteBatch(puts=[(prefix + b"k%03d" % i, row) for i, row in enumerate(pack_rows(rows))]))
    subject = Index(store, windows=True)
    subject.windows.rows_restored()
    return subject


def test_open_windows_of_the_store_are_not_loaded_before_the_watermark_has_passed_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = CountingStore()
    subject = with_windows(store, 40, monkeypatch)
    assert (0, 100) == (len(subject), subject.windows.next_timer())
    assert not subject.close_windows(99)
    assert subject.close_windows(104)
    assert [b"k000", b"k002", b"k004"] == subject.end_cycle()
    assert 106 == subject.windows.next_timer()


def test_of_many_windows_that_end_at_once_a_bounded_number_is_loaded_in_a_cycle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.operators.timed._LOADED_MAX", 6)
    monkeypatch.setattr("streams.operators.timed._TOGETHER_MAX", 1)
    store = MemoryStore()
    subject = with_windows(store, 40, monkeypatch)
    closed = []
    for _ in range(4):
        assert subject.windows.is_overdue(10_000)
        subject.close_windows(10_000)
        subject.close_windows(10_000)  # no more in this cycle
        closed.append(subject.end_cycle())
    assert [6, 6, 6, 2] == list(map(len, closed))
    assert NEVER == subject.windows.next_timer()
    assert [] == list(store.scan(operator_prefix(open_window_name(MINUTES.topic))))


def test_windows_that_are_remembered_together_are_loaded_together_and_close_each_at_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.operators.timed._TOGETHER_MAX", 2)
    subject = with_windows(MemoryStore(), 40, monkeypatch)
    assert not subject.close_windows(99)
    assert 0 == len(subject)
    subject.close_windows(100)
    assert [b"k000"] == subject.end_cycle()
    assert 2 == len(subject), "k002 is remembered in the same row of the store"
    subject.drop_all()
    assert 102 == subject.windows.next_timer()
    subject.close_windows(10_000)
    assert [b"k%03d" % i for i in range(2, 40, 2)] == sorted(subject.end_cycle())


def test_a_window_that_is_dropped_after_later_ones_were_loaded_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was skipped as one that had been loaded: its row never came out."""
    store = MemoryStore()
    subject = with_windows(store, 40, monkeypatch)
    subject.slots(names(b"k000"))
    subject.close_windows(99)
    subject.end_cycle()
    subject.windows.rows._upto = b"\xff" * 16  # as after a load of later ones
    subject.drop_all()
    assert 100 == subject.windows.next_timer()
    subject.close_windows(100)
    assert [b"k000"] == subject.end_cycle()


def test_keys_with_open_windows_are_dropped_as_well_and_close_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    subject = with_windows(store, 40, monkeypatch)
    subject.slots(names(b"k038"))
    subject.drop_all()
    assert 0 == len(subject)
    subject.close_windows(10_000)
    assert [b"k%03d" % i for i in range(0, 40, 2)] == subject.end_cycle()
