"""SIGTERM before the worker has handlers of its own: an orchestrator may change its mind while we import and connect.

No imports but the standard library's smallest: until this has run, SIGTERM kills the process with status -15.
"""

import signal
import sys
from types import FrameType
from typing import Final, NoReturn

TERMINATED: Final = 128 + signal.SIGTERM
"""Exit status of a worker that was told to stop before it had begun."""


def exit_on_sigterm() -> None:
    """Let SIGTERM end this process as `sys.exit` does: nothing runs yet that would have to be stopped."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(_: int, __: FrameType | None) -> NoReturn:
    sys.exit(TERMINATED)
