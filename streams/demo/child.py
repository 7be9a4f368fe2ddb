"""A process that the demo starts and that must not outlive it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from streams.errors import StreamsError
from streams.interrupts import Interrupts

STOP_S_MAX: Final = 20.0
"""How long it may take to stop by itself before it is killed."""
LAST_LINES: Final = 5
LAST_BYTES: Final = 16_384


class Child:
    """A Python process of this project with its output in a log; `stop` leaves nothing of it, whatever its state.

    It runs in a session of its own: Ctrl-C in the terminal reaches the demo alone, which then stops all in order.
    """

    def __init__(
        self,
        title: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        interrupts: Interrupts,
        takes_commands: bool = False,
    ) -> None:
        """Describe it; nothing is started. The log of the run before is kept beside the new one.

        `takes_commands`: it reads lines from standard input (`tell`); else there is nothing to read.
        """
        self.title = title
        self.log = log
        self._arguments = [sys.executable, "-P", *arguments]  # -P: no module of the working directory
        self._environment = environment
        self._interrupts = interrupts
        self._stdin = subprocess.PIPE if takes_commands else subprocess.DEVNULL
        self._process: subprocess.Popen[bytes] | None = None
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_name(f"{log.name}.1"))

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it (again); its log goes on."""
        with self._interrupts.held(), self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments,
                env=dict(self._environment),
                stdin=self._stdin,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def check(self) -> None:
        """Do nothing as long as it runs.

        Raises:
            StreamsError: it has ended by itself; the message has its last lines.

        """
        if self._process is not None and (status := self._process.poll()) is not None:
            how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            said = "".join(f"\n    {line}" for line in self._last_lines()) or "\n    (nothing)"
            raise StreamsError(f"{self.title} {how} by itself. The last lines of {self.log}:{said}")

    def tell(self, line: str) -> None:
        """Write a line to its standard input; one that has ended is found by `check`."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.write(f"{line}\n".encode())
                self._process.stdin.flush()

    def kill(self) -> None:
        """End the process by SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Ask it to stop, wait, and kill it when that takes too long. On return it does not run."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()  # harmless to what has ended

    def _last_lines(self) -> list[str]:
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()
        return [line for line in lines if line.strip()][-LAST_LINES:]
