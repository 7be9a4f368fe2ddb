"""Two inputs of a new partition, merged by the watermark at each record's place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.growth.coupling import Coupling, ForwardedLog, Merged, OwnLog
from streams.growth.forwarding import NO_KEY, NOT_FORWARDED, destinations
from streams.growth.layout import Layout


def own(*times: int, first: int = 0, is_at_end: bool = False) -> OwnLog:
    return OwnLog(np.arange(first, first + len(times), dtype=np.int64), np.array(times, dtype=np.int64), is_at_end)


def forwarded(
    *times: int, strangers: tuple[int, ...] = (), reach: dict[int, int] | None = None, settles: int | None = None,
    idle: tuple[int, ...] = (),
) -> ForwardedLog:  # fmt: skip
    """Stragglers and progress at these times; those in `reach`, `settles` and `idle` are progress."""
    places = range(len(times))
    found = reach or {}
    return ForwardedLog(
        time=np.array(times, dtype=np.int64),
        is_of_parent=np.array([place not in strangers for place in places], dtype=np.bool_),
        reach=np.array([found.get(place, 0) for place in places], dtype=np.int64),
        idle=np.array([place in idle for place in places], dtype=np.bool_),
        is_progress=np.array([place in found or place in idle or place == settles for place in places], dtype=np.bool_),
        settles=np.array([place == settles for place in places], dtype=np.bool_),
    )


def shown(merged: Merged) -> list[tuple[str, int, int]]:
    return [
        ("forwarded" if of else "own", int(index), int(watermark))
        for of, index, watermark in zip(merged.is_forwarded, merged.index, merged.watermark, strict=True)
    ]


START = Coupling.at_cut(100)


def test_the_lower_watermark_goes_first_and_of_equal_ones_the_forwarded() -> None:
    merged = START.merge(own(110, 130), forwarded(110, 120, 130))
    assert shown(merged) == [
        ("forwarded", 0, 110), ("own", 0, 110), ("forwarded", 1, 120), ("forwarded", 2, 130), ("own", 1, 130),
    ]  # fmt: skip
    assert merged.after == Coupling(130, 130)


def test_the_own_log_waits_for_the_parent() -> None:
    merged = START.merge(own(105, 150, 90), forwarded(120))
    assert shown(merged) == [("own", 0, 105), ("forwarded", 0, 120)]
    assert merged.after.merge(own(150, 90, first=1), forwarded()).own == 0
    assert shown(merged.after.merge(own(150, 90, first=1), forwarded(150))) == [
        ("forwarded", 0, 150), ("own", 0, 150), ("own", 1, 150),
    ]  # fmt: skip


def test_what_the_parent_reaches_by_standing_at_its_end_need_not_wait() -> None:
    merged = START.merge(own(150, 160, 170), forwarded(100, reach={0: 2}))
    assert shown(merged) == [("forwarded", 0, 100), ("own", 0, 150), ("own", 1, 160)]


def test_a_reach_that_waits_itself_counts_once_it_is_read() -> None:
    waiting = START.merge(own(), forwarded(140, reach={0: 2}))
    assert len(waiting) == 0
    merged = START.merge(own(150, 160), forwarded(140, reach={0: 2}))
    assert shown(merged) == [("forwarded", 0, 140), ("own", 0, 150), ("own", 1, 160)]


def test_forwarded_records_wait_for_the_own_log_unless_it_is_at_its_end() -> None:
    assert shown(START.merge(own(110), forwarded(105, 120))) == [("forwarded", 0, 105), ("own", 0, 110)]
    assert shown(START.merge(own(110, is_at_end=True), forwarded(105, 120))) == [
        ("forwarded", 0, 105), ("own", 0, 110), ("forwarded", 1, 120),
    ]  # fmt: skip


def test_strangers_say_nothing_of_time() -> None:
    merged = START.merge(own(100), forwarded(900, 100, strangers=(0,)))
    assert shown(merged) == [("forwarded", 0, 100), ("forwarded", 1, 100), ("own", 0, 100)]


def test_once_settled_the_own_log_alone_moves_the_watermark() -> None:
    merged = START.merge(own(150, 140), forwarded(100, 900, settles=0))
    assert shown(merged) == [("forwarded", 0, 100), ("own", 0, 150), ("own", 1, 150), ("forwarded", 1, 150)]
    assert merged.after.is_settled
    assert shown(merged.after.merge(own(160, first=2), forwarded(900))) == [("own", 0, 160), ("forwarded", 0, 160)]


def test_an_end_of_the_coupling_that_must_wait_ends_nothing() -> None:
    merged = START.merge(own(150), forwarded(200, 900, settles=0))
    assert shown(merged) == [("own", 0, 150)]
    assert not merged.after.is_settled


def test_idle_time_passes_only_where_the_parent_is_idle_too() -> None:
    assert not START.lets_idle_pass(5, forwarded_is_read=True)
    idle = START.merge(own(is_at_end=True), forwarded(100, reach={0: 5}, idle=(0,))).after
    assert idle.lets_idle_pass(5, forwarded_is_read=True)
    assert not idle.lets_idle_pass(6, forwarded_is_read=True)
    assert not idle.lets_idle_pass(5, forwarded_is_read=False)
    busy = idle.merge(own(is_at_end=True), forwarded(101, reach={0: 5})).after
    assert not busy.lets_idle_pass(5, forwarded_is_read=True)
    assert busy.merge(own(is_at_end=True), forwarded(101, settles=0)).after.lets_idle_pass(9, forwarded_is_read=False)


@given(
    st.lists(st.integers(90, 140), max_size=12), st.lists(st.integers(90, 140), max_size=12), st.data()
)  # fmt: skip
def test_however_the_inputs_are_cut_no_record_is_lost_and_none_passes_the_other_input(
    of_own: list[int], of_parent: list[int], data: st.DataObject
) -> None:
    """In calls of any size: the order within each input stays, and the watermark is that of the records before."""
    sizes = [(data.draw(st.integers(0, 4)), data.draw(st.integers(0, 4))) for _ in range(12)]
    coupling, taken_own, taken_forwarded, watermark = START, 0, 0, 100
    for first, second in [*sizes, (99, 99)]:
        mine = of_own[taken_own : taken_own + first]
        theirs = of_parent[taken_forwarded : taken_forwarded + second]
        merged = coupling.merge(own(*mine, first=taken_own), forwarded(*theirs))
        assert merged.index[~merged.is_forwarded].tolist() == list(range(merged.own))
        assert merged.index[merged.is_forwarded].tolist() == list(range(merged.forwarded))
        for is_forwarded, index, at in zip(merged.is_forwarded, merged.index, merged.watermark, strict=True):
            watermark = max(watermark, theirs[index] if is_forwarded else mine[index])
            assert at == watermark
        taken_own, taken_forwarded, coupling = taken_own + merged.own, taken_forwarded + merged.forwarded, merged.after
    assert (taken_own, taken_forwarded) == _by_hand(of_own, of_parent)


def _by_hand(of_own: list[int], of_parent: list[int]) -> tuple[int, int]:
    """The same one record at a time."""
    first = second = 0
    mine = theirs = 100
    while True:
        head = max(mine, of_own[first]) if first < len(of_own) else None
        other = max(theirs, of_parent[second]) if second < len(of_parent) else None
        if other is not None and (other <= mine or (head is not None and other <= head)):
            second, theirs = second + 1, other
        elif head is not None and (head <= theirs or (other is not None and head <= other)):
            first, mine = first + 1, head
        else:
            return first, second


# --- forwarding -----------------------------------------------------------------------------------------------------


def test_records_go_where_their_keys_belong_once_in_each_layout() -> None:
    hashes = np.array([0, 3, 15, NO_KEY, 3, 3, 3], dtype=np.int64)
    under = np.array([NOT_FORWARDED] * 4 + [1, 2, 3], dtype=np.int64)
    assert destinations(Layout(2, 12), 0, hashes, under).tolist() == [0, 3, 3, 0, 3, 0, 0]


@pytest.mark.parametrize("partition", [0, 5])
def test_one_partition_keeps_everything(partition: int) -> None:
    hashes = np.array([1, 2, 3, NO_KEY], dtype=np.int64)
    found = destinations(Layout(1, 1), 0, hashes, np.zeros(4, dtype=np.int64))
    assert found.tolist() == [0] * 4
    assert destinations(Layout(1, 6), partition, hashes[3:], np.zeros(1, dtype=np.int64)).tolist() == [partition]
