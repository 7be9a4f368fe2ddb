"""Reasons of a lag verdict, and the status that each stands for. Pure."""

from enum import IntEnum, unique
from typing import Final

from streams.monitor.status import Status


@unique
class Reason(IntEnum):
    """Why a status was given. `streams.monitor.words` turns it into a sentence."""

    DRAINED = 0
    ON_TIME = 1
    CATCHING_UP = 2
    GROWING = 3
    NOT_FALLING = 4
    TOO_SOON = 5
    NOBODY_READS = 6
    COMMITS_CEASED = 7
    NO_PROGRESS = 8
    SAME_COMMITS = 9
    WENT_BACK = 10
    DELETED_UNREAD = 11
    BEHIND_END = 12
    NOTHING_COMMITTED = 13
    OPEN_TRANSACTION = 14
    LEFT_TOPIC = 15
    NOT_IN_LAYOUT = 16
    OFFSET_NOT_OF_STATE = 17
    BETWEEN_COMMITS = 18
    BETWEEN_RUNS = 19
    OVERDUE = 20
    FLAPPING = 21
    KEPT_VERSION = 22


STATUS_OF: Final[dict[Reason, Status]] = {
    Reason.DRAINED: Status.OK,
    Reason.ON_TIME: Status.OK,
    Reason.CATCHING_UP: Status.OK,
    Reason.GROWING: Status.WARN,
    Reason.NOT_FALLING: Status.WARN,
    Reason.TOO_SOON: Status.WARN,
    Reason.NOBODY_READS: Status.STOP,
    Reason.COMMITS_CEASED: Status.STOP,
    Reason.NO_PROGRESS: Status.STALL,
    Reason.SAME_COMMITS: Status.STALL,
    Reason.WENT_BACK: Status.REWIND,
    Reason.DELETED_UNREAD: Status.ERR,
    Reason.BEHIND_END: Status.ERR,
    Reason.NOTHING_COMMITTED: Status.OK,
    Reason.OPEN_TRANSACTION: Status.WARN,
    Reason.LEFT_TOPIC: Status.OK,
    Reason.NOT_IN_LAYOUT: Status.STALL,
    Reason.OFFSET_NOT_OF_STATE: Status.STALL,
    Reason.BETWEEN_COMMITS: Status.OK,
    Reason.BETWEEN_RUNS: Status.OK,
    Reason.OVERDUE: Status.WARN,
    Reason.FLAPPING: Status.WARN,
    Reason.KEPT_VERSION: Status.OK,
}
NOT_COUNTED: Final = (Reason.LEFT_TOPIC, Reason.KEPT_VERSION)
"""What is after such a position is nobody's to read: it is shown for the partition and not counted for the group."""
