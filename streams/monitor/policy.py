"""Limits by which a group's lag is judged, in seconds. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of the verdict, in seconds."""

    tiny_s: float = 10.0
    """Lag below this is on time."""
    nobody_s: float = 15.0
    """Lag above this in a partition that nobody owns: STOP. A worker that is restarted is back before."""
    still_s: float = 45.0
    """A position that has not moved for so long, with lag, has stopped; longer for who commits more seldom."""
    rhythm_factor: float = 3.0
    """A consumer that commits every n seconds has stopped after this many n, or after n and `seldom_s` if less."""
    seldom_s: float = 1_000.0
    """A member that has not been seen to move often enough for its rhythm to be known is given so long: one that
    commits every 15 minutes is healthy."""
    late_factor: float = 1.5
    """A consumer that commits every n seconds is late after this many n."""
    commits_s: float | None = None
    """How often the group commits, where it is declared; None: that is learned."""
    batch_s: float | None = None
    """The group runs now and then, and so much lag is expected of it; None: it runs always."""
    flaps_max: int = 3
    """A partition that has lost its member so often within `flaps_s` is that of a group that cannot stay up."""
    flaps_s: float = 900.0
    growth_s: float = 20.0
    """Growth is not judged from a shorter window."""
    open_s: float = 60.0
    """A transaction that is open for less than this is no trouble: `transaction.timeout.ms` of a client that sets none.
    The alert OpenTransaction begins here, too."""
    falling_share: float = 0.05
    """Lag that fell by less than this share from the first third of the window to the last has not fallen."""

    def __post_init__(self) -> None:
        if not 0 < self.tiny_s <= self.nobody_s <= self.still_s <= self.seldom_s:
            raise ValueError("tiny_s, nobody_s, still_s and seldom_s are above 0, each no shorter than the one before")
