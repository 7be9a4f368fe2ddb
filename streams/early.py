"""Handles SIGTERM while a worker imports and connects, before it has handlers of its own.

No imports but the standard library's smallest: until this has run, SIGTERM kills the process with status -15.
"""

import os
import signal
from types import FrameType
from typing import Final, NoReturn

TERMINATED: Final = 128 + signal.SIGTERM
"""Exit status of a worker that was told to stop before it had begun."""


def exit_on_sigterm() -> None:
    """Let SIGTERM end this process at once: nothing is running yet that has to be stopped.

    Not by an exception: it would surface wherever the main thread happens to be, and in a callback of librdkafka it
    becomes a `SystemError` with a traceback, and exit status 1.
    """
    signal.signal(signal.SIGTERM, _exit)


def _exit(_: int, __: FrameType | None) -> NoReturn:
    os._exit(TERMINATED)
