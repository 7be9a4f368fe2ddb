"""Rows of a join are found by slot, time and number as plain loops find them, whatever numbers these are."""

import numpy as np
import pytest

from streams.batch.rows import empty_rows
from streams.operators.join.bucketed import NUMBER, TIME
from streams.operators.join.chunk import Chunk

OTHER = "other"
DTYPE = np.dtype([(NUMBER, "<i8"), (TIME, "<i8"), (OTHER, "<i8")])
FAR = 1 << 61


@pytest.mark.parametrize("times", [(0, 50), (1_700_000_000_000, 400), (-20, 40), (0, FAR)], ids=str)
@pytest.mark.parametrize("slots", [5, 1 << 40], ids=str)
@pytest.mark.parametrize("column", [NUMBER, OTHER])
def test_the_last_row_that_matches_is_found(times: tuple[int, int], slots: int, column: str) -> None:
    rng = np.random.default_rng(1)
    begin, span = times
    for count in (1, 2, 60):
        slot = rng.choice(rng.integers(0, slots, 4), count)
        rows = empty_rows(DTYPE, count)
        rows[NUMBER] = np.arange(count) + 7
        rows[TIME] = begin + np.sort(rng.integers(0, span, count))
        rows[OTHER] = 3 * rows[NUMBER]
        chunk = Chunk.of(slot, rows)
        asked = np.append(rng.choice(slot, 80), rng.integers(0, slots, 20))
        low = begin + rng.integers(-5, span, 100)
        high = np.where(rng.random(100) < 0.2, np.iinfo(np.int64).max - 2, begin + rng.integers(-5, span + 5, 100))
        before = rng.integers(0, (count + 10) * (3 if column == OTHER else 1), 100)
        found = chunk.last(asked, low, high, before, column)
        for query in range(100):
            matching = [
                place
                for place in range(count)
                if chunk.slot[place] == asked[query]
                and low[query] <= chunk.time[place] <= high[query]
                and chunk.rows[column][place] < before[query]
            ]
            assert found[query] == (matching[-1] if matching else -1)


def test_in_a_chunk_that_has_lost_all_its_rows_nothing_is_found() -> None:
    rows = empty_rows(DTYPE, 2)
    rows[NUMBER] = [7, 8]
    chunk = Chunk.of(np.array([0, 1]), rows).take(np.array([False, False]))
    asked, times = np.array([0, 1]), np.array([0, 0])
    assert chunk.last(asked, times, times + 9, times + 9, NUMBER).tolist() == [-1, -1]
    begin, end = chunk.ends(asked, times, times + 9, times + 9, NUMBER)
    assert (end <= begin).all()
