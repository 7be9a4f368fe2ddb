"""The clock that records are judged by when their own timestamps are no time."""

import numpy as np
import pytest

from streams.batch.clock import Clock
from streams.clock import SteadyClock
from streams.limits import RECORD_TIMESTAMP_MS_MIN

NOW = 1_750_000_000_000
CLOCK = Clock(NOW, 60_000)


def test_a_timestamp_is_a_time_from_2001_up_to_the_clock_and_the_skew() -> None:
    stamps = np.array([RECORD_TIMESTAMP_MS_MIN - 1, RECORD_TIMESTAMP_MS_MIN, NOW, NOW + 60_000, NOW + 60_001])
    assert [False, True, True, True, False] == CLOCK.is_time(stamps).tolist()
    assert [NOW, RECORD_TIMESTAMP_MS_MIN, NOW, NOW + 60_000, NOW] == CLOCK.judged_by(stamps).tolist()


def test_a_batch_of_good_timestamps_is_handed_on_as_it_is() -> None:
    stamps = np.array([NOW, NOW - 5])
    assert CLOCK.judged_by(stamps) is stamps


@pytest.mark.parametrize(
    ("timestamp_ms", "words"),
    [
        (-1, "the record has no timestamp"),
        (0, "the record has no timestamp"),
        (86_400_000, "the record's timestamp, 86400000 ms, is before 2001-09-09"),
        (NOW + 70_000, "the record's timestamp is itself 70000 ms ahead of that clock"),
    ],
)
def test_the_complaint_says_what_is_wrong_with_a_timestamp(timestamp_ms: int, words: str) -> None:
    assert words == CLOCK.complaint(timestamp_ms)


def test_a_step_of_the_wall_clock_back_is_not_followed_and_a_step_forward_is() -> None:
    wall, steady = [NOW * 10**6], [0]
    clock = SteadyClock(lambda: wall[0], lambda: steady[0])
    assert NOW == clock.now_ms()
    steady[0], wall[0] = 5_000_000_000, (NOW - 3_600_000) * 10**6
    assert NOW + 5_000 == clock.now_ms()
    wall[0] = (NOW + 3_600_000) * 10**6
    assert NOW + 3_600_000 == clock.now_ms()
    wall[0] = (NOW + 5_000) * 10**6
    assert NOW + 5_000 == clock.now_ms()
