"""Progress of slow steps, reported to the caller, who decides how to show it."""

from typing import Protocol


class Progress(Protocol):
    """Receives what the stack is doing."""

    def step(self, text: str) -> None:
        """Tell that a new step begins: worth a line of its own in a log."""

    def detail(self, text: str) -> None:
        """Tell how far the step is: worth showing only where it can be overwritten."""


class Silent:
    """Progress for programs: nothing is shown."""

    def step(self, text: str) -> None:
        """Ignore the step."""

    def detail(self, text: str) -> None:
        """Ignore the progress."""
