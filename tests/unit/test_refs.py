"""Columns by reference: what is done with them gives what it gives with object arrays of bytes objects."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from streams.avro.native import choose
from streams.batch.columns import Bools, Objects, objects
from streams.batch.events import Events, Fields
from streams.batch.records import Records
from streams.batch.refs import ByteRefs, byte_objects, byte_sizes, compact, concat_bytes, concat_records
from streams.operators.keyed import KeySpace
from streams.operators.reorder.section import pack_held, unpack_held
from streams.state.codec import pack_column, pack_texts

pytestmark = pytest.mark.native

VALUES: list[bytes | None] = [b"a", b"", None, b"\0" * 300, "ü".encode(), b"a", b"last"]


@pytest.fixture
def made() -> type[ByteRefs]:
    native = choose("on").native
    assert native is not None
    return native.library.ByteRefs


def random_values(rng: random.Random, count: int) -> list[bytes | None]:
    return [None if rng.random() < 0.1 else rng.randbytes(rng.randrange(40)) for _ in range(count)]


def test_a_column_by_reference_holds_what_it_was_made_of(made: type[ByteRefs]) -> None:
    column = made.of(VALUES)
    assert (len(column), column.tolist(), list(column)) == (len(VALUES), VALUES, VALUES)
    assert [column[row] for row in range(-len(VALUES), len(VALUES))] == [*VALUES, *VALUES]
    assert column.sizes().tolist() == [len(value or b"") for value in VALUES]
    for row in (len(VALUES), -len(VALUES) - 1):
        with pytest.raises(IndexError):
            column[row]


def test_any_sequence_of_cuts_gives_what_it_gives_with_object_arrays(made: type[ByteRefs]) -> None:
    rng = random.Random(7)
    for _ in range(300):
        values = random_values(rng, rng.randrange(1, 30))
        refs, plain = made.of(values), objects(values)
        for _ in range(rng.randrange(6)):
            match rng.randrange(4):
                case 0:
                    rows = np.array([rng.randrange(len(plain)) for _ in range(rng.randrange(40))] if len(plain) else [])
                    refs, plain = refs.take(rows.astype(np.int64)), plain.take(rows.astype(np.int64))
                case 1:
                    first, last = (rng.choice([None, rng.randrange(-35, 35)]) for _ in range(2))
                    cut: Any = slice(first, last, rng.choice([None, 1, 2, -1]))
                    refs, plain = refs[cut], plain[cut]
                case 2:
                    refs = refs.compact()
                case _:
                    more = random_values(rng, rng.randrange(5))
                    parts: list[Any] = [refs, made.of(more), refs[1:3]]
                    refs, plain = made.concat(parts), np.concatenate([plain, objects(more), plain[1:3]])
            assert refs.tolist() == plain.tolist()


@pytest.mark.parametrize("rows", [[7], [-1], [0, 1 << 40]])
def test_a_row_that_is_not_there_cannot_be_taken(made: type[ByteRefs], rows: list[int]) -> None:
    with pytest.raises(IndexError):
        made.of(VALUES).take(np.array(rows))


@pytest.mark.parametrize("odd", ["text", 1, bytearray(b"a")])
def test_only_bytes_objects_are_referred_to(made: type[ByteRefs], odd: Any) -> None:
    with pytest.raises(TypeError):
        made.of([b"a", odd])


def test_packed_as_texts_of_a_journal_record(made: type[ByteRefs]) -> None:
    values: list[Any] = [value for value in VALUES if value is not None]
    assert (
        b"".join(pack_column(made.of(values))) == b"".join(pack_texts(values)) == b"".join(pack_column(objects(values)))
    )
    with pytest.raises(ValueError, match="null"):
        made.of(VALUES).pack()


def test_columns_of_both_kinds_are_put_together_by_reference(made: type[ByteRefs]) -> None:
    mixed = concat_bytes([objects([b"a", None]), made.of([b"b"]), objects([])])
    assert not isinstance(mixed, np.ndarray)
    assert byte_objects(mixed).tolist() == [b"a", None, b"b"]
    assert concat_bytes([objects([b"a"]), objects([b"b"])]).tolist() == [b"a", b"b"]
    assert list(concat_records([[b"a", None], made.of([b"b"])])) == [b"a", None, b"b"]
    assert concat_records([[b"a"], [None]]) == [b"a", None]
    assert byte_sizes(objects([b"a", b""])).tolist() == byte_sizes(made.of([b"a", None])).tolist() == [1, 0]
    assert compact(made.of(VALUES)).tolist() == VALUES


# --- records and events -----------------------------------------------------------------------------------------------


def events_of(keys: Any, values: Any, ids: Any) -> Events:
    count = len(keys)
    numbers, words = np.arange(count), np.arange(count, dtype=np.uint64)
    texts: Objects = objects([b"t"] * count).reshape(1, count)
    return Events(
        row=numbers, timestamp_ms=numbers, event_time=numbers, sequence=numbers, event_id=ids, id_hi=words, id_lo=words,
        id_word=words, key=keys, value=values, headers=None, payload=np.zeros((1, count)), texts=texts, slot=numbers,
        fields=Fields(("p",), ("t",)),
    )  # fmt: skip


def columns_of(events: Events) -> list[list[Any]]:
    return [column.tolist() for column in (events.key, events.value, events.event_id, events.row)]


def test_events_are_cut_and_put_together_alike(made: type[ByteRefs]) -> None:
    names: list[Any] = [[b"k%d" % (row % 3), b"v" * row, b"id %d" % row] for row in range(9)]
    keys, values, ids = (list(column) for column in zip(*names, strict=True))
    plain = events_of(objects(keys), objects(values), objects(ids))
    by_reference = events_of(made.of(keys), made.of(values), made.of(ids))
    for cut in (slice(2, 7), np.array([4, 0]), np.arange(9) % 2 == 0):
        assert columns_of(plain.take(cut)) == columns_of(by_reference.take(cut))
    whole = [plain.take(slice(0, 4)), by_reference.take(slice(4, 9))]
    assert columns_of(Events.concat(whole)) == columns_of(plain)
    assert columns_of(by_reference.with_objects()) == columns_of(by_reference.compact()) == columns_of(plain)
    assert plain.with_objects() is plain
    assert plain.compact() is plain
    packed = [pack_held(each, bytes_max=100) for each in (plain, by_reference)]
    assert packed[0] == packed[1]
    assert (
        columns_of(unpack_held(memoryview(packed[1][0]), plain.fields))[0]
        == keys[: len(unpack_held(memoryview(packed[0][0]), plain.fields))]
    )


def test_records_are_cut_and_put_together_alike(made: type[ByteRefs]) -> None:
    numbers = np.arange(len(VALUES))
    plain = Records(numbers, numbers, numbers, VALUES, VALUES[::-1])
    by_reference = Records(numbers, numbers, numbers, made.of(VALUES), made.of(VALUES[::-1]))
    rows = np.array([5, 1, 2])
    for one, other in (
        (plain, by_reference),
        (plain.take(rows), by_reference.take(rows)),
        (Records.concat([plain, plain]), Records.concat([by_reference, plain])),
        (plain.compact(), by_reference.take(rows).compact().take(np.array([], np.int64))),
    )[:3]:
        assert [one.key, one.value] == [list(other.key), list(other.value)]
        assert [one.key, one.value] == [other.with_objects().key, other.with_objects().value]
        assert list(other.compact().value) == one.value


# --- keys -------------------------------------------------------------------------------------------------------------


class _Loaded:
    """Rows of an operator: it notes which keys were loaded."""

    def __init__(self) -> None:
        self.keys: list[tuple[int, list[bytes]]] = []
        self.bytes_used = 0

    def reserve(self, more: int) -> None: ...

    def load(self, first: int, keys: list[bytes]) -> None:
        self.keys.append((first, list(keys)))

    def forget(self, keys: Objects, batch: Any) -> None:
        self.keys.append((-1, keys.tolist()))


def is_short(keys: Sequence[bytes]) -> Bools:
    return np.array([len(key) < 3 for key in keys], dtype=np.bool_)


@pytest.mark.parametrize("form", ["references", "objects"])
def test_keys_get_the_same_slots_natively(made: type[ByteRefs], form: str) -> None:
    rng = random.Random(3)
    native = choose("on").native
    assert native is not None
    spaces = [KeySpace(is_short), KeySpace(is_short, native.library.KeyMap())]
    loaded = [space.attach(_Loaded()) for space in spaces]
    for turn in range(200):
        keys: list[Any] = [b"%d" % rng.randrange(300) for _ in range(rng.randrange(30))]
        given: Any = made.of(keys) if form == "references" else objects(keys)
        found = [spaces[0].slots(objects(keys)), spaces[1].slots(given)]
        assert found[0].tolist() == found[1].tolist()
        assert found[0].dtype == found[1].dtype == np.int64
        assert loaded[0].keys == loaded[1].keys
        assert len(spaces[0]) == len(spaces[1])
        assert spaces[0].bytes_used == spaces[1].bytes_used
        slots = np.unique(found[0])
        assert spaces[0].keys_at(slots).tolist() == spaces[1].keys_at(slots).tolist()
        if turn % 50 == 49:
            for space in spaces:
                space.forget(None)  # type: ignore[arg-type]  # nothing is noted
