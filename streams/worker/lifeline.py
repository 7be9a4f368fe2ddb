"""A worker process's link to its supervisor, and how it notices that the supervisor is gone.

The supervisor holds the writing end of a pipe that nothing is written to. When it ends, however it does, the reading
end is at its end: a signal of the parent's death would depend on the thread that started the process, and on Linux.
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
"""How long a process whose supervisor is gone may take to stop in order."""
_FORM: Final = re.compile(r"(\d{1,4})/(\d{1,4}):(\d{1,7}):(\d{1,7})")


@dataclass(frozen=True, slots=True)
class Supervised:
    """Which process of how many this is, and the descriptors that it was given."""

    number: int
    of: int
    web: int
    """A socket that listens: the supervisor asks there."""
    lifeline: int
    """The pipe's end to read."""

    def __str__(self) -> str:
        """As the supervisor says it to the process."""
        return f"{self.number}/{self.of}:{self.web}:{self.lifeline}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what the supervisor said.

        Raises:
            UsageError: it is nothing that it says.

        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise UsageError("--supervised is said by `streams worker --processes` alone")
        return cls(*map(int, found.groups()))

    def web_socket(self) -> socket.socket:
        """The socket of its web server."""
        return socket.socket(fileno=self.web)

    def end_with_the_supervisor(self) -> None:
        """From now on the end of the supervisor stops this process, as SIGTERM does, within `ORPHAN_S_MAX`."""
        end_with(self.lifeline, stop_s_max=ORPHAN_S_MAX)


def end_with(lifeline: int, *, stop_s_max: float) -> None:
    """From now on the end of who holds the pipe's other end stops this process, as SIGTERM does.

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
