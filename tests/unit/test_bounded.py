"""Calls that end in time, whatever the client does."""

import threading

import pytest

from streams.kafka.bounded import BoundedCalls, ClientHangs


def test_what_a_call_returns_or_raises_comes_back() -> None:
    calls = BoundedCalls("test")

    def fails() -> None:
        raise ValueError("so it says")

    assert calls.call(lambda: 7, 5.0) == 7
    with pytest.raises(ValueError, match="so it says"):
        calls.call(fails, 5.0)
    assert calls.call(lambda: 8, 5.0) == 8
    calls.close()


def test_calls_are_made_one_after_the_other_in_one_thread_that_ends_when_closed() -> None:
    calls = BoundedCalls("test")

    threads = {calls.call(threading.current_thread, 5.0) for _ in range(5)}
    calls.close()

    (thread,) = threads
    assert thread is not threading.current_thread()
    assert thread.daemon
    thread.join(5.0)
    assert not thread.is_alive()


def test_a_call_that_does_not_return_is_given_up() -> None:
    calls, returns = BoundedCalls("test"), threading.Event()

    with pytest.raises(ClientHangs, match=r"within 0\.05 s"):
        calls.call(returns.wait, 0.05)

    calls.close()
    returns.set()


def test_a_timeout_that_the_client_reports_in_time_is_its_own() -> None:
    calls = BoundedCalls("test")

    def times_out() -> None:
        raise TimeoutError("the broker's")

    with pytest.raises(TimeoutError, match="the broker's"):
        calls.call(times_out, 5.0)
    calls.close()
