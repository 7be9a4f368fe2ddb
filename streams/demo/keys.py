"""Keys pressed in the terminal while the demo runs, without Enter and without being shown."""

import os
import select
import sys
import termios
import tty
from types import TracebackType
from typing import Any, Final, Self

READ_BYTES: Final = 64


class Keys:
    """Reads keys within a `with` block; the terminal is as it was afterwards.

    Standard input that is no terminal (a pipe, a file) is read as well: each character is a key. At its end, and for a
    process in the background, there are none.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        try:
            descriptor = sys.stdin.fileno()
            is_terminal = os.isatty(descriptor)
            if is_terminal and os.tcgetpgrp(descriptor) != os.getpgrp():
                return self  # in the background: reading would stop this process
            if is_terminal:
                self._before = termios.tcgetattr(descriptor)
                tty.setcbreak(descriptor, termios.TCSANOW)
            self._descriptor = descriptor
        except (AttributeError, OSError, ValueError, termios.error):
            self._descriptor = None  # closed, or of a kind that has no keys
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._before is not None and self._descriptor is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def wait(self, seconds: float) -> str:
        """Keys that were pressed, in their order; none after so many seconds."""
        if self._descriptor is None:
            select.select([], [], [], seconds)
            return ""
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        if not ready:
            return ""
        try:
            read = os.read(self._descriptor, READ_BYTES)
        except OSError:
            read = b""
        if not read:
            self._descriptor = None if self._before is None else self._descriptor
        return read.decode("utf-8", "ignore")
