"""Gaps in offsets are read twice, in doubtful times, before they are believed."""

import numpy as np
import pytest

from streams.kafka import gaps as module
from streams.kafka.gaps import Gaps


def offsets(*numbers: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.array(numbers, dtype=np.int64)


@pytest.fixture
def gaps() -> Gaps:
    doubtful = Gaps()
    doubtful.doubt()
    return doubtful


def test_records_without_a_gap_are_taken(gaps: Gaps) -> None:
    assert gaps.first_doubtful(0, 5, offsets(5, 6, 7)) is None
    assert gaps.first_doubtful(0, 5, offsets()) is None


@pytest.mark.parametrize(("read", "again"), [((7, 8), 5), ((5, 6, 9), 7), ((5, 8, 9, 12), 6)])
def test_a_gap_is_read_again_from_where_it_begins(gaps: Gaps, read: tuple[int, ...], again: int) -> None:
    assert gaps.first_doubtful(0, 5, offsets(*read)) == again


def test_gaps_that_are_there_the_second_time_are_the_logs_own(gaps: Gaps) -> None:
    assert gaps.first_doubtful(0, 5, offsets(5, 8, 9, 12)) == 6

    assert gaps.first_doubtful(0, 6, offsets(8, 9, 12, 13)) is None


def test_what_was_left_out_comes_the_second_time_and_a_new_gap_is_doubted_anew(gaps: Gaps) -> None:
    assert gaps.first_doubtful(0, 5, offsets(9)) == 5

    assert gaps.first_doubtful(0, 5, offsets(5, 6, 7, 8, 9)) is None
    assert gaps.first_doubtful(0, 10, offsets(12)) == 10


def test_partitions_do_not_mix_and_a_new_start_forgets(gaps: Gaps) -> None:
    assert gaps.first_doubtful(0, 5, offsets(9)) == 5
    assert gaps.first_doubtful(1, 5, offsets(9)) == 5

    gaps.forget(0)

    assert gaps.first_doubtful(0, 5, offsets(9)) == 5
    assert gaps.first_doubtful(1, 5, offsets(9)) is None


def test_without_a_reason_for_doubt_a_gap_is_believed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Gaps().first_doubtful(0, 5, offsets(9)) is None

    gaps = Gaps()
    gaps.doubt()
    later = module.time.monotonic() + module.DOUBT_S + 1
    monkeypatch.setattr(module.time, "monotonic", lambda: later)
    assert gaps.first_doubtful(0, 5, offsets(9)) is None
