"""Limits for judging a group's lag, in seconds. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of the verdict, in seconds."""

    tiny_s: float = 10.0
    """Lag below this is on time."""
    nobody_s: float = 15.0
    """A partition without an owner whose lag is above this has stopped (STOP). A restarted worker is back before."""
    still_s: float = 45.0
    """A position that has not moved for this long, with lag, has stopped; longer for a consumer that commits more
    rarely.
    """
    rhythm_factor: float = 3.0
    """A consumer that commits every n seconds has stopped after this many times n, or after n + `seldom_s` if that is
    less.
    """
    seldom_s: float = 1_000.0
    """Time for a member whose rhythm is not known yet: one that commits every 15 minutes is healthy."""
    late_factor: float = 1.5
    """A consumer that commits every n seconds is late after this many times n."""
    commits_s: float | None = None
    """How often the group commits, where declared; None: learned."""
    batch_s: float | None = None
    """Expected lag of a group that runs in batches; None: it runs all the time."""
    flaps_max: int = 3
    """A partition that has lost its member this often within `flaps_s` belongs to a group that does not stay up."""
    flaps_s: float = 900.0
    growth_s: float = 20.0
    """Growth is not judged from a shorter window."""
    open_s: float = 60.0
    """A transaction that is open for less than this is no problem: `transaction.timeout.ms` of a client that sets none.

    The alert OpenTransaction starts at the same time.
    """
    falling_share: float = 0.05
    """Lag that fell by less than this share from the first third of the window to the last has not fallen."""

    def __post_init__(self) -> None:
        if not 0 < self.tiny_s <= self.nobody_s <= self.still_s <= self.seldom_s:
            raise ValueError("tiny_s, nobody_s, still_s and seldom_s are above 0, each no shorter than the one before")
