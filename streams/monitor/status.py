"""The names of lag verdicts with Burrow's codes: they are used in metrics, URLs and alerts."""

from collections.abc import Iterable
from enum import IntEnum


class Status(IntEnum):
    """Verdict on a partition or on a whole group. A group is OK, WARN, ERR or NOTFOUND."""

    NOTFOUND = 0
    """No such group, or a group that has committed nothing and whose members have no partition."""
    OK = 1
    WARN = 2
    """The group lags, and is not catching up."""
    ERR = 3
    """Partition: records are lost to the group. Group: a partition of it is worse than WARN."""
    STOP = 4
    """The partition has no consumer."""
    STALL = 5
    """The partition has a consumer, which makes no progress."""
    REWIND = 6
    """The position went back, and has not caught up with where it was."""


def group_status(partitions: Iterable[Status]) -> Status:
    """Verdict on a group: that of its worst partition; everything worse than WARN becomes ERR (Burrow's rule)."""
    found = max(partitions, default=Status.NOTFOUND)
    return min(found, Status.ERR)
