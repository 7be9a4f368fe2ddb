"""Time in which at least one thread is at work: what overlaps counts once, pauses do not count."""

import pytest

from streams.worker.busy_time import BusyTime


def test_what_runs_side_by_side_counts_once_and_a_pause_does_not() -> None:
    now_s = 0.0
    found: list[float] = []
    busy = BusyTime(found.append, lambda: now_s)

    with busy.counted():
        now_s = 1.0
        with busy.counted():
            now_s = 3.0
        assert [] == found
        now_s = 4.0
    now_s = 10.0
    with pytest.raises(ValueError), busy.counted():  # noqa: PT011, PT012 - any error, after some time
        now_s = 10.5
        raise ValueError

    assert [4.0, 0.5] == found
