import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.monitor.timeline import EMPTY_RANGES_MAX, POINTS_MAX, Timeline
from tests.examples import examples

QUICK = settings(deadline=None, max_examples=examples(100))
Log = list[tuple[int, int]]
"""(Time at which a record came, its timestamp), by offset."""


@st.composite
def logs(draw: st.DrawFn) -> Log:
    gaps = draw(st.lists(st.integers(0, 20_000), min_size=1, max_size=60))
    came = np.cumsum(gaps).tolist()
    off = draw(st.lists(st.sampled_from([0, 0, 0, -100_000, 50_000]), min_size=len(came), max_size=len(came)))
    return [(time, time + skew) for time, skew in zip(came, off, strict=True)]


def seen(log: Log, at: list[int], told: set[int]) -> Timeline:
    timeline = Timeline()
    for time in sorted(at):
        timeline.see(sum(came <= time for came, _ in log), time)
    for offset in sorted(told):
        timeline.tell(offset, log[offset][1])
    return timeline


@QUICK
@given(logs(), st.lists(st.integers(0, 400_000), min_size=1, max_size=20), st.data())
def test_a_time_lies_between_the_looks_between_which_the_record_came(
    log: Log, looks: list[int], data: st.DataObject
) -> None:
    told = data.draw(st.sets(st.integers(0, len(log) - 1)))
    timeline = seen(log, looks, told)

    for offset, (came, _) in enumerate(log):
        before = max((time for time in looks if came > time), default=None)
        after = min((time for time in looks if came <= time), default=None)
        found = float(timeline.times_ms(np.array([offset]))[0][0])
        if before is not None and offset >= timeline.first:
            assert before <= found
        if after is not None and before is not None:
            assert found <= after


@QUICK
@given(logs(), st.lists(st.integers(0, 400_000), min_size=1, max_size=20), st.data())
def test_times_never_fall_with_the_offset(log: Log, looks: list[int], data: st.DataObject) -> None:
    timeline = seen(log, looks, data.draw(st.sets(st.integers(0, len(log) - 1))))

    times, before, after = timeline.times_ms(np.arange(-2, len(log) + 3))

    assert (np.diff(times) >= 0).all()
    assert (before <= after).all()


@QUICK
@given(st.integers(0, 10), st.integers(1, 100_000))
def test_a_told_record_that_agrees_with_what_was_seen_has_its_own_timestamp(offset: int, age_ms: int) -> None:
    timeline = Timeline()
    timeline.see(20, 1_000_000)
    timeline.tell(offset, 1_000_000 - age_ms)

    assert 1_000_000 - age_ms == timeline.times_ms(np.array([offset]))[0][0]


def test_a_timestamp_of_yesterday_does_not_make_a_new_record_old() -> None:
    timeline = Timeline()
    timeline.see(100, 1_000_000)
    timeline.see(110, 1_005_000)
    timeline.tell(100, 5)

    assert 1_000_000 <= timeline.times_ms(np.array([100]))[0][0] <= 1_005_000


def test_a_log_that_is_made_anew_has_no_past() -> None:
    timeline = Timeline()
    timeline.see(100, 1_000)
    timeline.skip(90, 100)
    timeline.see(3, 2_000)

    assert 3 == timeline.first
    assert 90 == timeline.position(90)


def test_markers_at_the_end_are_passed_over_and_records_behind_them_are_not() -> None:
    timeline = Timeline()
    timeline.skip(10, 12)
    timeline.skip(12, 13)

    assert [9, 13, 13, 13, 13] == [timeline.position(offset) for offset in (9, 10, 11, 12, 13)]


def test_two_places_without_records_are_both_remembered_and_such_as_touch_become_one() -> None:
    timeline = Timeline()
    for first, until in ((10, 12), (50, 60), (5, 8), (8, 10)):
        timeline.skip(first, until)

    assert [12, 60, 12, 12] == [timeline.position(offset) for offset in (5, 55, 9, 11)]
    assert [4, 12, 60] == [timeline.position(offset) for offset in (4, 12, 60)]


def test_the_newest_timestamp_of_a_log_gives_a_time_and_proves_no_record() -> None:
    timeline = Timeline()
    timeline.hint(100, 5_000)
    timeline.see(101, 65_000)

    assert not timeline.knows(100)
    assert 100 == timeline.first
    assert [5_000.0] == timeline.times_ms(np.array([100], dtype=np.int64))[0].tolist()
    timeline.tell(100, 4_000)
    assert timeline.knows(100)
    assert [4_000.0] == timeline.times_ms(np.array([100], dtype=np.int64))[0].tolist()


def test_memory_is_bounded() -> None:
    timeline = Timeline()
    for step in range(10 * POINTS_MAX):
        timeline.see(step, step)
        timeline.tell(step, step)
        timeline.skip(3 * step, 3 * step + 1)

    assert len(timeline._empty) <= EMPTY_RANGES_MAX

    assert len(timeline._seen) <= POINTS_MAX
    assert len(timeline._told) <= POINTS_MAX
