"""Ctrl-C, SIGTERM and a closed terminal, all as one `KeyboardInterrupt`, at moments when it does no harm."""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Final, Self

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Turns the first signal into one `KeyboardInterrupt` in the main thread; further ones are ignored.

    Stopping therefore always runs to its end; every wait in it is bounded. Signals that arrive inside `held` count when
    it ends, so that no process is born without being known to those who stop it.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._held = 0
        self._raised = False
        self.requested = False

    def __enter__(self) -> Self:
        self._before = {how: signal.signal(how, self._handle) for how in SIGNALS}
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for how, handler in self._before.items():
            signal.signal(how, signal.SIG_DFL if handler is None else handler)

    def check(self) -> None:
        """Stop here if a signal has come, even if the exception it raised was swallowed (as callbacks of C code do).

        Raises:
            KeyboardInterrupt: one has.

        """
        if self.requested:
            self._raised = True
            raise KeyboardInterrupt

    def ignore(self) -> None:
        """From now on nothing interrupts: what was started is being stopped."""
        self._raised = True

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
        if not self._held and not self._raised:
            self._raised = True
            raise KeyboardInterrupt
