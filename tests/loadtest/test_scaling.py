"""The scaling law: found where measurements carry it, and none where they do not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.scaling import NoLaw, Scaling, fit
from tests.examples import examples

NUMBERS = (1, 2, 3, 6, 12, 24)


def measured(
    g: float,
    contention: float,
    coherency: float,
    *,
    noise: float = 0.0,
    seed: int = 1,
    repetitions: int = 3,
    numbers: tuple[int, ...] = NUMBERS,
) -> list[tuple[int, float]]:
    rng = np.random.default_rng(seed)
    return [
        (n, g * n / (1 + contention * (n - 1) + coherency * n * (n - 1)) * (1 + noise * rng.standard_normal()))
        for n in numbers
        for _ in range(repetitions)
    ]


@settings(max_examples=examples(30), deadline=None)
@given(g=st.floats(100, 1e6), contention=st.floats(0.01, 0.6), coherency=st.floats(0.0005, 0.02))
def test_a_law_with_little_noise_is_found_again(g: float, contention: float, coherency: float) -> None:
    found = fit(measured(g, contention, coherency, noise=0.001))
    assert isinstance(found, Scaling)
    assert found.coherency is not None
    assert found.contention.low - 0.02 <= contention <= found.contention.high + 0.02
    for n in (2, 12, 24):
        assert found.rate(n) == pytest.approx(measured(g, contention, coherency, numbers=(n,))[0][1], rel=0.01)


def test_the_interval_of_a_coefficient_contains_the_true_one_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(60):
        found = fit(measured(1_000.0, 0.1, 0.003, noise=0.02, seed=seed))
        assert isinstance(found, Scaling)
        hits += found.contention.low <= 0.1 <= found.contention.high
    assert 52 <= hits <= 60


def test_five_different_numbers_are_no_law_however_often_they_are_repeated() -> None:
    found = fit(measured(1_000.0, 0.1, 0.003, noise=0.01, numbers=NUMBERS[:5], repetitions=20))
    assert isinstance(found, NoLaw)
    assert "different numbers measured: 5; a law needs 6" in found.why


@pytest.mark.parametrize("seed", range(8))
def test_noise_around_a_line_is_no_law(seed: int) -> None:
    found = fit(measured(1_000.0, 0.0, 0.0, noise=0.03, seed=seed, repetitions=1))
    if isinstance(found, Scaling):  # one in twenty or so is taken in by the noise; it must not be by much
        assert found.contention.value < 0.05
    else:
        assert "cannot be told from 0" in found.why


def test_noise_around_a_line_is_seldom_taken_for_a_law() -> None:
    found = [fit(measured(1_000.0, 0.0, 0.0, noise=0.03, seed=seed)) for seed in range(60)]
    assert sum(isinstance(each, Scaling) for each in found) <= 6


def test_what_flattens_without_falling_has_contention_alone_and_no_ceiling() -> None:
    found = fit(measured(1_000.0, 0.2, 0.0, noise=0.005))
    assert isinstance(found, Scaling)
    assert found.coherency is None
    assert found.contention.low > 0
    assert found.ceiling is None
    assert found.as_dict()["ceiling"] is None
    assert found.n_max == 48


def test_a_peak_within_reach_is_a_ceiling_that_no_measurement_exceeds() -> None:
    found = fit([(1, 100.0), (2, 180.0), (4, 280.0), (8, 300.0), (12, 270.0), (16, 235.0)])
    assert isinstance(found, Scaling)
    assert found.peak_n is not None
    assert 5 < found.peak_n < 10
    assert found.ceiling is None or found.ceiling >= 300.0


def test_a_peak_far_beyond_what_was_measured_is_not_named() -> None:
    found = fit(measured(1_000.0, 0.02, 0.00005, noise=0.00001))
    assert isinstance(found, Scaling)
    assert found.coherency is not None
    assert found.peak_n is None
    assert found.ceiling is None


@given(st.lists(st.floats(1, 1e6), min_size=18, max_size=18))
@settings(max_examples=examples(30), deadline=None)
def test_whatever_is_measured_no_ceiling_is_below_it_or_out_of_reach(rates: list[float]) -> None:
    found = fit([(n, rates[place]) for place, n in enumerate(NUMBERS * 3)])
    if isinstance(found, Scaling):
        assert 0 < found.contention.low <= found.contention.value < 1
        assert found.coherency is None or found.coherency.low > 0
        assert found.ceiling is None or (found.ceiling >= max(rates) and (found.peak_n or 0) <= 48)


def test_a_throughput_of_nothing_is_said() -> None:
    assert fit([(1, 0.0), (2, 1.0)]) == NoLaw("a throughput of 0 was measured")
