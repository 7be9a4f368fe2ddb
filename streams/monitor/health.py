"""State of the monitor itself: what `/healthz` and `/readyz` answer. Pure."""

from dataclasses import dataclass
from typing import Final

STALE_INTERVALS: Final = 6
"""Without a round for so many intervals the monitor is not ready: what it shows is old."""
STUCK_S: Final = 120.0
"""All limits of time in a round come to less, whoever does not answer: one that takes longer does not end any more."""


@dataclass(frozen=True, slots=True)
class Health:
    """The monitor at one moment. Counts are since it was started."""

    interval_s: float
    rounds: int
    failures: int
    deaths: int
    """Of the process that reads offsets."""
    round_s: float
    """How long the newest round took."""
    failure: str | None
    """Why there is no newer round; None: there is none missing."""
    age_s: float | None
    """How old the offsets are; None: there has been no round yet."""
    is_alive: bool
    """Whether the thread that takes rounds runs."""
    quiet_s: float
    """Since the newest round ended, well or not, or since the first one began."""
    doing: str
    """What the round that is under way is at."""

    @property
    def dead(self) -> str | None:
        """Why only a new start of the monitor helps; None: it does not need one."""
        if not self.is_alive:
            return f"no rounds are taken any more: {self.failure or 'their thread has ended'}"
        if self.quiet_s > self.interval_s + STUCK_S:
            return f"a round has not ended for {self.quiet_s:.0f} s: it is at {self.doing}"
        return None

    @property
    def blind(self) -> str | None:
        """Why what the monitor shows is old, or nothing; None: it is not."""
        if dead := self.dead:
            return dead
        if self.age_s is None:
            return self.failure or "the first round is not done yet"
        if self.age_s > STALE_INTERVALS * self.interval_s:
            return f"offsets are {self.age_s:.0f} s old: {self.failure or f'a round is at {self.doing}'}"
        return None
