"""A circuit breaker: after repeated failures it refuses calls for a while, then lets one call probe.

    CLOSED --failures_max failures in a row--> OPEN --rest is over--> HALF_OPEN --one call succeeds--> CLOSED
                                                ^------------- the probe fails: twice the rest -----------+

`Breaker` is the state machine: pure, the time is an argument. `Guard` puts a clock, a lock, a log line and a metric
around it and makes the calls.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeVar

import structlog

from streams.errors import StreamsError

log = structlog.get_logger(__name__)

T = TypeVar("T")


class State(IntEnum):
    """State of a breaker; the numbers are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """When a breaker opens and how long it rests. Seconds."""

    failures_max: int = 5
    """Failures in a row that open it."""
    rest_s: float = 5.0
    """The first rest; each probe that fails doubles it."""
    rest_s_max: float = 30.0
    probe_s_max: float = 60.0
    """A probe that has not returned by then counts as failed: its caller may be gone."""


DEFAULT: Final = Limits()


class Breaker:
    """The state machine. Ask `admits` before each call, then report its outcome; time must not go back."""

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self._limits = limits
        self._failures = 0
        self._rest_s = limits.rest_s
        self._state = State.CLOSED
        self._until_s = 0.0
        """OPEN: end of the rest. HALF_OPEN: when the probe is given up."""
        self._is_probed = False
        """HALF_OPEN: whether a probe is under way."""

    @property
    def state(self) -> State:
        """The state as of the last question or report."""
        return self._state

    def admits(self, now_s: float) -> bool:
        """Whether a call may be made now. In HALF_OPEN one caller is admitted: its call is the probe."""
        if self._state is State.HALF_OPEN and now_s >= self._until_s:
            self._open(now_s)
        if self._state is State.OPEN and now_s >= self._until_s:
            self._state, self._is_probed = State.HALF_OPEN, False
        if self._state is State.HALF_OPEN and not self._is_probed:
            self._is_probed, self._until_s = True, now_s + self._limits.probe_s_max
            return True
        return self._state is State.CLOSED

    def retry_in_s(self, now_s: float) -> float:
        """How long a refused caller has to wait before it asks again."""
        return 0.0 if self._state is State.CLOSED else max(0.0, self._until_s - now_s)

    def succeeded(self) -> None:
        """A call was answered: everything is well again."""
        self._state, self._failures, self._rest_s = State.CLOSED, 0, self._limits.rest_s

    def answered(self) -> None:
        """A call was answered that says little about others, as a question while writes fail: the next one decides."""
        self._is_probed = False

    def failed(self, now_s: float) -> None:
        """A call was not answered. A late failure that arrives in state OPEN changes nothing."""
        if self._state is State.HALF_OPEN:
            self._open(now_s)
        elif self._state is State.CLOSED:
            self._failures += 1
            if self._failures >= self._limits.failures_max:
                self._state, self._until_s = State.OPEN, now_s + self._rest_s

    def _open(self, now_s: float) -> None:
        self._rest_s = min(self._rest_s * 2, self._limits.rest_s_max)
        self._state, self._until_s = State.OPEN, now_s + self._rest_s


class BreakerOpen(StreamsError):
    """The call was not made: its downstream is being left alone. `retry_in_s` says for how long."""

    def __init__(self, downstream: str, retry_in_s: float) -> None:
        super().__init__(f"{downstream} keeps failing and is left alone for {retry_in_s:.1f} s")
        self.retry_in_s = retry_in_s


class Guard:
    """A breaker for one downstream, shared by all callers. Safe to use from several threads."""

    def __init__(
        self,
        downstream: str,
        *,
        limits: Limits = DEFAULT,
        on_state: Callable[[State], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._downstream = downstream
        self._breaker = Breaker(limits)
        self._on_state = on_state
        self._clock = clock
        self._lock = threading.Lock()
        on_state(State.CLOSED)

    @property
    def state(self) -> State:
        """The state of the breaker."""
        return self._breaker.state

    def call(self, call: Callable[[], T], *, failure: type[Exception]) -> T:
        """Make the call, unless the breaker is open. Only `failure` counts against the downstream.

        Raises:
            BreakerOpen: the call was not made.

        """
        return self._called(call, failure, self._breaker.succeeded)

    def ask(self, call: Callable[[], T], *, failure: type[Exception]) -> T:
        """As `call`, for a question: its answer does not close the breaker, and ends no row of failures.

        Raises:
            BreakerOpen: the call was not made.

        """
        return self._called(call, failure, self._breaker.answered)

    def _called(self, call: Callable[[], T], failure: type[Exception], done: Callable[[], None]) -> T:
        with self._lock:
            before = self._breaker.state
            admitted = self._breaker.admits(self._clock())
            retry_in_s = self._breaker.retry_in_s(self._clock())
            self._note(before)
        if not admitted:
            raise BreakerOpen(self._downstream, retry_in_s)
        try:
            result = call()
        except failure:
            self._report(lambda: self._breaker.failed(self._clock()))
            raise
        except Exception:
            self._report(done)  # it answered, if only that it will not
            raise
        self._report(done)
        return result

    def _report(self, report: Callable[[], None]) -> None:
        with self._lock:
            before = self._breaker.state
            report()
            self._note(before)

    def _note(self, before: State) -> None:
        state = self._breaker.state
        if state is before:
            return
        self._on_state(state)
        log.warning(
            "circuit breaker", downstream=self._downstream, state=state.name.lower(), before=before.name.lower(),
            retry_in_s=round(self._breaker.retry_in_s(self._clock()), 1) if state is State.OPEN else None,
        )  # fmt: skip
