"""Sends messages about problems to all targets, each in a thread of its own: one that is down delays no other.

A message that cannot be sent is not kept: when the target accepts messages again it gets the state of that time.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from streams.errors import StreamsError
from streams.monitor.notify.counts import Count
from streams.monitor.notify.ledger import Ledger
from streams.monitor.notify.problems import Problem
from streams.monitor.notify.targets import Target
from streams.monitor.notify.words import Origin
from streams.resilience.retry import Backoff

log = structlog.get_logger(__name__)

PAUSES: Final = Backoff(first_s=5.0, pause_s_max=300.0)
"""Pause between attempts at a target that does not accept messages."""
STOP_S: Final = 2.0

Look = Callable[[], Mapping[str, Problem]]
"""Returns the current problems."""


class Notifier:
    """Checks every `every_s` and sends the messages that are due."""

    def __init__(
        self,
        targets: Sequence[Target],
        look: Look,
        origin: Origin,
        *,
        wait_s: float,
        repeat_s: float,
        every_s: float,
        pauses: Backoff = PAUSES,
    ) -> None:
        self._look = look
        self._origin = origin
        self._wait_s, self._repeat_s, self._every_s = wait_s, repeat_s, every_s
        self._pauses = pauses
        self.counts = {target.name: Count() for target in targets}
        """By the target's name; any thread may read it."""
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(target,), name=f"notify {target.name}", daemon=True)
            for target in targets
        ]

    def start(self) -> None:
        """Start a sending thread for each target. Call it once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop sending; a message that is being sent has `STOP_S`."""
        self._stop.set()
        deadline_s = time.monotonic() + STOP_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline_s - time.monotonic()))

    def _run(self, target: Target) -> None:
        ledger = Ledger(wait_s=self._wait_s, repeat_s=self._repeat_s)
        count, failures = self.counts[target.name], 0
        while not self._stop.is_set():
            pause_s = self._every_s
            try:
                message = ledger.due(self._look(), time.monotonic())
                if message is not None:
                    target.send(message, self._origin)
                    ledger.sent(message, time.monotonic())
                    count.sent, count.is_down = count.sent + 1, False
                    if failures:
                        log.info("messages are accepted again", target=target.name, place=target.place)
                    failures = 0
            except StreamsError as error:
                failures += 1
                count.failed, count.is_down = count.failed + 1, True
                pause_s = max(pause_s, self._pauses.jittered_s(failures))
                log.warning(
                    "a message was not accepted; it is tried again",
                    target=target.name, error=str(error), failures=failures, retry_in_s=round(pause_s, 1),
                )  # fmt: skip
            except Exception:  # the next one may succeed
                log.exception("a message could not be made", target=target.name)
            self._stop.wait(pause_s)
