"""History of groups: points on a grid, bounds of memory, what happened meanwhile, and rates from offsets."""

from dataclasses import replace

import numpy as np
import pytest

from streams.growth.layout import Growth, Layout
from streams.growth.record import GrowthRecord
from streams.growth.stages import Phase
from streams.kafka.round import Group, Member
from streams.monitor.history.annotations import AnnotationLog, Kind
from streams.monitor.history.book import FIELDS, STEPS_MAX, HistoryBook
from streams.monitor.history.series import FINE_POINTS, Series, Shape, Span
from streams.monitor.processes import Address
from streams.monitor.workers import WorkerState
from tests.unit.test_scale_book import looks, snapshot_of

PEAK_AND_MEAN = Shape((True, False), coarse_points=100, coarse_ms=60_000)


def added(series: Series[str], seconds: int, every_s: int = 5) -> None:
    """A row that counts the seconds in both fields."""
    for second in range(every_s, seconds + 1, every_s):
        series.add(second * 1_000, np.full((len(series.rows), 2), float(second)))


def test_a_series_keeps_late_looks_one_by_one_and_older_ones_by_the_minute() -> None:
    series = Series(["a"], PEAK_AND_MEAN)
    added(series, 3_600)
    fine_from_s = 3_600 - 5 * (FINE_POINTS - 1)

    fine = series.on_grid("a", Span(3_000_000, 5_000, 120))
    assert [3_000.0, 3_005.0] == fine[:2, 0].tolist()
    assert not np.isnan(fine).any()
    coarse = series.on_grid("a", Span(600_000, 60_000, 10))
    assert 3_000 > fine_from_s > 1_200
    # The minute from 600 s on has looks at 600, 605, .. 655: its peak is the last of them, its mean between them.
    assert [655.0, 627.5] == coarse[0].tolist()
    assert series.oldest_ms == 30_000


def test_no_point_is_known_where_nobody_looked() -> None:
    series = Series(["a"], PEAK_AND_MEAN)
    series.add(10_000, np.array([[1.0, 2.0]]))
    series.add(40_000, np.array([[np.nan, 4.0]]))

    found = series.on_grid("a", Span(0, 10_000, 5))

    assert [True, False, True, True, True] == np.isnan(found[:, 0]).tolist()
    assert [True, False, True, True, False] == np.isnan(found[:, 1]).tolist()


def test_rows_that_stay_keep_their_points_when_others_come_and_go() -> None:
    series = Series(["a", "b"], PEAK_AND_MEAN)
    series.add(1_000, np.array([[1.0, 1.0], [2.0, 2.0]]))
    series.move_to(["b", "c"])
    series.add(2_000, np.array([[3.0, 3.0], [4.0, 4.0]]))

    assert [2.0, 3.0] == series.on_grid("b", Span(1_000, 1_000, 2))[:, 0].tolist()
    assert [True, False] == np.isnan(series.on_grid("c", Span(1_000, 1_000, 2))[:, 0]).tolist()
    with pytest.raises(KeyError):
        series.on_grid("a", Span(1_000, 1_000, 2))


def test_memory_is_what_the_setting_allows() -> None:
    shape = Shape.of((True,) * 4, interval_s=5, hours=24)

    assert (FINE_POINTS + 24 * 60) * 16 == shape.row_bytes
    book = HistoryBook(interval_s=5, hours=24, memory_mb_max=64)
    assert book.rows_max * shape.row_bytes <= 64 << 20


def test_lag_and_rates_of_a_group_and_its_partitions_are_those_of_the_offsets() -> None:
    book = HistoryBook(interval_s=5, hours=1, memory_mb_max=8)
    groups = looks()
    for group in groups:
        book.observe(replace(snapshot_of(group), time_ms=group.time_ms))
    span = book.span(120, groups[-1].time_ms)

    whole, one = book.group("g", span), book.partition("g", groups[-1].partitions[0], span)

    assert whole is not None
    assert one is not None
    np.testing.assert_array_equal(whole.values, one.values)  # it has one partition
    lag, lag_s, consume, arrive = (whole.values[:, place] for place in range(len(FIELDS)))
    assert 9_000 == np.nanmax(lag)
    assert 90.0 == pytest.approx(np.nanmax(lag_s), abs=2.0)
    assert 50.0 == pytest.approx(np.nanmean(consume), rel=0.05)
    assert 100.0 == pytest.approx(np.nanmean(arrive), rel=0.05)
    assert book.partition("g", ("no such topic", 0), span) is None
    assert book.group("other", span) is None


def test_partitions_that_do_not_fit_have_no_history_and_their_group_has() -> None:
    book = HistoryBook(interval_s=5, hours=168, memory_mb_max=1)
    book.rows_max = 1
    group = looks()[-1]
    book.observe(replace(snapshot_of(group), time_ms=group.time_ms))
    span = book.span(60, group.time_ms)

    assert book.group("g", span) is not None
    assert book.partition("g", group.partitions[0], span) is None
    assert 1 == book.rows_used


@pytest.mark.parametrize("seconds", [60, 900, 3_600, 21_600, 86_400, 7 * 86_400])
def test_a_span_ends_now_and_has_no_more_steps_than_a_chart_shows(seconds: int) -> None:
    book = HistoryBook(interval_s=5, hours=24, memory_mb_max=8)
    now_ms = 1_800_000_001_234
    span = book.span(seconds, now_ms)

    assert 1 <= span.steps <= STEPS_MAX
    assert span.end_ms - span.step_ms <= now_ms < span.end_ms
    assert seconds * 1_000 <= span.steps * span.step_ms < (seconds * 1_000) + span.step_ms
    assert span.step_ms >= 10_000
    assert seconds <= 5 * FINE_POINTS or span.step_ms >= 60_000


# --- what happened ----------------------------------------------------------------------------------------------------


def told(*members: tuple[str, str, tuple[int, ...]], time_ms: int, log: AnnotationLog) -> list[tuple[Kind, str]]:
    """Have the log see a group with these members: id, client, partitions. What it has noted at that time."""
    group = looks()[-1]
    made = tuple(Member(one, client, "/127.0.0.1", partitions) for one, client, partitions in members)
    changed = replace(group, time_ms=time_ms, group=Group("g", "Stable", made))
    log.observe(replace(snapshot_of(changed), time_ms=time_ms))
    return [(one.kind, one.text) for one in log.of("g", time_ms, time_ms)]


def test_members_that_come_and_go_and_partitions_that_move_are_a_rebalance() -> None:
    log = AnnotationLog()
    assert [] == told(("1", "a", (0, 1)), time_ms=1_000, log=log)
    assert [] == told(("1", "a", (0, 1)), time_ms=2_000, log=log)
    assert [(Kind.REBALANCE, "b joined, 1 partition moved, 2 members now")] == told(
        ("1", "a", (0,)), ("2", "b", (1,)), time_ms=3_000, log=log
    )
    assert [(Kind.REBALANCE, "b left, 1 partition moved, 1 member now")] == told(
        ("1", "a", (0, 1)), time_ms=4_000, log=log
    )


def test_a_member_that_comes_back_under_its_name_is_a_deploy() -> None:
    log = AnnotationLog()
    told(("1", "a", (0,)), ("2", "b", (1,)), time_ms=1_000, log=log)

    assert [(Kind.DEPLOY, "started again: a")] == told(("3", "a", (0,)), ("2", "b", (1,)), time_ms=2_000, log=log)
    assert [(Kind.REBALANCE, "b left, 1 member now")] == told(("3", "a", (0,)), time_ms=3_000, log=log)
    assert (Kind.DEPLOY, "started again: b") in told(("3", "a", (0,)), ("4", "b", (1,)), time_ms=60_000, log=log)


def test_a_growth_is_noted_at_the_time_of_its_own_record_and_once_for_each_phase() -> None:
    log = AnnotationLog()
    growth = Growth(Layout(1, 3), Layout(2, 6))
    for phase, at_ms in ((Phase.PLANNED, 500), (Phase.PLANNED, 500), (Phase.BEGUN, 900)):
        records = {"g": (GrowthRecord(growth, phase, at_ms),)}
        log.observe(replace(snapshot_of(looks()[-1]), time_ms=2_000, growth_records=records))

    assert [(500, "3 to 6 partitions: planned"), (900, "3 to 6 partitions: begun")] == [
        (one.time_ms, one.text) for one in log.of("g", 0, 1_000)
    ]
    log.forget_before(600)
    assert [900] == [one.time_ms for one in log.of("g", 0, 1_000)]


def test_another_version_of_a_worker_is_a_deploy_of_the_flows() -> None:
    log = AnnotationLog()
    group = replace(looks()[-1], is_flow=True)
    for time_ms, version in ((1_000, "1.0"), (2_000, ""), (3_000, "1.1")):
        worker = WorkerState(Address("127.0.0.1", 6066), ready=True, state="ready", version=version)
        log.observe(replace(snapshot_of(group), time_ms=time_ms, workers=(worker,)))

    assert [(3_000, Kind.DEPLOY, "127.0.0.1:6066 runs 1.1, after 1.0")] == [
        (one.time_ms, one.kind, one.text) for one in log.of("g", 0, 9_000)
    ]
