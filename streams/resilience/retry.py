"""The retry policy of remote calls: backoff with jitter and a limit. There is no other.

Pauses grow exponentially, differ by chance (so that many workers do not come back at the same moment) and are bounded;
each is logged; a stop ends them at once. The caller decides which errors are transient.
"""

import random
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog
import tenacity

log = structlog.get_logger(__name__)

T = TypeVar("T")

Passing = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
"""Transient errors: their types, or a function that decides."""

_EXPONENT_MAX: Final = 32
_JITTER: Final = (0.7, 1.3)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to pause before each repetition; how long and how often to try at all (None: as it takes)."""

    first_s: float = 0.25
    pause_s_max: float = 15.0
    give_up_s: float | None = None
    attempts_max: int | None = None

    def pause_s(self, failures: int) -> float:
        """Pause after the n-th failure in a row, without jitter."""
        return min(self.first_s * 2.0 ** min(failures - 1, _EXPONENT_MAX), self.pause_s_max)

    def jittered_s(self, failures: int) -> float:
        """As `pause_s`, differing by chance; never above `pause_s_max`."""
        return min(self.pause_s(failures) * random.uniform(*_JITTER), self.pause_s_max)  # noqa: S311 - not a secret


@dataclass(frozen=True, slots=True)
class Pause:
    """A call failed and is repeated after `pause_s`."""

    what: str
    error: BaseException
    failures: int
    pause_s: float


Say = Callable[[Pause], None]


def aloud(pause: Pause) -> None:
    """Log what is waited for, how often it has failed, and when it is tried again."""
    log.warning(pause.what, error=str(pause.error), failures=pause.failures, retry_in_s=round(pause.pause_s, 2))


def quietly(_: Pause) -> None:
    """Log nothing: for commands that report everything in one line at the end."""


class Retrier:
    """Repeats calls until they succeed, their time is up, or `stop` is set; then raises the last error."""

    def __init__(
        self,
        stop: threading.Event | None = None,
        *,
        say: Say = aloud,
        on_pause: Callable[[Pause], None] = lambda _: None,
    ) -> None:
        """`on_pause` is called for each pause as well: reported waiting is a sign of life."""
        self._stop = stop or threading.Event()
        self._say = say
        self._on_pause = on_pause

    @property
    def stopped(self) -> bool:
        """Whether waiting was stopped."""
        return self._stop.is_set()

    def call(self, what: str, call: Callable[[], T], *, passing: Passing, backoff: Backoff) -> T:
        """Result of `call`, repeated in this thread. `what` is the line in the log: what is waited for, and why."""
        policy = tenacity.Retrying(**self._policy(what, passing, backoff), sleep=self._sleep)
        return policy(call)

    async def call_async(self, what: str, call: Callable[[], Awaitable[T]], *, passing: Passing, backoff: Backoff) -> T:
        """As `call`, for a coroutine function; cancel the task to end a pause early."""

        async def attempt() -> T:  # tenacity awaits only functions that are declared as coroutines
            return await call()

        return await tenacity.AsyncRetrying(**self._policy(what, passing, backoff))(attempt)

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _policy(self, what: str, passing: Passing, backoff: Backoff) -> dict[str, Any]:
        def say(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome is not None else None
            pause = Pause(what, error or RuntimeError(), state.attempt_number, state.upcoming_sleep)
            self._on_pause(pause)
            self._say(pause)

        stops: list[Any] = [tenacity.stop_when_event_set(self._stop)]
        if backoff.give_up_s is not None:
            stops.append(tenacity.stop_before_delay(backoff.give_up_s))
        if backoff.attempts_max is not None:
            stops.append(tenacity.stop_after_attempt(backoff.attempts_max))
        return {
            "retry": tenacity.retry_if_exception(_judgement(passing)),
            "wait": _pause_of(backoff),
            "stop": tenacity.stop_any(*stops),
            "before_sleep": say,
            "reraise": True,
        }


def _judgement(passing: Passing) -> Callable[[BaseException], bool]:
    if isinstance(passing, (type, tuple)):
        return lambda error: isinstance(error, passing)
    return passing


def _pause_of(backoff: Backoff) -> Callable[[tenacity.RetryCallState], float]:
    def pause_s(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        # Whoever refuses (an open breaker) knows best when to come again.
        asked: float | None = getattr(error, "retry_in_s", None)
        return backoff.jittered_s(state.attempt_number) if asked is None else asked

    return pause_s
