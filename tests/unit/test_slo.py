import pytest

from streams.monitor.slo import EVENTS_MIN, Counts, SloTracker


def test_what_was_counted_before_watching_began_does_not_count() -> None:
    book = SloTracker()
    book.observe(0.0, {"a": Counts(1_000.0, 0.0)})

    assert (None, 1.0) == (book.judge().good_share, book.judge().budget_left)


def test_burn_rate_and_budget_follow_the_share_of_late_events() -> None:
    book = SloTracker()
    book.observe(0.0, {"a": Counts(0.0, 0.0)})
    book.observe(60.0, {"a": Counts(1_000.0, 980.0)})

    slo = book.judge()

    assert 0.98 == slo.good_share
    assert pytest.approx(2.0) == slo.windows["5m"].burn_rate
    assert pytest.approx(-1.0) == slo.budget_left


def test_a_worker_that_is_started_anew_counts_from_zero() -> None:
    book = SloTracker()
    book.observe(0.0, {"a": Counts(500.0, 500.0)})
    book.observe(5.0, {"a": Counts(700.0, 700.0)})
    book.observe(10.0, {"a": Counts(100.0, 90.0)})

    assert (300.0, 10.0) == (book.judge().events, book.judge().bad)


def test_short_windows_forget_and_the_budget_does_not() -> None:
    book = SloTracker()
    book.observe(0.0, {"a": Counts(0.0, 0.0)})
    book.observe(100.0, {"a": Counts(100.0, 0.0)})
    book.observe(1_000.0, {"a": Counts(10_000.0, 9_900.0)})
    book.observe(1_100.0, {"a": Counts(11_000.0, 10_900.0)})

    slo = book.judge()

    assert 0.0 == slo.windows["5m"].burn_rate
    assert 100.0 == slo.bad


def test_a_worker_that_does_not_answer_for_a_while_is_not_counted_twice() -> None:
    book = SloTracker()
    book.observe(0.0, {"a": Counts(0.0, 0.0)})
    book.observe(5.0, {})
    book.observe(10.0, {"a": Counts(100.0, 100.0)})

    assert 100.0 == book.judge().events


def test_a_handful_of_late_events_is_told_and_burns_nothing() -> None:
    book = SloTracker()
    book.observe(0.0, {"a": Counts(0.0, 0.0)})
    book.observe(60.0, {"a": Counts(EVENTS_MIN - 1.0, 0.0)})

    slo = book.judge()

    assert (0.0, 1.0, None) == (slo.good_share, slo.budget_left, slo.windows["5m"].burn_rate)
    book.observe(65.0, {"a": Counts(float(EVENTS_MIN), 0.0)})
    assert pytest.approx(100.0) == book.judge().windows["5m"].burn_rate


def test_events_that_arrive_old_are_told_and_burn_nothing() -> None:
    book = SloTracker()
    book.observe(0.0, {"a": Counts(0.0, 0.0, 0.0)})
    book.observe(60.0, {"a": Counts(1_000.0, 1_000.0, 100.0)})

    slo = book.judge()

    assert (1.0, 0.1) == (slo.good_share, slo.young_share)
    assert (1.0, 0.0) == (slo.budget_left, slo.windows["5m"].burn_rate)


def test_what_waits_burns_while_a_flow_is_dead_and_is_counted_once_when_it_is_committed_late() -> None:
    book = SloTracker()
    book.observe(0.0, {"a": Counts(10_000.0, 10_000.0)}, waiting=50.0)
    book.observe(100.0, {"a": Counts(10_000.0, 10_000.0)}, waiting=1_050.0)

    dead = book.judge()

    assert (1_000.0, 1_000.0, 0.0) == (dead.events, dead.bad, dead.good_share)
    assert pytest.approx(100.0) == dead.windows["5m"].burn_rate
    book.observe(200.0, {"a": Counts(11_050.0, 10_000.0)}, waiting=0.0)
    assert (1_000.0, 1_000.0) == (book.judge().events, book.judge().bad)
