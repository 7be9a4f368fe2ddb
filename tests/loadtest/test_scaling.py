import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.scaling import Scaling, fit


@given(
    g=st.floats(100, 1e6),
    contention=st.floats(0, 0.9),
    coherency=st.floats(0, 0.05),
)
def test_a_law_without_noise_is_found_again(g: float, contention: float, coherency: float):
    law = Scaling(g, contention, coherency, 0.0, ())
    found = fit([(n, law.rate(n)) for n in (1, 3, 6, 12, 24)])
    assert found is not None
    for n in (2, 12, 48):
        assert found.rate(n) == pytest.approx(law.rate(n), rel=1e-3)


@given(rates=st.lists(st.floats(1, 1e6), min_size=4, max_size=4))
def test_any_measurement_has_a_law_that_is_physical(rates: list[float]):
    found = fit(list(zip((3, 6, 12, 24), rates, strict=True)))
    assert found is not None
    assert 0 <= found.contention <= 1
    assert 0 <= found.coherency <= 1
    assert found.rate_of_one > 0
    assert all(found.rate(n) > 0 for n in (1, 100, 10_000))
    assert found.ceiling >= found.rate(24) * 0.999


def test_linear_scaling_has_no_ceiling():
    found = fit([(3, 300.0), (6, 600.0), (12, 1200.0)])
    assert found is not None
    assert found.rate(24) == pytest.approx(2400.0)
    assert math.isinf(found.ceiling)
    assert found.as_dict()["ceiling"] is None


def test_a_flat_line_is_all_contention():
    found = fit([(3, 500.0), (6, 500.0), (12, 500.0), (24, 500.0)])
    assert found is not None
    assert found.contention == pytest.approx(1.0)
    assert found.rate(1) == pytest.approx(500.0)
    assert found.ceiling == pytest.approx(500.0)


def test_what_gets_slower_has_a_peak():
    found = fit([(1, 100.0), (2, 180.0), (4, 280.0), (8, 300.0), (16, 220.0)])
    assert found is not None
    assert 5 < found.peak_n < 10


@pytest.mark.parametrize(
    "points", [[], [(3, 1.0), (6, 2.0)], [(3, 1.0), (3, 1.0), (6, 1.0)], [(1, 0.0), (2, 1.0), (3, 1.0)]]
)
def test_too_little_to_fit(points: list[tuple[int, float]]):
    assert fit(points) is None
