"""Errors that end a command, each with the exit status it maps to.

Exit statuses are part of the command line's contract: 0 done, 1 failed (the message says what to do), 2 wrong usage,
3 fenced (another worker took over; do not restart blindly), 100 ran and found something.
"""

from typing import ClassVar


class StreamsError(Exception):
    """Something failed; the message is one line that says what to do about it."""

    exit_status: ClassVar[int] = 1


class UsageError(StreamsError):
    """The caller asked for something impossible: wrong flags or environment values."""

    exit_status: ClassVar[int] = 2


class FencedError(StreamsError):
    """Another producer with the same transactional id took over: this process must not write any more."""

    exit_status: ClassVar[int] = 3


class FoundSomething(StreamsError):
    """The command ran and found what it looks for (drift, incompatibility, dead letters, lag)."""

    exit_status: ClassVar[int] = 100
