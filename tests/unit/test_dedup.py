from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from streams.avro.native import choose
from streams.batch.event_ids import mix
from streams.operators.dedup.id_set import BYTES_PER_SLOT, IdSet

NewSet = Callable[..., IdSet]


@pytest.fixture(params=["off", pytest.param("on", marks=pytest.mark.native)])
def new_set(request: pytest.FixtureRequest) -> NewSet:
    """Makes sets that insert by numpy, or natively."""
    native = choose(request.param).native
    return partial(IdSet, add_ids=None if native is None else native.library.ids_add)


def columns(rows: list[tuple[int, int, int]]) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    array = np.array(rows, dtype=np.uint64).reshape(-1, 3)
    return array[:, 0].copy(), array[:, 1].copy(), array[:, 2].copy()


def first_copies(rows: list[tuple[int, int, int]], seen: set[tuple[int, int, int]]) -> list[bool]:
    new = []
    for row in rows:
        new.append(row not in seen)
        seen.add(row)
    return new


def random_rows(rng: np.random.Generator, count: int, *, values: int) -> list[tuple[int, int, int]]:
    return [tuple(row) for row in rng.integers(1, values + 1, (count, 3)).tolist()]


def test_the_first_of_equal_rows_is_new(new_set: NewSet) -> None:
    ids = new_set()
    assert ids.add(*columns([(1, 1, 1), (1, 1, 1), (2, 1, 1), (1, 1, 1)])).tolist() == [True, False, True, False]
    assert ids.add(*columns([(2, 1, 1), (3, 1, 1)])).tolist() == [False, True]
    assert len(ids) == 3


def test_rows_that_differ_in_one_word_are_different(new_set: NewSet) -> None:
    rows = [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (0, 0, 1), (0, 0, 2)]
    assert new_set().add(*columns(rows)).all()


def test_columns_may_stand_anywhere_in_memory(new_set: NewSet) -> None:
    packed = b"x" + np.arange(1, 7, dtype=np.uint64).tobytes()
    hi, lo, word = (np.frombuffer(packed, np.uint64, 2, offset=1 + 16 * column) for column in range(3))
    ids = new_set()
    assert ids.add(hi, lo, word).tolist() == [True, True]
    assert ids.add(*columns([(1, 3, 5), (2, 4, 6), (1, 1, 1)])).tolist() == [False, False, True]
    assert ids.add(hi[::-1], lo[::-1], word[::-1]).tolist() == [False, False]


def test_nothing_added_is_nothing_new(new_set: NewSet) -> None:
    ids = new_set()
    assert ids.add(*columns([])).tolist() == []
    assert len(ids) == 0


@pytest.mark.parametrize("seed", range(8))
def test_batches_of_any_size_agree_with_a_python_set(seed: int, new_set: NewSet) -> None:
    rng = np.random.default_rng(seed)
    seen: set[tuple[int, int, int]] = set()
    ids = new_set(seed)
    for size in rng.choice([0, 1, 5, 12, 13, 100, 3000], 30):
        rows = random_rows(rng, int(size), values=int(rng.choice([2, 9, 40])))
        assert ids.add(*columns(rows)).tolist() == first_copies(rows, seen)
        assert len(ids) == len(seen)
    assert set(zip(*(column.tolist() for column in ids.rows()), strict=True)) == seen


def test_the_answer_does_not_depend_on_the_hashs_seed(new_set: NewSet) -> None:
    rng = np.random.default_rng(0)
    batches = [columns(random_rows(rng, 700, values=8)) for _ in range(5)]
    answers = []
    for seed in (0, 1, 2**63):
        ids = new_set(seed)
        answers.append([ids.add(*batch).tolist() for batch in batches])
    assert answers[0] == answers[1] == answers[2]


def test_it_grows_and_forgets_nothing(new_set: NewSet) -> None:
    ids = new_set()
    count = 200_000
    number = np.arange(1, count + 1, dtype=np.uint64)
    for start in range(0, count, 20_000):
        part = number[start : start + 20_000]
        assert ids.add(part, part, part).all()
    assert not ids.add(number, number, number).any()
    assert len(ids) == count
    assert ids.bytes_used <= 8 * count * BYTES_PER_SLOT


def test_a_batch_of_one_id_many_times_has_one_new_row(new_set: NewSet) -> None:
    one = np.full(50_000, 7, dtype=np.uint64)
    new = new_set().add(one, one, one)
    assert (new[0], new.sum()) == (True, 1)


def test_retain_keeps_what_it_is_told_and_gives_memory_back(new_set: NewSet) -> None:
    ids = new_set()
    number = np.arange(1, 50_001, dtype=np.uint64)
    ids.add(number, number, number)
    before = ids.bytes_used
    _, _, word = ids.rows()
    ids.retain(word <= np.uint64(100))
    assert len(ids) == 100
    assert ids.bytes_used < before / 50
    new = ids.add(number, number, number)
    assert np.flatnonzero(~new).tolist() == list(range(100))


def test_retain_nothing_and_retain_all(new_set: NewSet) -> None:
    ids = new_set()
    ids.add(*columns([(1, 1, 1), (2, 2, 2)]))
    ids.retain(np.array([True, True]))
    assert len(ids) == 2
    ids.retain(np.array([False, False]))
    assert len(ids) == 0
    assert ids.add(*columns([(1, 1, 1)])).tolist() == [True]


def test_rows_that_all_want_the_same_place_are_told_apart(new_set: NewSet) -> None:
    """The worst case of a hash: equal top bits (found by search), so that all rows meet again and again."""
    number = np.arange(1, 400_000, dtype=np.uint64)
    top = mix(number, number, number) >> np.uint64(54)
    same = number[top == top[0]]
    assert len(same) > 300
    ids = new_set()
    assert ids.add(same, same, same).all()
    assert not ids.add(same, same, same).any()


@pytest.mark.native
def test_arrays_that_are_no_set_are_refused() -> None:
    native = choose("on").native
    assert native is not None
    one, eight, seven = (np.zeros(size, np.uint64) for size in (1, 8, 7))
    full = np.full(8, 9, np.uint64)
    add: Callable[..., object] = native.library.ids_add
    for tables, rows in [((seven, seven, seven), (one, one, one)), ((eight, eight, full[:4]), (one, one, one)),
                         ((eight, full, eight), (one, eight, one)), ((one, one, one), (one, one, one))]:  # fmt: skip
        with pytest.raises(ValueError, match="length"):
            add(*(table.copy() for table in tables), 0, *rows)
    with pytest.raises(ValueError, match="full"):
        add(full.copy(), full.copy(), full.copy(), 0, one, one, one + 1)
