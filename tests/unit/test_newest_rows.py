"""The newest rows of a table that is joined: they are in the journal at any time, and survive other layouts."""

from typing import Final

import numpy as np

from streams.batch.columns import objects
from streams.batch.rows import empty_rows
from streams.growth.home import every_key
from streams.operators.join.newest import NewestRows
from streams.operators.keyed import KeySpace
from streams.state.memory import MemoryStore
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

ROW: Final = np.dtype([("since", "<i8"), ("r.value", "<f8"), ("r.note", "O")])


class Partition:
    """Rows of a partition over a store, and its journal: the pieces of each cycle."""

    def __init__(self, dtype: "np.dtype[np.void]" = ROW) -> None:
        self.store, self.journal = MemoryStore({}), list[list[bytes]]()
        self.first = 0
        self.begin(dtype)

    def begin(self, dtype: "np.dtype[np.void]" = ROW) -> None:
        """As after a restart."""
        self.keys = KeySpace(every_key)
        self.rows = NewestRows(empty_rows(dtype, 1), StoreSpace(self.store, "newest"), self.keys, lambda _: None)

    def put(self, since: int, *keys: bytes) -> None:
        slots = np.unique(self.keys.slots(objects(list(keys))))
        rows = empty_rows(ROW, len(slots))
        rows["since"], rows["r.value"] = since, since / 2
        rows["r.note"] = objects([key + b"!" for key in self.keys.keys_at(slots)])
        self.rows.put(slots, rows, self.rows.of(slots))

    def close(self) -> WriteBatch:
        """End the cycle; what is to be written to the store once it is committed."""
        batch = WriteBatch()
        self.journal.append(self.rows.take_changed(batch))
        return batch

    def apply(self, batch: WriteBatch) -> None:
        self.store.write(batch)
        self.rows.applied(len(self.journal) - 1)

    def cycle(self) -> None:
        self.apply(self.close())

    def restored(self) -> "Partition":
        """What another worker has from the journal alone."""
        found = Partition()
        for cycle in self.journal[self.first :]:
            for piece in cycle:
                found.rows.replay(memoryview(piece), is_new=True)
        found.rows.write_replayed()
        return found

    def since(self, key: bytes) -> int | None:
        slots = self.keys.slots(objects([key]))
        if not self.rows.known(slots)[0]:
            return None
        row = self.rows.of(slots)[0]
        assert (row["r.value"], row["r.note"]) == (row["since"] / 2, key + b"!")
        return int(row["since"])


def test_rows_of_any_age_are_written_again_before_the_journal_is_cut() -> None:
    part, names = Partition(), [b"k%d" % number for number in range(600)]
    part.rows.write_replayed()
    part.put(1, *names)
    part.cycle()
    for since in range(2, 6):
        part.put(since, b"k0")
        part.cycle()
    cut = len(part.journal)
    assert part.rows.journal_needed(cut) == 0
    while (needed := part.rows.journal_needed(cut)) is not None:
        assert needed == 0
        part.put(10 + len(part.journal), b"k1")
        part.cycle()
        assert len(part.journal) < cut + 10
    assert sum(map(len, part.journal[cut])) > 0
    part.first = cut
    found = part.restored()
    assert found.since(b"k0") == 5
    assert found.since(b"k1") == part.since(b"k1")
    assert all(found.since(name) == 1 for name in names[2:])
    assert found.since(b"other") is None


def test_what_is_in_flight_is_not_overwritten_by_what_the_store_has() -> None:
    part = Partition()
    part.rows.write_replayed()
    part.put(1, b"a", b"b")
    part.cycle()
    part.put(2, b"a")
    in_flight = part.close()
    part.rows.journal_needed(len(part.journal))
    part.put(3, b"b")
    following = part.close()
    part.apply(in_flight)
    part.apply(following)
    part.first = 2
    found = part.restored()
    assert (found.since(b"a"), found.since(b"b")) == (2, 3)


def test_other_columns_are_taken_over_by_name() -> None:
    part = Partition()
    part.rows.write_replayed()
    part.put(4, b"a")
    part.cycle()
    part.begin(np.dtype([("r.more", "<f8"), *ROW.descr]))
    part.rows.write_replayed()
    slots = part.keys.slots(objects([b"a"]))
    (row,) = part.rows.of(slots)
    assert np.isnan(row["r.more"])
    assert (row["since"], row["r.note"]) == (4, b"a!")


def test_forgotten_and_void_rows_are_gone() -> None:
    part = Partition()
    part.rows.write_replayed()
    part.put(4, b"a", b"b", b"c")
    part.cycle()
    part.put(9, b"c")
    part.cycle()
    part.begin()
    part.rows.forget_keys([b"a"])
    batch = WriteBatch()
    part.rows.expire(batch, lambda rows: rows["since"] > 8)
    part.store.write(batch)
    assert [part.since(key) for key in (b"a", b"b", b"c")] == [None, 4, None]
