"""The words for a lag verdict, with the codes that Burrow gave them: they are in metrics, URLs and alerts."""

from collections.abc import Iterable
from enum import IntEnum


class Status(IntEnum):
    """Verdict on a partition or on a whole group. A group is OK, WARN, ERR or NOTFOUND."""

    NOTFOUND = 0
    """No such group, or it has neither committed anything nor a member with a partition."""
    OK = 1
    WARN = 2
    """Behind, and not catching up."""
    ERR = 3
    """A partition: records are lost to the group. A group: a partition of it is worse than WARN."""
    STOP = 4
    """Nobody works on the partition."""
    STALL = 5
    """Somebody does, and does not get on."""
    REWIND = 6
    """Went back, and has not caught up with where it was."""


def group_status(partitions: Iterable[Status]) -> Status:
    """Verdict on a group: that of its worst partition, with everything worse than WARN told as ERR (Burrow's rule)."""
    found = max(partitions, default=Status.NOTFOUND)
    return min(found, Status.ERR)
