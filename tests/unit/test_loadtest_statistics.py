"""Statistics of load tests: rates between commits, trends of lag, spreads and ratios."""

import numpy as np
import pytest

from loadtest.statistics import Ratio, Slope, Spread, is_clear, is_sustained, rate_between_commits, ratio, slope


def lag_of(
    *, arrives: float, read: float, seconds: float, commit_s: float = 0.2, every_s: float = 0.25, rng: None = None
) -> tuple[list[np.float64], list[np.float64]]:
    """Lag as it is sampled: records arrive all the time, and are committed in steps."""
    times = np.arange(0.0, seconds, every_s)
    done = read * np.floor(times / commit_s) * commit_s
    noise = 0.0 if rng is None else rng.normal(0.0, 0.002 * arrives, times.size)
    return list(times), list(np.maximum(0.0, arrives * times - done) + noise)


def test_what_keeps_up_is_sustained_though_lag_goes_up_and_down_with_commits() -> None:
    found = slope(*lag_of(arrives=2_000.0, read=2_000.0, seconds=30.0))
    assert found is not None
    assert found.low <= 0.0 <= found.high
    assert is_sustained(found, 2_000.0)
    assert is_clear(found, 2_000.0)


def test_lag_that_grows_by_a_fifth_of_the_load_is_not_sustained_though_it_is_still_small() -> None:
    # 2,531 events/s were once called sustained because lag after eight seconds was below 1.5 s of them.
    times, lag = lag_of(arrives=2_531.0, read=2_065.0, seconds=8.0)
    assert lag[-1] < 1.6 * 2_531
    found = slope(times, lag)
    assert found is not None
    assert found.per_s == pytest.approx(466, rel=0.1)
    assert not is_sustained(found, 2_531.0)
    assert is_clear(found, 2_531.0)


def test_the_interval_of_a_trend_contains_the_true_one_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        times = np.arange(0.0, 60.0, 0.25)
        found = slope(list(times), list(40.0 * times + rng.normal(0.0, 300.0, times.size)))
        assert found is not None
        hits += found.low <= 40.0 <= found.high
    assert 180 <= hits <= 200


def test_lag_that_stays_what_it_is_has_no_trend() -> None:
    assert slope([float(at) for at in range(40)], [0.0] * 40) == Slope(0.0, 0.0, 0.0)
    assert is_sustained(Slope(0.0, 0.0, 0.0), 100.0)
    assert not is_sustained(Slope(0.0, 0.0, 0.0), 0.0), "nothing was sent"


@pytest.mark.parametrize("times", [[], [1.0], [1.0, 1.1, 1.2, 1.3], [1.0] * 30])
def test_too_few_samples_have_no_trend_and_are_not_sustained(times: list[float]) -> None:
    assert slope(times, [0.0] * len(times)) is None
    assert not is_sustained(None, 1_000.0)
    assert not is_clear(None, 1_000.0)


def test_a_trend_whose_interval_is_on_both_sides_of_the_threshold_is_not_clear() -> None:
    assert not is_clear(Slope(8.0, -20.0, 36.0), 1_000.0)
    assert is_clear(Slope(8.0, 7.0, 9.0), 1_000.0)
    assert is_clear(Slope(80.0, 70.0, 90.0), 1_000.0)


def test_a_rate_is_counted_from_the_first_to_the_last_commit() -> None:
    # Nothing for a second, then 100 records each 0.5 s, then nothing for two seconds.
    done = [0, 0, 0, 100, 200, 300, 400, 400, 400, 400, 400]
    times = [place * 0.5 for place in range(len(done))]
    assert rate_between_commits(times, done) == (200.0, 1.5, 300)
    assert rate_between_commits(times[:4], done[:4]) is None
    assert rate_between_commits([], []) is None


def test_repetitions_have_a_median_and_their_ends() -> None:
    found = Spread.of([3.0, 1_001.0, 20.0])
    assert (found.median, found.low, found.high, found.repetitions) == (20.0, 3.0, 1_001.0, 3)
    assert found.words() == "20 (3 to 1,001)"
    assert Spread.of([1_234.4]).words() == "1,234"


def test_the_question_is_answered_with_an_interval() -> None:
    found = ratio([3_700.0, 3_720.0, 3_690.0], [1_000.0, 1_004.0, 998.0])
    assert found.is_interval
    assert found.words().startswith("3.7")
    assert found.low < 3.7 < found.high


def test_the_interval_of_a_ratio_contains_the_true_one_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        found = ratio(list(4_000 * np.exp(rng.normal(0, 0.05, 3))), list(1_000 * np.exp(rng.normal(0, 0.02, 3))))
        hits += found.low <= 4.0 <= found.high
    assert hits >= 0.92 * 300


def test_few_repetitions_have_no_interval_but_the_ends_that_they_give() -> None:
    found = ratio([300.0, 330.0], [100.0])
    assert found == Ratio(3.15, 3.0, 3.3, is_interval=False, repetitions=1)
    assert found.words().endswith(" times (3.0 to 3.3)")
    assert ratio([300.0], [100.0]).words() == "3.0 times (measured once)"
    assert ratio([300.0] * 2, [100.0] * 2).words() == "3.0 times (3.0 to 3.0)"
    assert ratio([100.0] * 3, [100.0] * 3).words() == "1.0 times (1.0 to 1.0)"
