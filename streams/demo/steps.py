"""Prints the steps of the demo's start: a line that changes in a terminal, one line a step elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console


class Steps:
    """Receives the steps of the start (`streams.local.progress.Progress`), within a `with` block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("looking for the local stack") if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def step(self, text: str) -> None:
        """Print that a new step begins."""
        if self._status is not None:
            self._status.update(text)
        else:
            self.note(text)

    def detail(self, text: str) -> None:
        """Print the progress of the step, where it can be overwritten."""
        if self._status is not None:
            self._status.update(text)

    def note(self, text: str) -> None:
        """Print something that should stay on the screen."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
