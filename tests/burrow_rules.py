"""Burrow's published rules, to compare ours with: its wiki page "Consumer Lag Evaluation Rules", as of version 1.3.

A window holds the last ten commits of a partition with the lag each had when it was committed, against the end of the
log (open transactions and markers included: Burrow asks for the high watermark).

1. If the lag is zero at any point of the window, or now, the partition is OK.
2. If the offset goes down from one commit to the next, it is a rewind.
3. If the time since the last commit is longer than that between the first and the last, it has stopped.
4. If the offset does not change while there is lag, it has stalled.
5. If the offset changes and the lag never goes down from one commit to the next, it is a warning.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from streams.monitor.status import Status

COMMITS: Final = 10


@dataclass(frozen=True, slots=True)
class Commit:
    time_s: float
    offset: int
    lag: int


def burrow(commits: Sequence[Commit], *, lag_now: int, now_s: float) -> Status:
    """Burrow's verdict on a partition."""
    window = commits[-COMMITS:]
    if not window:
        return Status.NOTFOUND
    steps = list(itertools.pairwise(window))
    if lag_now <= 0 or any(commit.lag <= 0 for commit in window):
        return Status.OK
    if any(after.offset < before.offset for before, after in steps):
        return Status.REWIND
    if now_s - window[-1].time_s > window[-1].time_s - window[0].time_s:
        return Status.STOP
    if all(after.offset == before.offset for before, after in steps):
        return Status.STALL
    if not any(after.lag < before.lag for before, after in steps):
        return Status.WARN
    return Status.OK
