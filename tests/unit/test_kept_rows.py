"""Rows that a join keeps for a time: what is found of them, and what survives stores, restores and other layouts."""

import random
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pytest

from streams.batch.columns import Bools, objects
from streams.batch.rows import Rows, empty_rows
from streams.growth.home import every_key
from streams.operators.join.bucketed import NUMBER, TIME
from streams.operators.join.kept import KeptRows
from streams.operators.keyed import KeySpace
from streams.state.journal import JournalCorrupted
from streams.state.memory import MemoryStore
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

NUMBERS: Final = np.dtype([(NUMBER, "<i8"), (TIME, "<i8"), ("r.value", "<f8")])
TEXTS: Final = np.dtype([*NUMBERS.descr, ("r.note", "O")])
KEEP_MS: Final = 1_000
EVERYTHING: Final = 1 << 40

Kept = tuple[bytes, int, int]
"""Key, time and number."""


class Partition:
    """Rows of a partition over a store that outlives them."""

    def __init__(self, dtype: Any = TEXTS, keep_ms: int = KEEP_MS, of: frozenset[bytes] | None = None) -> None:
        self.dtype, self.keep_ms, self.of = dtype, keep_ms, of
        self.store, self.journal = MemoryStore({}), list[bytes]()
        self.begin()

    def begin(self) -> None:
        """As after a restart, without what the journal has."""
        self.keys = KeySpace(every_key)
        self.rows = KeptRows(self.dtype, self.keep_ms, StoreSpace(self.store, "rows"), self.keys, self._kept)

    def _kept(self, keys: Sequence[bytes]) -> Bools | None:
        return None if self.of is None else np.array([key in self.of for key in keys], dtype=np.bool_)

    def restore(self, *, bytes_max: int = EVERYTHING, watermark: int = 0) -> None:
        self.begin()
        for piece in self.journal:
            self.rows.replay(memoryview(piece), bytes_max)
        self.rows.restored(watermark)
        self.rows.place()

    def add(self, found: Sequence[tuple[bytes, int]]) -> None:
        rows: Rows = empty_rows(self.dtype, len(found))
        rows[NUMBER] = self.rows.next_number + np.arange(len(found))
        rows[TIME] = [time for _, time in found]
        rows["r.value"] = rows[NUMBER] * 2
        if "r.note" in (self.dtype.names or ()):
            rows["r.note"] = objects([None if time % 3 else b"n%d" % time for _, time in found])
        self.rows.add(self.keys.slots(objects([key for key, _ in found])), rows)

    def commit(self) -> None:
        self.journal += self.rows.take_came()[0]

    def write(self) -> None:
        batch = WriteBatch()
        self.rows.store(batch)
        self.store.write(batch)

    def forget(self) -> None:
        batch = WriteBatch()
        self.keys.forget(batch)
        self.store.write(batch)

    def all_of(self, key: bytes) -> list[Kept]:
        slots = self.keys.slots(objects([key]))
        one = np.array([0], dtype=np.int64)
        found = self.rows.between(slots, one, one + EVERYTHING, one + EVERYTHING, EVERYTHING).rows
        for row in found:
            assert row["r.value"] == 2 * row[NUMBER]
            if "r.note" in (self.dtype.names or ()):
                assert row["r.note"] == (None if row[TIME] % 3 else b"n%d" % row[TIME])
        return [(key, int(row[TIME]), int(row[NUMBER])) for row in found]


def test_a_key_that_is_met_before_what_a_restore_has_left_is_placed_has_all_of_its_rows() -> None:
    """As by an event that is held, before the join is asked for anything. Seed 1 of `simulate_pair`."""
    part = Partition()
    part.add([(b"a", 10)])
    part.commit()
    part.write()
    part.add([(b"b", 11), (b"a", 12)])
    part.commit()
    part.begin()
    for piece in part.journal:
        part.rows.replay(memoryview(piece), EVERYTHING)
    part.keys.slots(objects([b"a"]))
    part.rows.restored(0)
    part.write()
    part.rows.place()
    assert [time for _, time, _ in part.all_of(b"a")] == [10, 12]
    assert [time for _, time, _ in part.all_of(b"b")] == [11]


def test_what_is_found_is_what_a_list_has() -> None:
    rng = random.Random(3)
    part, known, clock = Partition(keep_ms=EVERYTHING), list[Kept](), dict.fromkeys((b"a", b"b", b"c"), 0)
    for _ in range(60):
        batch = []
        for _ in range(rng.randint(1, 9)):
            key = rng.choice(list(clock))
            clock[key] += rng.choice((0, 1, 5, 90))
            batch.append((key, clock[key]))
        known += [(key, time, part.rows.next_number + at) for at, (key, time) in enumerate(batch)]
        part.add(batch)
        part.commit()
        if rng.random() < 0.2:
            part.forget()
        if rng.random() < 0.1:
            part.restore()
        key, low = rng.choice(list(clock)), rng.randint(0, 2_000)
        high, before, at_most = low + rng.randint(0, 900), rng.randint(0, len(known) + 2), rng.randint(1, 5)
        wanted = [one for one in known if one[0] == key and low <= one[1] <= high and one[2] < before]
        slots = part.keys.slots(objects([b"nobody", key]))
        lows, highs, befores = (np.full(2, bound, dtype=np.int64) for bound in (low, high, before))
        matches = part.rows.between(slots, lows, highs, befores, at_most)
        assert [(key, row[TIME], row[NUMBER]) for row in matches.rows] == wanted[-at_most:]
        assert matches.beyond == len(wanted) - len(wanted[-at_most:])
        assert (matches.query == 1).all()
        found, rows = part.rows.latest(slots, lows, highs, befores)
        assert found.tolist() == [False, bool(wanted)]
        assert not wanted or (key, rows[1][TIME], rows[1][NUMBER]) == wanted[-1]
    assert len(known) > 200


@pytest.mark.parametrize("dtype", [NUMBERS, TEXTS], ids=["numbers", "texts"])
@pytest.mark.parametrize("bytes_max", [0, EVERYTHING], ids=["no memory", "enough memory"])
def test_rows_come_back_from_store_and_journal_each_once(dtype: Any, bytes_max: int) -> None:
    part = Partition(dtype)
    part.add([(b"a", 100), (b"b", 700), (b"a", 800)])
    part.commit()
    part.write()
    part.add([(b"a", 801)])
    part.commit()
    wanted = [(b"a", 100, 0), (b"a", 800, 2), (b"a", 801, 3)]
    assert part.all_of(b"a") == wanted
    for _ in range(2):
        part.restore(bytes_max=bytes_max)
        assert part.all_of(b"a") == wanted
        assert part.rows.next_number == 4
    part.forget()
    assert part.all_of(b"a") == wanted
    part.store.write(WriteBatch(delete_ranges=[(b"", b"\xff" * 9)]))
    part.restore(bytes_max=bytes_max)
    assert part.all_of(b"a") == wanted
    assert part.all_of(b"b") == [(b"b", 700, 1)]


def test_another_layout_and_another_time_are_taken_over() -> None:
    part = Partition(NUMBERS)
    part.add([(b"a", 100), (b"a", 900)])
    part.commit()
    part.write()
    part.dtype, part.keep_ms = np.dtype([*NUMBERS.descr, ("r.more", "<f8")]), 5_000
    part.restore()
    assert part.all_of(b"a") == [(b"a", 100, 0), (b"a", 900, 1)]
    slots, rows = part.rows.from_time(0, EVERYTHING)
    assert np.isnan(rows["r.more"]).all()
    assert len(slots) == 2
    assert {key[1:9] for key, _ in StoreSpace(part.store, "rows").scan(b"r")} == {
        (0).to_bytes(8, "big"),
        (1).to_bytes(8, "big"),
    }


def test_what_is_too_old_goes_a_bucket_at_a_time() -> None:
    part = Partition()
    part.add([(b"a", 100), (b"b", 600), (b"a", 1_500)])
    part.commit()
    part.write()
    for watermark, wanted in ((1_050, 3), (1_300, 2), (2_900, 0)):
        batch = WriteBatch()
        part.rows.expire(watermark, batch)
        part.store.write(batch)
        assert len(part.rows) == wanted
        assert len(list(StoreSpace(part.store, "rows").scan(b"r"))) == wanted
    assert part.rows.durable_below() == np.iinfo(np.int64).max


def test_rows_of_a_time_are_found_in_the_store() -> None:
    part = Partition()
    part.add([(b"a", 100), (b"b", 600), (b"c", 900)])
    part.commit()
    part.forget()
    assert part.rows.oldest(150) <= 600
    slots, rows = part.rows.from_time(500, 700)
    assert rows[TIME].tolist() == [600]
    assert part.keys.keys_at(slots).tolist() == [b"b"]
    assert part.rows.oldest(601) <= 900


def test_a_partition_that_takes_keys_over_has_those_only() -> None:
    parent = Partition()
    parent.add([(b"a", 100), (b"b", 600), (b"a", 700)])
    parent.commit()
    child = Partition(of=frozenset({b"b"}))
    child.journal = parent.journal
    child.restore()
    child.forget()
    pieces, newest = child.rows.snapshot()
    assert newest == 600
    child.journal = pieces
    child.store = MemoryStore({})
    child.restore()
    assert (child.all_of(b"a"), child.all_of(b"b")) == ([], [(b"b", 600, 1)])
    parent.of = frozenset({b"a"})
    parent.rows.drop_moved()
    assert parent.rows.from_time(0, EVERYTHING)[1][TIME].tolist() == [100, 700]


def test_keys_are_forgotten() -> None:
    part = Partition()
    part.add([(b"a", 100), (b"b", 600)])
    part.commit()
    part.write()
    part.add([(b"a", 700)])
    part.commit()
    part.begin()
    for piece in part.journal:
        part.rows.replay(memoryview(piece), EVERYTHING)
    part.rows.forget_keys([b"a"])
    part.rows.restored(0)
    part.rows.place()
    assert (part.all_of(b"a"), part.all_of(b"b")) == ([], [(b"b", 600, 1)])


def test_other_bytes_are_refused() -> None:
    part = Partition()
    part.add([(b"a", 100)])
    part.commit()
    for cut in range(1, len(part.journal[0])):
        with pytest.raises(JournalCorrupted):
            part.rows.replay(memoryview(part.journal[0][:-cut]), EVERYTHING)
