"""The circuit breaker as a state machine, over any order of calls, answers and passing time."""

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streams.resilience.breaker import Breaker, BreakerOpen, Guard, Limits, State
from tests.examples import examples

LIMITS = Limits(failures_max=3, rest_s=5.0, rest_s_max=20.0, probe_s_max=60.0)


class AnyHistory(RuleBasedStateMachine):
    """Against what a caller may rely on, kept in the plainest way."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(LIMITS)
        self.now_s = 0.0
        self.out = 0
        """Calls that were admitted and have not come back."""
        self.in_a_row = 0
        self.probes = 0
        self.opened_at_s = 0.0

    def _noting_state(self, before: State) -> None:
        if self.breaker.state is State.OPEN and before is not State.OPEN:
            self.opened_at_s = self.now_s

    @rule(seconds=st.floats(0, 70))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def ask(self) -> None:
        before, wait_s = self.breaker.state, self.breaker.retry_in_s(self.now_s)
        admitted = self.breaker.admits(self.now_s)
        if admitted:
            assert before is not State.OPEN or self.now_s - self.opened_at_s >= LIMITS.rest_s
            assert wait_s == 0 or before is State.CLOSED
            self.out += 1
        if before is State.CLOSED:
            assert admitted
        if before is State.OPEN and wait_s == 0:
            assert admitted, "after the rest one call probes"
            assert not self.breaker.admits(self.now_s), "and only one"
        self._noting_state(before)

    @precondition(lambda self: self.out)
    @rule()
    def answered(self) -> None:
        self.out -= 1
        self.in_a_row = 0
        self.breaker.succeeded()
        assert self.breaker.state is State.CLOSED
        assert self.breaker.admits(self.now_s)

    @precondition(lambda self: self.out)
    @rule()
    def not_answered(self) -> None:
        self.out -= 1
        self.in_a_row += 1
        before = self.breaker.state
        self.breaker.failed(self.now_s)
        if before is State.CLOSED and self.in_a_row >= LIMITS.failures_max:
            assert self.breaker.state is State.OPEN
        if before is State.HALF_OPEN:
            assert self.breaker.state is State.OPEN
        if self.in_a_row < LIMITS.failures_max and before is State.CLOSED:
            assert self.breaker.state is State.CLOSED
        self._noting_state(before)

    @invariant()
    def every_wait_is_bounded(self) -> None:
        assert 0 <= self.breaker.retry_in_s(self.now_s) <= max(LIMITS.rest_s_max, LIMITS.probe_s_max) + 1e-9

    @invariant()
    def whoever_waits_as_told_is_let_through_in_the_end(self) -> None:
        """Not tried on the breaker itself: on one with its state."""
        twin = Breaker(LIMITS)
        twin.__dict__.update(self.breaker.__dict__)
        now_s = self.now_s
        for _ in range(2):  # a probe that is lost costs one more rest
            if twin.admits(now_s):
                return
            now_s += twin.retry_in_s(now_s)
        assert twin.admits(now_s)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=examples(200), stateful_step_count=40, deadline=None)


def test_the_rest_doubles_with_each_failed_probe_up_to_its_bound() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(LIMITS.failures_max):
        breaker.failed(0.0)
    now_s, rests = 0.0, []
    for _ in range(4):
        rests.append(breaker.retry_in_s(now_s))
        now_s += rests[-1]
        assert breaker.admits(now_s)
        breaker.failed(now_s)
    assert [5.0, 10.0, 20.0, 20.0] == rests
    breaker.succeeded()
    assert State.CLOSED is breaker.state


class Away(Exception):
    pass


def away() -> None:
    raise Away


def test_a_guard_lets_a_failing_downstream_alone_and_probes_it_with_one_call() -> None:
    now_s = [0.0]
    states: list[State] = []
    guard = Guard("registry", limits=LIMITS, on_state=states.append, clock=lambda: now_s[0])
    for _ in range(3):
        with pytest.raises(Away):
            guard.call(away, failure=Away)
    with pytest.raises(BreakerOpen) as refused:
        guard.call(away, failure=Away)
    assert 5.0 == refused.value.retry_in_s
    now_s[0] = 5.0
    assert 42 == guard.call(lambda: 42, failure=Away)
    assert [State.CLOSED, State.OPEN, State.HALF_OPEN, State.CLOSED] == states


def test_an_answer_that_is_an_error_counts_as_an_answer() -> None:
    guard = Guard("registry", limits=LIMITS)
    for _ in range(10):
        with pytest.raises(KeyError):
            guard.call(lambda: {}["no such schema"], failure=Away)
    assert State.CLOSED is guard.state


def test_while_one_thread_probes_no_other_calls() -> None:
    now_s = [0.0]
    guard = Guard("registry", limits=LIMITS, clock=lambda: now_s[0])
    for _ in range(3):
        with pytest.raises(Away):
            guard.call(away, failure=Away)
    now_s[0] = 5.0
    inside, leave = threading.Event(), threading.Event()

    def slow() -> int:
        inside.set()
        assert leave.wait(30)
        return 42

    probe = threading.Thread(target=lambda: guard.call(slow, failure=Away))
    probe.start()
    assert inside.wait(30)
    with pytest.raises(BreakerOpen):
        guard.call(away, failure=Away)
    leave.set()
    probe.join()
    assert State.CLOSED is guard.state
