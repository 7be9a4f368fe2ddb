import numpy as np
import pytest

from streams.limits import DEDUP_BUCKET_MS, DEDUP_PAGE_IDS
from streams.operators.dedup.pages import SpilledIds
from streams.operators.dedup.section import Ids
from streams.state.memory import MemoryStore
from streams.state.names import operator_prefix
from streams.state.space import StoreSpace
from streams.state.store import Store, WriteBatch

SPILLED_IDS = operator_prefix("dedup")


def spilled_in(store: "AskedInPieces | Store") -> SpilledIds:
    return SpilledIds(StoreSpace(store, "dedup"))


def ids_of(rows: list[tuple[int, int, int]]) -> Ids:
    array = np.array(rows, dtype=np.uint64).reshape(-1, 3)
    return Ids(array[:, 0].copy(), array[:, 1].copy(), array[:, 2].copy())


def word(event_time: int, digest: int = 0) -> int:
    return 2 * event_time + 1 + digest


def random_rows(rng, count: int, *, minutes: int = 5) -> list[tuple[int, int, int]]:
    times = rng.integers(0, minutes * DEDUP_BUCKET_MS, count)
    return [(int(rng.integers(0, 2**63)), int(rng.integers(0, 50)), word(int(t), int(rng.integers(2)))) for t in times]


def add(spilled: SpilledIds, store: "AskedInPieces | Store", rows: list[tuple[int, int, int]]) -> None:
    batch = WriteBatch()
    spilled.add(ids_of(rows), batch)
    store.write(batch)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_nothing_is_found_in_nothing(store: MemoryStore) -> None:
    spilled = spilled_in(store)
    assert spilled.contains(ids_of([(1, 2, 3)])).tolist() == [False]
    assert spilled.contains(ids_of([])).tolist() == []
    assert spilled.newest_bucket_end == 0
    add(spilled, store, [])
    assert list(store.scan(b"")) == []


@pytest.mark.parametrize("seed", range(6))
def test_what_is_there_agrees_with_a_python_set(store: MemoryStore, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spilled, seen = spilled_in(store), set()
    for size in (1, 3, 200, 5_000, 40):
        rows = random_rows(rng, size)
        add(spilled, store, rows)
        seen |= set(rows)
        asked = [*rows[:50], *random_rows(rng, 50), *list(seen)[:50]]
        assert spilled.contains(ids_of(asked)).tolist() == [row in seen for row in asked]
    reopened = spilled_in(store)
    asked = [*list(seen)[:500], *random_rows(rng, 500)]
    assert reopened.contains(ids_of(asked)).tolist() == [row in seen for row in asked]


def test_rows_that_differ_in_one_word_or_by_a_millisecond_are_not_there(store: MemoryStore) -> None:
    spilled = spilled_in(store)
    add(spilled, store, [(1, 2, word(100))])
    asked = [(1, 2, word(100)), (2, 2, word(100)), (1, 3, word(100)), (1, 2, word(101)), (1, 2, word(100, 1))]
    assert spilled.contains(ids_of(asked)).tolist() == [True, False, False, False, False]


def test_a_batch_may_ask_for_one_id_many_times(store: MemoryStore) -> None:
    spilled = spilled_in(store)
    add(spilled, store, [(1, 2, word(100))])
    assert spilled.contains(ids_of([(1, 2, word(100))] * 3)).all()


def test_ids_share_pages_of_bounded_size(store: MemoryStore) -> None:
    spilled = spilled_in(store)
    rng = np.random.default_rng(0)
    add(spilled, store, random_rows(rng, 20_000, minutes=1))
    pages = [len(value) // 24 for _, value in store.scan(SPILLED_IDS)]
    assert sum(pages) == 20_000
    assert max(pages) < 2 * DEDUP_PAGE_IDS
    assert 20_000 / len(pages) > DEDUP_PAGE_IDS / 4


def test_whole_buckets_expire_with_their_rows(store: MemoryStore) -> None:
    spilled = spilled_in(store)
    rows = [(i, i, word(i * DEDUP_BUCKET_MS + offset)) for i in range(5) for offset in (0, DEDUP_BUCKET_MS - 1)]
    add(spilled, store, rows)
    store.write(WriteBatch(puts=[(b"h", b"of others"), (b"j", b"of others")]))
    batch = WriteBatch()
    spilled.expire(2 * DEDUP_BUCKET_MS + 5, batch)
    store.write(batch)
    for subject in (spilled, spilled_in(store)):
        assert subject.contains(ids_of(rows)).tolist() == [False] * 4 + [True] * 6
    assert len(list(store.scan(SPILLED_IDS))) == 3
    assert store.get_many([b"h", b"j"]) == [b"of others"] * 2


def test_nothing_to_expire_writes_nothing(store: MemoryStore) -> None:
    spilled = spilled_in(store)
    add(spilled, store, [(1, 1, word(5 * DEDUP_BUCKET_MS))])
    batch = WriteBatch()
    spilled.expire(5 * DEDUP_BUCKET_MS + 1, batch)
    assert batch.delete_ranges == []


def test_the_newest_buckets_end_bounds_all_event_times(store: MemoryStore) -> None:
    spilled = spilled_in(store)
    add(spilled, store, [(1, 1, word(0)), (1, 1, word(3 * DEDUP_BUCKET_MS + 7))])
    assert spilled.newest_bucket_end == 4 * DEDUP_BUCKET_MS
    assert spilled_in(store).newest_bucket_end == 4 * DEDUP_BUCKET_MS


def test_runs_written_after_a_reopen_do_not_overwrite_older_ones(store: MemoryStore) -> None:
    first, second = [(1, 1, word(7))], [(2, 2, word(8))]
    add(spilled_in(store), store, first)
    reopened = spilled_in(store)
    add(reopened, store, second)
    for subject in (reopened, spilled_in(store)):
        assert subject.contains(ids_of(first + second)).all()


class AskedInPieces(MemoryStore):
    most = 0

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        self.most = max(self.most, len(keys))
        return super().get_many(keys)


@pytest.mark.parametrize("seed", range(4))
def test_ids_of_many_pages_are_looked_up_a_bounded_number_of_pages_at_a_time(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("streams.operators.dedup.pages._PAGES_MAX", 3)
    monkeypatch.setattr("streams.operators.dedup.pages._COMPARED_MAX", 50)
    rng, store = np.random.default_rng(seed), AskedInPieces()
    spilled = spilled_in(store)
    known = [random_rows(rng, 700) for _ in range(3)]
    for rows in known:
        add(spilled, store, rows)
    asked = [*random_rows(rng, 300), *(row for rows in known for row in rows[:200])]
    order = rng.permutation(len(asked))
    there = {row for rows in known for row in rows}
    found = spilled.contains(ids_of([asked[place] for place in order]))
    assert found.tolist() == [asked[place] in there for place in order]
    assert store.most <= 3
