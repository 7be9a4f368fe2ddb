import numpy as np
import pytest

from loadtest.oracle.model import haversine_km
from logistics.folds.geo import EARTH_RADIUS_KM, haversine_mm

MUNICH, BERLIN = (48.137154, 11.576124), (52.520008, 13.404954)


def mm(a: tuple[float, float], b: tuple[float, float]) -> int:
    return int(haversine_mm(*(np.array([value]) for value in (*a, *b)))[0])


def test_a_known_distance() -> None:
    assert mm(MUNICH, BERLIN) / 1e6 == pytest.approx(504.4, abs=0.2)


def test_a_place_is_no_distance_from_itself() -> None:
    assert mm(MUNICH, MUNICH) == 0


def test_both_directions_are_equally_long() -> None:
    assert mm(MUNICH, BERLIN) == mm(BERLIN, MUNICH)


def test_half_around_the_world_is_pi_radii() -> None:
    half_mm = round(np.pi * EARTH_RADIUS_KM * 1e6)
    assert mm((90, 0), (-90, 0)) == half_mm
    assert mm((0, 0), (0, 180)) == half_mm
    assert mm((0, -180), (0, 180)) == 0


def test_across_the_date_line_is_the_short_way() -> None:
    assert mm((0, 179.999), (0, -179.999)) == pytest.approx(mm((0, 0), (0, 0.002)), abs=1)


def test_a_metre_is_not_lost() -> None:
    assert mm((48, 11), (48.00001, 11)) == pytest.approx(1112, abs=1)


def test_any_pair_is_as_far_apart_as_the_model_says() -> None:
    rng = np.random.default_rng(1)
    latitude_1, latitude_2 = rng.uniform(-90, 90, (2, 2000))
    longitude_1, longitude_2 = rng.uniform(-180, 180, (2, 2000))
    found = haversine_mm(latitude_1, longitude_1, latitude_2, longitude_2)
    expected = [
        haversine_km(*pair) * 1e6
        for pair in zip(
            latitude_1.tolist(), longitude_1.tolist(), latitude_2.tolist(), longitude_2.tolist(), strict=True
        )
    ]
    assert np.abs(found - expected).max() <= 2


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 63, 1000])
def test_a_distance_does_not_depend_on_its_place_in_the_batch(count: int) -> None:
    rng = np.random.default_rng(count)
    points = rng.uniform(-80, 80, (4, count))
    whole = haversine_mm(*points).tolist()
    assert [int(haversine_mm(*points[:, i : i + 1])[0]) for i in range(count)] == whole
    assert haversine_mm(*np.asfortranarray(points)).tolist() == whole
