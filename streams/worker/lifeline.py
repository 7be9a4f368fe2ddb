"""A worker process's link to its supervisor: the process stops when the supervisor ends.

The supervisor holds the writing end of a pipe that nothing is written to. However it ends, the reader then sees the end
of the file. (Linux's parent-death signal would be tied to the thread that started the process.)
"""

import os
import re
import signal
import socket
import threading
import time
from dataclasses import dataclass
from typing import Final, Self

import structlog

from streams.errors import UsageError

log = structlog.get_logger(__name__)

ORPHAN_S_MAX: Final = 20.0
"""How long a process without its supervisor may take to stop cleanly."""
_FORM: Final = re.compile(r"(\d{1,4})/(\d{1,4}):(\d{1,7}):(\d{1,7})")


@dataclass(frozen=True, slots=True)
class Supervised:
    """The number of this process among how many, and the descriptors that it inherited."""

    number: int
    of: int
    web: int
    """A listening socket: the supervisor asks there."""
    lifeline: int
    """The reading end of the pipe."""

    def __str__(self) -> str:
        """As the supervisor passes it to the process."""
        return f"{self.number}/{self.of}:{self.web}:{self.lifeline}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse what the supervisor passed.

        Raises:
            UsageError: the supervisor did not write this.

        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise UsageError("--supervised is said by `streams worker --processes` alone")
        return cls(*map(int, found.groups()))

    def web_socket(self) -> socket.socket:
        """The socket of the process's web server."""
        return socket.socket(fileno=self.web)

    def end_with_the_supervisor(self) -> None:
        """Stop this process when the supervisor ends, as SIGTERM does, within `ORPHAN_S_MAX`."""
        end_with(self.lifeline, stop_s_max=ORPHAN_S_MAX)


def end_with(lifeline: int, *, stop_s_max: float) -> None:
    """Stop this process, as SIGTERM does, when the holder of the pipe's other end exits.

    `lifeline`: descriptor of the end to read. A process that has not stopped `stop_s_max` seconds later is ended.
    """

    def await_end() -> None:
        while os.read(lifeline, 1):
            pass
        log.error("the supervisor has ended: stopping")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(stop_s_max)
        os._exit(1)

    threading.Thread(target=await_end, name="lifeline", daemon=True).start()
