"""Counts the dead letters of each topic by reading them, in a thread apart from the rounds of offsets.

Offsets alone are not enough: transaction markers and further attempts of one letter use some, too.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from streams.deadletters.letter.figures import Figures
from streams.errors import StreamsError
from streams.monitor.snapshot import DeadLetters

log = structlog.get_logger(__name__)

REST: Final = 10.0
"""Pause after a count, as a multiple of its duration: counting a million letters takes a while."""


class DeadLetterWatch:
    """Counts again and again in a thread of its own, so that a long count delays no verdict on lag."""

    def __init__(self, count: Callable[[], Sequence[Figures]], *, interval_s: float, window_s: float) -> None:
        """`count` is called every `interval_s`, or less often where it takes long; growth is over `window_s`."""
        self._count = count
        self._interval_s = interval_s
        self._window_s = window_s
        self._samples: dict[str, deque[tuple[float, int]]] = {}
        """By topic: (monotonic seconds, letters), as far back as the window reaches."""
        self._rows: tuple[DeadLetters, ...] = ()
        self._is_failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dead-letter-watch", daemon=True)

    @property
    def rows(self) -> tuple[DeadLetters, ...]:
        """The newest counts, by topic; empty before the first one. Any thread."""
        return self._rows

    def start(self) -> None:
        """Start the thread that counts. Call it once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop counting; does not wait for a count that is running."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            started_s = time.monotonic()
            self.look(started_s)
            took_s = time.monotonic() - started_s
            self._stop.wait(max(self._interval_s - took_s, REST * took_s))

    def look(self, now_s: float) -> None:
        """Count once. A topic that cannot be counted now keeps its last count."""
        try:
            found = self._count()
        except StreamsError as error:
            if not self._is_failing:
                log.warning("dead letters cannot be counted; trying again", error=str(error))
            self._is_failing = True
            return
        except Exception:  # the next count may succeed
            log.exception("dead letters cannot be counted")
            return
        self._is_failing = False
        self._rows = tuple(self._row(one, now_s) for one in found)
        for topic in self._samples.keys() - {one.topic for one in found}:
            del self._samples[topic]

    def _row(self, one: Figures, now_s: float) -> DeadLetters:
        total = sum(one.by_reason.values())
        samples = self._samples.setdefault(one.topic, deque())
        while samples and samples[0][0] < now_s - self._window_s:
            samples.popleft()
        samples.append((now_s, total))
        began_s, began = samples[0]
        grown = max(0, total - began)
        return DeadLetters(one.topic, total, sum(one.open_by_reason.values()), grown, now_s - began_s)
