"""The retry policy: bounded pauses that grow, said aloud, ended by a stop."""

import asyncio
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.resilience.retry import Backoff, Pause, Retrier

FAST = Backoff(first_s=0.001, pause_s_max=0.004)


class Passing(Exception):
    pass


class Failing:
    """Fails so many times, then answers."""

    def __init__(self, failures: int, error: type[Exception] = Passing) -> None:
        self.calls = 0
        self._failures, self._error = failures, error

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error(f"failure {self.calls}")
        return 42

    async def in_loop(self) -> int:
        await asyncio.sleep(0)
        return self()


def test_a_call_is_repeated_until_it_succeeds_and_each_pause_is_told() -> None:
    said: list[Pause] = []
    signs: list[Pause] = []
    retrier = Retrier(say=said.append, on_pause=signs.append)
    assert 42 == retrier.call("waiting", Failing(3), passing=Passing, backoff=FAST)
    assert [("waiting", 1), ("waiting", 2), ("waiting", 3)] == [(pause.what, pause.failures) for pause in said]
    assert said == signs
    assert "failure 3" == str(said[-1].error)
    assert all(0 < pause.pause_s <= 0.004 for pause in said)


def test_a_coroutine_is_repeated_too() -> None:
    call = Failing(2)
    assert 42 == asyncio.run(Retrier().call_async("waiting", call.in_loop, passing=(Passing,), backoff=FAST))
    assert 3 == call.calls


def test_an_error_that_does_not_pass_is_raised_at_once() -> None:
    call = Failing(9, ValueError)
    with pytest.raises(ValueError, match="failure 1"):
        Retrier().call("waiting", call, passing=Passing, backoff=FAST)
    assert 1 == call.calls


def test_which_errors_pass_may_be_a_judgement() -> None:
    call = Failing(9)
    with pytest.raises(Passing, match="failure 2"):
        Retrier().call("waiting", call, passing=lambda error: "1" in str(error), backoff=FAST)


def test_attempts_and_time_are_bounded() -> None:
    call = Failing(99)
    with pytest.raises(Passing):
        Retrier().call("waiting", call, passing=Passing, backoff=Backoff(0.001, 0.001, attempts_max=3))
    assert 3 == call.calls
    with pytest.raises(Passing):
        Retrier().call("waiting", call, passing=Passing, backoff=Backoff(60.0, 60.0, give_up_s=1.0))
    assert 4 == call.calls, "a pause that would end too late is not begun"


def test_a_stop_ends_a_pause_at_once() -> None:
    stop = threading.Event()
    call = Failing(99)
    retrier = Retrier(stop, on_pause=lambda _: threading.Timer(0.01, stop.set).start())
    before = time.monotonic()
    with pytest.raises(Passing):
        retrier.call("waiting", call, passing=Passing, backoff=Backoff(first_s=3600, pause_s_max=3600))
    assert time.monotonic() - before < 60
    assert retrier.stopped
    assert call.calls <= 2


def test_who_refuses_may_say_when_to_come_again() -> None:
    class Refused(Passing):
        retry_in_s = 0.002

    said: list[Pause] = []
    Retrier(say=said.append).call("waiting", Failing(1, Refused), passing=Passing, backoff=Backoff(60.0, 60.0))
    assert [0.002] == [pause.pause_s for pause in said]


@given(st.integers(1, 10_000), st.floats(0.001, 10), st.floats(0.001, 100))
def test_pauses_grow_and_stay_bounded(failures: int, first_s: float, pause_s_max: float) -> None:
    backoff = Backoff(first_s, pause_s_max)
    assert backoff.pause_s(failures) <= backoff.pause_s(failures + 1) <= pause_s_max
    assert 0 < backoff.jittered_s(failures) <= pause_s_max
