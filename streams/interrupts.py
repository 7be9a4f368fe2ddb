"""Raises `KeyboardInterrupt` for Ctrl-C, SIGTERM and a closed terminal, except where that would do harm."""

import math
import signal
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Final, Self

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ALWAYS: Final = math.inf


class Interrupts:
    """Turns signals into a `KeyboardInterrupt` in the main thread: `raised_max` times, further ones are ignored.

    Once is for what starts other processes: stopping them runs to its end, every wait in it is bounded. `ALWAYS` is for
    what may be left at any point. Signals that arrive inside `held` count when it ends, so that no process is born
    without being known to those who stop it. A signal that the process was told to ignore (`nohup`, a job in the
    background) stays ignored.
    """

    def __init__(self, signals: Sequence[signal.Signals] = SIGNALS, *, raised_max: float = 1) -> None:
        self._signals = signals
        self._raised_max = raised_max
        self._before: dict[signal.Signals, Any] = {}
        self._held = 0
        self._raised = 0
        self.requested = False
        """Whether a signal has come; a callback of C code may have swallowed the exception."""

    def __enter__(self) -> Self:
        taken = [how for how in self._signals if signal.getsignal(how) is not signal.SIG_IGN]
        self._before = {how: signal.signal(how, self._handle) for how in taken}
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for how, handler in self._before.items():
            if signal.getsignal(how) == self._handle:
                signal.signal(how, signal.SIG_DFL if handler is None else handler)

    def check(self) -> None:
        """Stop here if a signal has come, even if the exception it raised was swallowed (as callbacks of C code do).

        Raises:
            KeyboardInterrupt: one has.

        """
        if self.requested:
            self._raised += 1
            raise KeyboardInterrupt

    def ignore(self) -> None:
        """Ignore interrupts from now on: what was started is being stopped."""
        self._raised_max = 0

    @contextmanager
    def held(self) -> Generator[None]:
        """Hold signals back until the end of the block."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        self.check()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            # Whoever holds interrupts back for a moment, such as the local stack, knows the other two.
            signal.raise_signal(signal.SIGTERM)
            return
        self.requested = True
        if not self._held and self._raised < self._raised_max:
            self._raised += 1
            raise KeyboardInterrupt
