"""State of the monitor itself: what `/healthz` and `/readyz` answer. Pure."""

from dataclasses import dataclass
from typing import Final

STALE_INTERVALS: Final = 6
"""After so many intervals without a round the monitor is not ready: what it shows is old."""
STUCK_S: Final = 120.0
"""All time limits in a round add up to less than this: a round that takes longer has hung."""


@dataclass(frozen=True, slots=True)
class Health:
    """The monitor at one moment. Counts are since it was started."""

    interval_s: float
    rounds: int
    failures: int
    deaths: int
    """How often the process that reads offsets has died."""
    round_s: float
    """How long the newest round took."""
    failure: str | None
    """Why there is no newer round; None: the newest round is current."""
    age_s: float | None
    """Age of the offsets; None: there has been no round yet."""
    is_alive: bool
    """Whether the thread that runs rounds is alive."""
    quiet_s: float
    """Seconds since the newest round ended, successfully or not, or since the first one began."""
    doing: str
    """What the running round is doing."""

    @property
    def dead(self) -> str | None:
        """Why only a restart of the monitor helps; None: it needs none."""
        if not self.is_alive:
            return f"no more rounds are run: {self.failure or 'their thread has ended'}"
        if self.quiet_s > self.interval_s + STUCK_S:
            return f"a round has not ended for {self.quiet_s:.0f} s: it is at {self.doing}"
        return None

    @property
    def blind(self) -> str | None:
        """Why what the monitor shows is old or empty; None: it is current."""
        if dead := self.dead:
            return dead
        if self.age_s is None:
            return self.failure or "the first round is not done yet"
        if self.age_s > STALE_INTERVALS * self.interval_s:
            return f"offsets are {self.age_s:.0f} s old: {self.failure or f'a round is at {self.doing}'}"
        return None
