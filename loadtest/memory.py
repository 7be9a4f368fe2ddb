"""Whether a worker's memory grows with the time it runs, while duplicates come and ids expire."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from loadtest.subject import Subject

WARM_UP_S: Final = 120
"""Ids fill the horizon, every cache and buffer is used: what is left out of the comparison."""
_SAMPLE_S: Final = 1.0
_SPAN_S: Final = 60


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a worker, second by second."""

    rss_mb: list[float]

    def by_minute(self) -> list[float]:
        """The median of each full minute, in MB (10^6 bytes)."""
        minutes = len(self.rss_mb) // _SPAN_S
        return [statistics.median(self.rss_mb[i * _SPAN_S : (i + 1) * _SPAN_S]) for i in range(minutes)]

    def spread(self) -> float:
        """How far apart the largest and the smallest minute after the warm-up are, as a share of the smallest."""
        minutes = self.by_minute()[WARM_UP_S // _SPAN_S :]
        return max(minutes) / min(minutes) - 1 if minutes else 0.0


def watch_memory(
    worker: Subject, sender: Subject, seconds: int, *, on_progress: Callable[[int], None] = lambda _: None
) -> Memory:
    """Sample the worker's resident memory each second, for `seconds` after the warm-up, while the sender sends.

    Raises:
        StreamsError: one of the two ended.

    """
    samples: list[float] = []
    started = time.monotonic()
    while len(samples) < WARM_UP_S + seconds:
        sender.usage()
        samples.append(worker.usage()[1])
        on_progress(len(samples))
        time.sleep(max(0.0, started + len(samples) * _SAMPLE_S - time.monotonic()))
    return Memory(samples)
