"""Decides what follows when a process of a supervised worker ends: restart it, or end all of them."""

from dataclasses import dataclass
from typing import Final

from streams.errors import FencedError, StreamsError, UsageError
from streams.resilience.retry import Backoff

RESTARTS_MAX: Final = 10
"""The supervisor gives up after so many ends in a row without a good run between them."""
IN_ORDER_S: Final = 60.0
"""A run that was ready and lasted this long counts as good: a failure after it is the first of a new row."""
_BACKOFF: Final = Backoff(first_s=1.0, pause_s_max=30.0)
SWITCHED: Final = 75
"""Exit status of a process that is to be restarted with another version of a flow."""
_FINAL: Final = frozenset({FencedError.exit_status, UsageError.exit_status})


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart the process after a pause."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class EndAll:
    """Stop the other processes, and exit with this status."""

    status: int
    why: str


class Restarts:
    """Decides for one process, run after run."""

    def __init__(self) -> None:
        self._failures = 0
        self._was_ever_ready = False

    def ended(self, status: int, *, was_ready: bool, ran_s: float) -> Restart | EndAll:
        """What follows when a run ends that nobody asked to end.

        `status`: exit status, or minus the number of the signal. Fenced (3) and wrong usage (2) end all: another
        process has the place, or the same would happen again. So does a failure (1) before this process was ready for
        the first time: topics are missing, or no broker answers.
        """
        self._was_ever_ready = self._was_ever_ready or was_ready
        if status == SWITCHED:
            return Restart(0.0)
        if status in _FINAL:
            return EndAll(status, f"it {ending(status)}")
        if status == StreamsError.exit_status and not self._was_ever_ready:
            return EndAll(status, "it failed before it was ready for the first time")
        self._failures = 1 if was_ready and ran_s >= IN_ORDER_S else self._failures + 1
        if self._failures > RESTARTS_MAX:
            return EndAll(
                StreamsError.exit_status, f"it ended {self._failures} times in a row, lastly it {ending(status)}"
            )
        return Restart(_BACKOFF.pause_s(self._failures))


def ending(status: int) -> str:
    """How a process ended, in words."""
    if status < 0:
        return f"was ended by signal {-status}"
    return "was fenced" if status == FencedError.exit_status else f"ended with status {status}"
