"""What becomes of the records of one partition: rejected, dropped, late, or released in order. One at a time.

No state but dictionaries, a set and a heap. What is done with the verdicts is up to the class that inherits from it.
"""

import heapq
import math
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from streams.reconcile.model.events import Identity, Judged, Late, OrderKey, Reject, classify_undecodable, is_time
from streams.reconcile.model.events import judged_by as _judged_by

E = TypeVar("E", bound=Judged)

LATE: Final = "late"
BEYOND_HORIZON: Final = "beyond_horizon"
QUARANTINED: Final = "device_quarantined"
MINUTE_MS: Final = 60_000
_SEEN_GROWTH: Final = 65_536
"""Expired ids are dropped each time so many have been added."""


@dataclass(slots=True)
class PartitionJudge(Generic[E]):
    """Feed it the records of a source partition in the order of its log.

    Events of different keys are released by event time; only the order within one key is defined.
    """

    lateness_ms: int
    horizon_ms: int
    skew_ms_max: int
    record_bytes_max: int
    quarantine_rejects: int = field(default=0, kw_only=True)
    """Rejects of a key within a minute, by their timestamps, beyond which it is quarantined; 0: never."""
    quarantine_cooldown_ms: int = field(default=60_000, kw_only=True)
    now_ms: int | None = field(default=None, kw_only=True)
    """The time at which the worker has read the records, which stands in for timestamps that are no time; None: all
    timestamps are a time."""
    watermark: float = field(default=-math.inf, kw_only=True)
    """Event time up to which events are due, milliseconds; minus infinity before the first valid record."""
    _seen: set[Identity] = field(default_factory=set, init=False)
    _seen_max: int = field(default=_SEEN_GROWTH, init=False)
    _held: list[tuple[OrderKey, E]] = field(default_factory=list, init=False)
    _last_due: dict[str, OrderKey] = field(default_factory=dict, init=False)
    _rejects_at: dict[bytes, list[int]] = field(default_factory=dict, init=False)
    _quarantined_at: dict[bytes, int] = field(default_factory=dict, init=False)

    # --- what is done with the verdicts ---

    def why_rejected(self, event: E) -> str | None:
        """Reason for which a record that decodes is rejected all the same; None: it is valid."""
        raise NotImplementedError

    def became_clean(self, event: E, watermark_before: float) -> None:
        """An event is released; the watermark stood at `watermark_before` just before it became due."""

    def became_late(self, late: Late) -> None:
        """An event comes after a later one of its key was released, or beyond the horizon."""

    def was_dropped(self, event: E) -> None:
        """An event is a copy of one that was seen."""

    def was_rejected(self, reject: Reject) -> None:
        """A record is a dead letter."""

    def was_refused(self, event: E) -> bool:  # noqa: ARG002 - for who knows of some
        """Whether an output has refused the event, which is known by its dead letter only."""
        return False

    def watermark_shown_by(self, event: E) -> float | None:  # noqa: ARG002 - as above
        """Where the watermark must have stood at an event, by what was written of it; None: nothing shows it.

        Records alone do not say how far a partition without records was moved on by the clock.
        """
        return None

    # --- the rules ---

    def feed(self, record: "E | Reject", *, is_replayed: bool = False, is_wanted: bool = True) -> None:
        """Judge the next record of the log; a `Reject` is one that did not decode.

        A replayed dead letter that is rejected again does not count against its key. One that is not wanted moves
        the watermark, and counts against its key, as any other; nobody hears what becomes of it.
        """
        key, timestamp_ms = record.key, record.timestamp_ms
        if key is None or not self.quarantine_rejects:
            self._take(record, is_wanted=is_wanted)
            return
        timed = is_time(timestamp_ms, now_ms=self.now_ms, skew_ms_max=self.skew_ms_max)
        if timed and self._keeps_out(key, timestamp_ms):
            self._reject(record, QUARANTINED, is_wanted=is_wanted)
            return
        is_reject = self._take(record, is_wanted=is_wanted)
        if not (is_reject and (is_replayed or not timed)):
            self._learn(key, timestamp_ms, was_rejected=is_reject)

    def idle(self, watermark: float) -> None:
        """Move the watermark to `watermark` unless it is there already, and release what is due by it."""
        if watermark <= self.watermark:
            return
        before, self.watermark = self.watermark, watermark
        while self._held and self._held[0][0][0] <= watermark:
            self._release(heapq.heappop(self._held)[1], before)

    @property
    def held(self) -> list[E]:
        """Events that the watermark has not reached, in no particular order."""
        return [event for _, event in self._held]

    def _keeps_out(self, key: bytes, timestamp_ms: int) -> bool:
        since = self._quarantined_at.get(key)
        return since is not None and abs(timestamp_ms - since) < self.quarantine_cooldown_ms

    def _learn(self, key: bytes, timestamp_ms: int, *, was_rejected: bool) -> None:
        """Quarantine a key with too many rejects, let one go whose probe is clean."""
        if not was_rejected:
            self._quarantined_at.pop(key, None)
            return
        rejects = self._rejects_at[key] = [*self._rejects_at.get(key, []), timestamp_ms][-self.quarantine_rejects - 1 :]
        recent = [at for at in rejects if abs(at - timestamp_ms) < MINUTE_MS]
        if key in self._quarantined_at or len(recent) > self.quarantine_rejects:
            self._quarantined_at[key] = timestamp_ms
            self._rejects_at[key] = []

    def _take(self, record: "E | Reject", *, is_wanted: bool) -> bool:
        """Judge a record whose key is not kept out; whether it is rejected."""
        if isinstance(record, Reject):
            why = classify_undecodable(record.raw, record.reason, record_bytes_max=self.record_bytes_max)
            self._reject(record, why, is_wanted=is_wanted)
            return True
        reason = self.why_rejected(record)
        if reason is not None:
            self._reject(record, reason, is_wanted=is_wanted)
            return True
        stamp_ms = _judged_by(record.timestamp_ms, now_ms=self.now_ms, skew_ms_max=self.skew_ms_max)
        self.idle(min(record.event_time_ms, stamp_ms) - self.lateness_ms)
        if is_wanted:
            self._judge(record)
        return False

    def _reject(self, record: "E | Reject", reason: str, *, is_wanted: bool) -> None:
        if is_wanted:
            self.was_rejected(Reject(record.offset, record.key, record.raw, reason, record.timestamp_ms))

    def _judge(self, event: E) -> None:
        shown = self.watermark_shown_by(event)
        if shown is not None:
            self.idle(shown)
        oldest_ms = self.watermark - self.horizon_ms
        if event.event_time_ms < oldest_ms:
            if not self.was_refused(event):
                self.became_late(Late(event, BEYOND_HORIZON, int(oldest_ms - event.event_time_ms)))
            return
        if event.identity in self._seen:
            self.was_dropped(event)
            return
        self._remember(event.identity)
        if self.was_refused(event):
            return
        if event.event_time_ms > self.watermark:
            heapq.heappush(self._held, (event.order_key, event))
            return
        last_due = self._last_due.get(event.entity)
        if last_due is None or event.order_key >= last_due:
            self._release(event, self.watermark)
        else:
            self.became_late(Late(event, LATE, last_due[0] - event.event_time_ms))

    def _remember(self, identity: Identity) -> None:
        self._seen.add(identity)
        if len(self._seen) > self._seen_max:  # an event so old is beyond the horizon before anybody asks for its id
            oldest_ms = self.watermark - self.horizon_ms
            self._seen = {known for known in self._seen if known[1] >= oldest_ms}
            self._seen_max = 2 * len(self._seen) + _SEEN_GROWTH

    def _release(self, event: E, watermark_before: float) -> None:
        self._last_due[event.entity] = event.order_key
        self.became_clean(event, watermark_before)
