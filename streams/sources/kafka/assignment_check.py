"""Whether an assignment is of the topic that is there now.

The classic group gives a static member that comes back within its session the partitions that it had, without dividing
them again. If the source was deleted meanwhile and created with fewer partitions, some of these do not exist, and the
group would never notice: a consumer compares the number of partitions with what it knew first, which is the new one.
"""

from collections.abc import Collection
from typing import Final

_CONFIRMED_AFTER_S: Final = 1.0
"""A broker that is asked right after partitions were added may not know them yet."""


class AssignmentCheck:
    """Asks for the number of partitions after each assignment; a second time where that is too small. One thread."""

    def __init__(self) -> None:
        self._ask_at_s: float | None = None
        self._has_doubt = False

    def assigned(self, now_s: float) -> None:
        """The group has given us partitions; `now_s`: monotonic."""
        self._ask_at_s, self._has_doubt = now_s, False

    def is_due(self, now_s: float) -> bool:
        """Whether to ask for the number of partitions now, and tell `is_outdated`."""
        return self._ask_at_s is not None and now_s >= self._ask_at_s

    def is_outdated(self, partitions: Collection[int], found: int | None, now_s: float) -> bool:
        """Whether some of `partitions` do not exist, by two answers (`found`; None: no answer, or no topic)."""
        if found is None or max(partitions, default=-1) < found:
            self._ask_at_s = None
            return False
        is_outdated, self._has_doubt = self._has_doubt, True
        self._ask_at_s = None if is_outdated else now_s + _CONFIRMED_AFTER_S
        return is_outdated
