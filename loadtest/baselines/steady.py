"""Traffic at a steady rate for a program that runs already, and the CPU time that it takes meanwhile."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from loadtest.fleet import TrafficBatch, send_open_loop
from loadtest.subject import Subject
from streams.errors import StreamsError

WARM_UP_S: Final = 5
"""Sent and not counted: every device is new."""


@dataclass(frozen=True, slots=True)
class Steady:
    """What steady traffic cost."""

    events: int
    cpu_s: float
    rss_mb: float


def measure_steady(
    subject: Subject,
    committed: Callable[[], int],
    bootstrap: str,
    topic: str,
    batches: Sequence[TrafficBatch],
    *,
    seconds: int,
) -> Steady:
    """Send `batches` by their timestamps; count what is `committed` in the `seconds` after the warm-up.

    Raises:
        StreamsError: sending failed, or the subject ended.

    """
    failure: list[StreamsError] = []

    def send() -> None:
        try:
            send_open_loop(bootstrap, topic, batches)
        except StreamsError as error:
            failure.append(error)

    sender = threading.Thread(target=send, name="sender", daemon=True)
    sender.start()
    _sleep_until(batches[0].timestamps_ms[0] / 1000 + WARM_UP_S)
    done_before, cpu_before_s = committed(), subject.usage()[0]
    time.sleep(seconds)
    done, (cpu_after_s, rss_mb) = committed(), subject.usage()
    sender.join()
    if failure:
        raise failure[0]
    return Steady(done - done_before, cpu_after_s - cpu_before_s, rss_mb)


def _sleep_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.time()))
