"""The servers of the local stack: how to start each, and when it is ready."""

from pathlib import Path
from typing import Protocol

from streams.local.processes import ManagedProcess
from streams.local.progress import Progress


class Service(Protocol):
    """One server of the stack, on one port, in one directory."""

    @property
    def title(self) -> str:
        """Its name in messages."""

    @property
    def process(self) -> ManagedProcess:
        """Its background process."""

    @property
    def port(self) -> int:
        """The port its clients connect to."""

    @property
    def address(self) -> str:
        """Address that clients are configured with."""

    def fetch(self, progress: Progress) -> None:
        """Make everything it needs present on this machine."""

    def launch(self, java: Path, progress: Progress) -> None:
        """Start its process, without waiting until it is ready."""

    def settle(self) -> None:
        """Do what it needs before its first use, once it answers."""

    def answers(self) -> bool:
        """Tell whether it serves a real request now."""
