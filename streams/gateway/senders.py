"""What senders are held to, each by itself: a rate, and a pause after many requests with nothing usable in them."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from streams.gateway.answers import Refused
from streams.limits import GATEWAY_SENDERS_KEPT_MAX
from streams.resilience.breaker import Breaker, Limits, State

MALFORMED: Final = Limits(failures_max=20, rest_s=5.0, rest_s_max=300.0, probe_s_max=60.0)
"""So many requests in a row without a single event in them, and the sender has to pause; then one is let through."""
BURST_S: Final = 2.0
"""With a rate: what was not used of so many seconds may be used at once."""


@dataclass(slots=True)
class _Sender:
    breaker: Breaker = field(default_factory=lambda: Breaker(MALFORMED))
    tokens: float = 0.0
    filled_s: float = -math.inf


class Senders:
    """Rates and pauses by source and sender."""

    def __init__(
        self,
        *,
        rate_max: int,
        on_pause: Callable[[str, str], None] = lambda _source, _sender: None,
        clock: Callable[[], float] = time.monotonic,
        kept_max: int = GATEWAY_SENDERS_KEPT_MAX,
    ) -> None:
        """`rate_max`: events a second of each sender; 0: any. `on_pause` is told of source and sender."""
        self._rate_max, self._on_pause, self._clock, self._kept_max = rate_max, on_pause, clock, kept_max
        self._senders: OrderedDict[tuple[str, str], _Sender] = OrderedDict()

    @property
    def paused(self) -> list[tuple[str, str]]:
        """Source and sender of those that have to pause, or whose next request decides."""
        return [key for key, one in self._senders.items() if one.breaker.state is not State.CLOSED]

    def check_pause(self, source: str, sender: str) -> None:
        """Before a request is looked at.

        Raises:
            Refused: the sender has to pause.

        """
        breaker, now_s = self._of(source, sender).breaker, self._clock()
        if not breaker.admits(now_s):
            raise Refused(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{MALFORMED.failures_max} or more requests in a row had no event in them: nothing more is taken from "
                "this sender for a while. The dead letters say what was wrong",
                kind="quarantined", retry_s=max(1.0, breaker.retry_in_s(now_s)),
            )  # fmt: skip

    def check_rate(self, source: str, sender: str, records: int) -> None:
        """Before the records of a request are looked at.

        Raises:
            Refused: they are more than the sender may send now.

        """
        if not self._rate_max:
            return
        one, now_s = self._of(source, sender), self._clock()
        size = max(self._rate_max * BURST_S, 1.0)
        one.tokens = min(size, one.tokens + (now_s - one.filled_s) * self._rate_max)
        one.filled_s = now_s
        if one.tokens < min(records, size):  # a request of more than a burst is let through once, and waited for after
            raise Refused(
                HTTPStatus.TOO_MANY_REQUESTS, f"a sender may send {self._rate_max} events a second",
                kind="rate", retry_s=(min(records, size) - one.tokens) / self._rate_max,
            )  # fmt: skip
        one.tokens -= records

    def report(self, source: str, sender: str, *, had_events: bool) -> None:
        """Tell a sender's breaker whether its request contained events."""
        breaker = self._of(source, sender).breaker
        before = breaker.state
        if had_events:
            breaker.succeeded()
            return
        breaker.failed(self._clock())
        if breaker.state is State.OPEN and before is State.CLOSED:
            self._on_pause(source, sender)

    def _of(self, source: str, sender: str) -> _Sender:
        key = (source, sender)
        found = self._senders.get(key)
        if found is None:
            found = self._senders[key] = _Sender()
            if len(self._senders) > self._kept_max:
                self._senders.popitem(last=False)
        else:
            self._senders.move_to_end(key)
        return found
