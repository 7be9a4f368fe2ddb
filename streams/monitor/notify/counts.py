"""How many messages went to a target."""

from dataclasses import dataclass


@dataclass(slots=True)
class Count:
    """Messages to one target, since the monitor was started."""

    sent: int = 0
    failed: int = 0
    is_down: bool = False
    """Whether the target has not accepted the last message."""
