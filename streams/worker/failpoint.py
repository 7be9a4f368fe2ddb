"""Failpoints: make a worker crash, hang or stall at a given step, for tests.

Steps are those of a commit cycle (`streams.engine.commit.STEPS`) and of a snapshot (`streams.snapshots.shelf.STEPS`).
`STREAMS_FAILPOINT` is one of

    produced:3         the process kills itself when it reaches the step for the third time
    hang:committed:3   the thread that reaches the step for the third time never goes on
    stall:produced:3   it goes on after 40 s, longer than a transaction may live
    slow:produced:50   every passage takes 50 ms longer
"""

import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import Final, Literal, get_args

import structlog

from streams.engine.commit import STEPS
from streams.errors import UsageError
from streams.snapshots import shelf

log = structlog.get_logger(__name__)

FAILPOINT_VARIABLE: Final = "STREAMS_FAILPOINT"
Deed = Literal["kill", "hang", "stall", "slow"]
DEEDS: Final = frozenset[str](get_args(Deed))
_STALL_S: Final = 40.0
_STEPS: Final = (*STEPS, *shelf.STEPS)


@dataclass(slots=True)
class Failpoint:
    """Call it with the name of each step that is reached."""

    deed: Deed
    step: str
    number: int
    """Which passage (kill, hang, stall), or milliseconds (slow)."""

    def __call__(self, step: str) -> None:
        """Act if this is the configured step and pass."""
        if step != self.step:
            return
        if self.deed == "slow":
            time.sleep(self.number / 1000)
            return
        self.number -= 1
        if self.number > 0:
            return
        if self.deed == "stall":
            if self.number == 0:
                log.warning("failpoint reached: this thread stalls", step=step, seconds=_STALL_S)
                time.sleep(_STALL_S)
            return
        if self.deed == "hang":
            log.warning("failpoint reached: this thread hangs", step=step)
            threading.Event().wait()
        log.warning("failpoint reached: killing this process", step=step)
        os.kill(os.getpid(), signal.SIGKILL)


def no_failpoint(_: str) -> None:
    """Do nothing."""


def parse_failpoint(spec: str) -> Failpoint:
    """Parse the value of the variable.

    Raises:
        UsageError: it is not a failpoint.

    """
    deed, _, rest = spec.partition(":") if spec.count(":") == 2 else ("kill", "", spec)
    step, _, number = rest.partition(":")
    if deed not in DEEDS or step not in _STEPS or not number.isascii() or not number.isdigit():
        raise UsageError(
            f"{FAILPOINT_VARIABLE} must be STEP:N, hang:STEP:N, stall:STEP:N or slow:STEP:MS with a step of "
            f"{', '.join(_STEPS)}; got {spec!r}"
        )
    return Failpoint(deed, step, int(number))  # type: ignore[arg-type]  # checked above
