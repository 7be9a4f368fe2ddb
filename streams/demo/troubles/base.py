"""What all troubles have in common."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Protocol

from streams.demo.audit import Audit, Findings
from streams.demo.parts import Demo
from streams.demo.snapshot import Snapshot
from streams.text import counted

WAIT_S_MAX: Final = 90.0
"""How long an audit waits for the outputs after its end, before it says what is missing."""


class Trouble(Protocol):
    """Something that goes wrong on purpose."""

    def explain(self) -> str:
        """What was done, and where to see the effect."""

    def look(self, shot: Snapshot) -> str | None:
        """The counts, once they are known."""

    def close(self) -> None:
        """Release resources; may be called before its end."""


class Audited:
    """An audit that ends when the trouble is over, and is complete some seconds later."""

    def __init__(self, demo: Demo, is_asked: Callable[[bytes], bool]) -> None:
        """Begin now.

        Raises:
            StreamsError: the topics cannot be read.

        """
        self._held = ExitStack()
        self._audit = self._held.enter_context(demo.audit(is_asked))
        self._ended_s: float | None = None

    def look(self, now_s: float, *, is_over: bool) -> Findings | None:
        """What was found, once everything that came before the end of the trouble is in an output, or is missing.

        Raises:
            StreamsError: the topics cannot be read.

        """
        self._audit.take_in()
        if self._ended_s is None:
            if is_over:
                self._audit.end()
                self._ended_s = now_s
            return None
        if self._audit.is_complete or now_s - self._ended_s > WAIT_S_MAX:
            return self._audit.findings()
        return None

    def close(self) -> None:
        """Close the audit's connections."""
        self._held.close()


def verdict(found: Findings) -> str:
    """One sentence on all events of that time."""
    lost = f"{found.missing:,} are in no output yet" if found.missing else "0 lost"
    return f"Of {counted(found.events, 'different event')} that came meanwhile: {lost}, {found.doubled:,} doubled."


__all__ = ["Audit", "Audited", "Trouble", "verdict"]
