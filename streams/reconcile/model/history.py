"""What must become of the records of one partition up to a point, by key; with what the topics show of the clock.

Records alone do not say how far a partition without records was moved on by the clock (idle time). The journal does,
for as long as it is kept; before that, the header of a late event does.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from streams.reconcile.model.events import Event, Fields, Identity, Late, Reject, judged_by
from streams.reconcile.model.judge import BEYOND_HORIZON, LATE, PartitionJudge

REFUSED: Final = "refused_by_output"
UNKNOWN_SCHEMA: Final = "unknown_schema"


class Cycle(NamedTuple):
    """Where a commit cycle ended, by the journal: the offset to read next, and the watermark there."""

    number: int
    offset_next: int
    watermark: int


class SeenLate(NamedTuple):
    """What the late topic says of an event."""

    reason: str
    by_ms: int


@dataclass(frozen=True, slots=True)
class Rules:
    """The bounds in force that decide results, and the fields that the flow reads."""

    fields: Fields
    lateness_ms: int
    horizon_ms: int
    skew_ms_max: int
    record_bytes_max: int
    idle_ms: int
    quarantine_rejects: int
    quarantine_cooldown_ms: int


@dataclass(frozen=True, slots=True)
class Shown:
    """What the outputs show that records do not."""

    late: Mapping[Identity, Sequence[SeenLate]] = field(default_factory=dict)
    letters: Mapping[int, str] = field(default_factory=dict)
    """Reason of the dead letter of a record, by its offset."""
    cycles: Sequence[Cycle] = ()
    """Commit cycles of the partition, in order."""


class Due(NamedTuple):
    """An event that is clean."""

    event: Event
    is_due: bool
    """It must be there by the point; otherwise it may."""
    watermark_before: float
    """Where the watermark stood just before it became due."""


class DueLate(NamedTuple):
    """An event that is late."""

    late: Late
    is_due: bool


@dataclass(slots=True)
class KeyHistory:
    """What must become of the events of one key."""

    clean: list[Due] = field(default_factory=list)
    """Events that are clean, in order."""
    late: list[DueLate] = field(default_factory=list)
    duplicates: int = 0


class History(PartitionJudge[Event]):
    """Feed it the records of a partition with `take`; call `reach` where the group stood at first, `end` at last."""

    def __init__(self, rules: Rules, shown: Shown, now_ms: int) -> None:
        super().__init__(
            rules.lateness_ms,
            rules.horizon_ms,
            rules.skew_ms_max,
            rules.record_bytes_max,
            quarantine_rejects=rules.quarantine_rejects,
            quarantine_cooldown_ms=rules.quarantine_cooldown_ms,
            now_ms=now_ms,
        )
        self._rules, self._shown = rules, shown
        self._cycle_at = 0
        self._newest_ms: float = -math.inf
        self._paused_at = -1
        self._is_due = True
        self.keys: defaultdict[bytes, KeyHistory] = defaultdict(KeyHistory)
        self.rejects: dict[int, Reject] = {}
        """Rejected records, by their offset in the source."""
        self.records = 0
        self.refused = 0
        """Events that an output has refused, by their dead letters."""
        self.unknown_then = 0
        """Dead letters of a schema that the registry knows by now."""
        self.by_clock = 0
        """Late events that are late because the partition was moved on by the clock."""
        self.unproven: list[Event] = []
        """Those of them of which the timestamps of the log show no pause."""
        self.reached_watermark: float = -math.inf
        """Where the watermark stood at the point."""

    def take(self, record: Event | Reject, *, is_replayed: bool = False, is_wanted: bool = True) -> None:
        """Judge the next record."""
        self._clock(record.offset, math.inf)
        if record.timestamp_ms - self._newest_ms >= self._rules.idle_ms:
            self._paused_at = record.offset
        self._newest_ms = max(self._newest_ms, record.timestamp_ms)
        self.records += is_wanted
        if not isinstance(record, Reject) and self._shown.letters.get(record.offset) == UNKNOWN_SCHEMA:
            self.unknown_then += is_wanted
            record = Reject(record.offset, record.key, record.raw, UNKNOWN_SCHEMA, record.timestamp_ms)
        self.feed(record, is_replayed=is_replayed, is_wanted=is_wanted)

    def reach(self, offset: int, cycle: int | None) -> None:
        """All records that the group had processed at the point are taken; what comes now may be there, or not."""
        self._clock(offset, -1 if cycle is None else cycle)
        self._is_due = False
        self.reached_watermark = self.watermark

    def end(self) -> None:
        """All records are taken that may have had an effect. What is held may have been released by the clock."""
        self._clock(math.inf, math.inf)
        self.idle(math.inf)

    def _clock(self, offset: float, cycle: float) -> None:
        """Move on as the journal says that cycles up to `cycle` did before the record at `offset`."""
        cycles = self._shown.cycles
        while self._cycle_at < len(cycles):
            each = cycles[self._cycle_at]
            if each.offset_next > offset or each.number > cycle:
                return
            self._cycle_at += 1
            self.idle(each.watermark)

    def why_rejected(self, event: Event) -> str | None:
        """Reason for which a record that decodes is rejected all the same."""
        rules = self._rules
        if len(event.raw) > rules.record_bytes_max:
            return "too_large"
        if rules.fields.is_invalid(event):
            return "invalid"
        if event.key is None or event.key != event.entity.encode():
            return "key_mismatch"
        stamp_ms = judged_by(event.timestamp_ms, now_ms=self.now_ms, skew_ms_max=rules.skew_ms_max)
        return "future_timestamp" if event.event_time_ms > stamp_ms + rules.skew_ms_max else None

    def became_clean(self, event: Event, watermark_before: float) -> None:
        """Keep the event as clean."""
        self.keys[event.entity.encode()].clean.append(Due(event, self._is_due, watermark_before))

    def became_late(self, late: Late) -> None:
        """Keep the event as late."""
        self.keys[late.event.entity.encode()].late.append(DueLate(late, self._is_due))

    def was_dropped(self, event: Event) -> None:
        """Count the dropped event."""
        self.keys[event.entity.encode()].duplicates += 1

    def was_rejected(self, reject: Reject) -> None:
        """Keep the rejected record."""
        self.rejects[reject.offset] = reject

    def was_refused(self, event: Event) -> bool:
        """By its dead letter: what an output refuses is not known to the log."""
        is_refused = self._shown.letters.get(event.offset) == REFUSED
        self.refused += is_refused
        return is_refused

    def watermark_shown_by(self, event: Event) -> float | None:
        """By the headers of a late event, where they agree with what is held."""
        for seen in self._shown.late.get(event.identity, ()):
            found = self._shown_by(event, seen)
            if found is not None:
                self.by_clock += 1
                if self._paused_at < found.since:
                    self.unproven.append(event)
                return found.watermark
        return None

    def _shown_by(self, event: Event, seen: SeenLate) -> "_Moved | None":
        at_ms = event.event_time_ms + seen.by_ms
        if seen.reason == BEYOND_HORIZON and at_ms + self.horizon_ms > self.watermark:
            return _Moved(at_ms + self.horizon_ms, 0)
        if seen.reason != LATE or event.identity in self._seen:
            return None
        since = [held.offset for held in self.held if held.event_time_ms == at_ms and held.entity == event.entity]
        return _Moved(at_ms, min(since)) if since else None


class _Moved(NamedTuple):
    """Where the clock has moved the watermark to, and the offset of the record after which that was."""

    watermark: float
    since: int


def events_of(due: Iterable[Due]) -> list[Event]:
    """The events, in order."""
    return [each.event for each in due]
