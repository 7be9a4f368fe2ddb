"""Whether the group has taken this member in, and given it partitions; when one that it refuses asks again."""

import time
from typing import Final

import structlog
from confluent_kafka import KafkaError

from streams.clock import monotonic_ms
from streams.limits import SPARE_AFTER_MS, UNRELEASED_WAIT_MS_MAX
from streams.resilience.retry import Backoff
from streams.sources.kafka.membership import cause_of

log = structlog.get_logger(__name__)

_FENCES_MAX: Final = 10
"""Limit within two minutes: each restart of a broker may cause one, by a late join of our own."""
_REFUSED: Final = Backoff(first_s=1.0, pause_s_max=5.0)


class Joining:
    """State of joining the group. Used by the consumer's thread; any thread may read `is_spare`."""

    def __init__(self, *, is_told_of_nothing: bool) -> None:
        """`is_told_of_nothing`: whether the client says so when we are taken in and given no partition."""
        self._is_told_of_nothing = is_told_of_nothing
        self._without_since_ms: int | None = None
        """Since when the group, of which we are a member, gives us no partition; monotonic. None: not so."""
        self._refused = 0
        """How often in a row the group has refused this worker because of its own earlier session."""
        self._refused_since_s = self._join_after_s = 0.0
        self._fenced_at_s: list[float] = []

    def is_spare(self, now_ms: int) -> bool:
        """Whether this is a member of the group to which no partition was left, for longer than a rebalance takes.

        `now_ms`: monotonic.
        """
        since_ms = self._without_since_ms
        return since_ms is not None and now_ms - since_ms >= SPARE_AFTER_MS

    def begin(self) -> None:
        """We ask the group to take us in."""
        self._without_since_ms = None if self._is_told_of_nothing else monotonic_ms()

    def taken_in(self, *, has_partitions: bool) -> None:
        """We are a member, with partitions or without."""
        self._without_since_ms = None if has_partitions else monotonic_ms()

    def doubted(self) -> None:
        """An error occurred: a member without partitions may have none because of it."""
        if self._without_since_ms is not None:  # as when the group may not be read: that is no spare
            self._without_since_ms = monotonic_ms()

    def source_is_gone(self) -> None:
        """The source does not exist: a member without partitions is no spare."""
        self._without_since_ms = None

    # --- refused by the group ---------------------------------------------------------------------------------------

    @property
    def is_refused(self) -> bool:
        """Whether the group has refused us, and given us nothing since."""
        return self._refused > 0

    def answered(self) -> None:
        """Note that the group has assigned something."""
        self._refused = 0

    def refused(self, error: KafkaError) -> bool:
        """Record that the group refuses us; False if that has lasted too long.

        Usually a stale session of this instance: one that was killed and has not expired yet (UNRELEASED_INSTANCE_ID),
        or an earlier join of ours that a broker which stood still carries out after a newer one (FENCED_INSTANCE_ID). A
        second running instance takes our transactional id as well, and is refused again and again. GROUP_ID_NOT_FOUND:
        the group was deleted, or members of the other protocol are still in it, such as workers that were stopped to
        change over.
        """
        now = time.monotonic()
        if cause_of(error) == KafkaError.FENCED_INSTANCE_ID:
            recent = [at for at in self._fenced_at_s if (now - at) * 1000 < UNRELEASED_WAIT_MS_MAX]
            self._fenced_at_s = [*recent, now]
            if len(self._fenced_at_s) > _FENCES_MAX:
                return False
        elif not self._refused:
            self._refused_since_s = now
        elif (now - self._refused_since_s) * 1000 > UNRELEASED_WAIT_MS_MAX:
            return False
        self._refused += 1
        self._without_since_ms = None
        pause_s = _REFUSED.jittered_s(self._refused)
        self._join_after_s = now + pause_s
        log.warning(
            "the group does not take this worker yet (its name is taken, as by itself before it was killed, or members "
            "of the other protocol are in it); joining again",
            error=error.str(), failures=self._refused, retry_in_s=round(pause_s, 1),
        )  # fmt: skip
        return True

    def pause_left_s(self) -> float | None:
        """How long to wait before joining with a new consumer; None: that was done."""
        return max(0.0, self._join_after_s - time.monotonic()) if self._join_after_s else None

    def joins_again(self) -> None:
        """Note that a new consumer is being created."""
        self._join_after_s = 0.0
