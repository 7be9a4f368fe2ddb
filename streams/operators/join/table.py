"""Join each event of a stream with the row that a table has of its key.

The rows come as events of the second merged input, the newest one of each key last (`flow.merging.table`). One whose
value is empty says that the row was deleted. The newest row of each key is kept (`newest.NewestRows`), and of those
before it each for as long as an event may still be joined as of a time when it was the newest (`kept.KeptRows`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

import numpy as np

from streams.batch.columns import TIME_MIN, Bools, Int64
from streams.batch.events import Events
from streams.batch.refs import byte_objects, byte_sizes
from streams.batch.rows import Rows, empty_rows
from streams.operators.base import OperatorContext, Replayed, RestoreBudget
from streams.operators.changes import Changes
from streams.operators.join.bucketed import NUMBER, TIME
from streams.operators.join.kept import KeptRows
from streams.operators.join.newest import NewestRows
from streams.operators.join.operator import JoinOperator
from streams.operators.join.side import LEFT, MATCHED, RIGHT, UNMATCHED, JoinSpec, left_rows, set_fields
from streams.operators.keyed import ChangedKeys
from streams.operators.merge.section import INPUT
from streams.operators.output import Output
from streams.operators.reorder.section import unpack_keys
from streams.operators.trace import NEVER, WatermarkTrace
from streams.state.store import WriteBatch

_SINCE: Final = "since"
"""Column of rows: from when on it is the newest, as far back as anybody may ask."""
_OWN_TIME: Final = "own_time"
"""Column of rows: the time that it has itself."""
_DELETED: Final = "deleted"
_EXPIRE_EVERY_MS: Final = 3_600_000
"""Interval of event time after which the store is looked through for rows that are void."""


class AsOf(StrEnum):
    """Which row of its key an event is joined with."""

    EVENT_TIME = "event_time"
    """The newest one that is not later than the event."""
    ARRIVAL = "arrival"
    """The newest one that was passed before the event."""


@dataclass(frozen=True, kw_only=True)
class JoinTable(JoinSpec):
    """Declaration: a row of `topic` for each event of `left` with the row that the table `right` has of its key.

    As of event time an event that is passed when the watermark is beyond it is joined as of its time if that is at most
    `history_ms` ago, else as of so long ago. A row that is older than `ttl_ms` then is none; 0: it is one at any age.
    """

    as_of: AsOf = AsOf.EVENT_TIME
    history_ms: int = 0
    ttl_ms: int = 0

    def build(self, context: OperatorContext) -> "JoinTableOperator":
        """Create the operator of one partition, without rows."""
        return JoinTableOperator(self, context)

    @cached_property
    def newest_dtype(self) -> np.dtype[Any]:
        """Columns of the newest row of a key."""
        return np.dtype([(_SINCE, "<i8"), (_OWN_TIME, "<i8"), (_DELETED, "u1"), *self.right.columns()])

    @cached_property
    def before_dtype(self) -> np.dtype[Any]:
        """Columns of a row that was the newest of its key until `TIME`."""
        return np.dtype([(NUMBER, "<i8"), (TIME, "<i8"), *self.newest_dtype.descr])

    @property
    def before_part(self) -> str:
        """Name of the part of store and journal that has rows which are not the newest any more."""
        return f"{self.name}.before"

    @property
    def newest_part(self) -> str:
        """Name of the part of store and journal that has the newest rows."""
        return f"{self.name}.newest"

    @property
    def settings(self) -> Mapping[str, Mapping[str, int]]:
        """Which row counts: earlier ones are kept as of event time only."""
        return {self.name: {"as_of_event_time": int(self.as_of is AsOf.EVENT_TIME)}}

    @property
    def bounds(self) -> Mapping[str, int]:
        """How far back rows are asked for, and how old they may be."""
        return {f"{self.name}.history_ms": self.history_ms, f"{self.name}.ttl_ms": self.ttl_ms}

    @property
    def journal_ms(self) -> int:
        """A row that was the newest is asked for as long."""
        return self.history_ms

    @property
    def parts(self) -> Mapping[str, str]:
        """Rows of the table."""
        table = self.right.name
        return {self.newest_part: f"newest rows of {table}", self.before_part: f"rows of {table} before them"}


class JoinTableOperator(JoinOperator[JoinTable]):
    """The join with a table, of one partition."""

    def __init__(self, spec: JoinTable, context: OperatorContext) -> None:
        kept = context.home.kept
        self.before = KeptRows(spec.before_dtype, spec.history_ms, context.space(spec.before_part), context.keys, kept)
        self.newest = NewestRows(empty_rows(spec.newest_dtype, 1), context.space(spec.newest_part), context.keys, kept)
        self._expired_at = TIME_MIN
        super().__init__(spec, context, {spec.before_part: self.before})

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Take the rows of the table, join the events of the stream, pass all on."""
        self._pass_to(trace.start)
        if not len(events):
            return Output(events, trace)
        events = self._keys.located(events)
        is_right, prior = events.number(INPUT) == RIGHT, trace.prior
        earlier = _right_before(events.slot, is_right)
        rows = self._rows(events, is_right, prior)
        known = self.newest.known(events.slot)
        newest = self.newest.of(events.slot)
        in_batch = np.flatnonzero(earlier >= 0)
        newest[in_batch] = rows[earlier[in_batch]]
        known |= earlier >= 0
        if self._spec.as_of is AsOf.EVENT_TIME:
            self._supersede(events.slot, is_right & known, newest, rows)
        dropped = self._join(events, prior, known, newest)
        self._remember(events.slot, is_right, rows)
        return Output(events, trace, dropped={UNMATCHED: dropped} if dropped else {})

    def _rows(self, events: Events, is_right: Bools, prior: Int64) -> Rows:
        """Rows of the table, at the places of their events."""
        rows = empty_rows(self._spec.newest_dtype, len(events))
        right = np.flatnonzero(is_right)
        time = events.event_time[right]
        rows[_OWN_TIME][right], rows[_SINCE][right] = time, np.maximum(time, self._oldest_asked(prior[right]))
        rows[_DELETED][right] = byte_sizes(events.value)[right] == 0
        found = empty_rows(self._spec.newest_dtype, len(right))
        set_fields(found, self._spec.right, events, right)
        for name, _ in self._spec.right.columns():
            rows[name][right] = found[name]
        return rows

    def _oldest_asked(self, prior: Int64) -> Int64:
        """As of which time at least the events that are passed at these watermarks are joined."""
        return np.where(prior > TIME_MIN, prior, self._spec.history_ms) - self._spec.history_ms

    def _supersede(self, slots: Int64, is_next: Bools, newest: Rows, rows: Rows) -> None:
        """Keep the rows that were the newest before those at `is_next`."""
        at = np.flatnonzero(is_next)
        gone = empty_rows(self._spec.before_dtype, len(at))
        gone[NUMBER], gone[TIME] = self.before.next_number + np.arange(len(at)), rows[_SINCE][at]
        for name in self._spec.newest_dtype.names or ():
            gone[name] = newest[name][at]
        self.before.add(slots[at], gone)

    def _join(self, events: Events, prior: Int64, known: Bools, newest: Rows) -> int:
        """Note joined rows of the stream's events; returns how many have none."""
        spec = self._spec
        left = np.flatnonzero(events.number(INPUT) == LEFT)
        if not len(left):
            return 0
        time, known, found = events.event_time[left], known[left], newest[left]
        if spec.as_of is AsOf.EVENT_TIME:
            asked = np.maximum(time, self._oldest_asked(prior[left]))
            later = np.flatnonzero(known & (found[_SINCE] > asked))
            has, rows = self.before.latest(
                events.slot[left[later]], asked[later] + 1, np.full(len(later), NEVER - 1),
                asked[later] + 1, _SINCE,
            )  # fmt: skip
            known[later] = has
            for name in spec.newest_dtype.names or ():
                found[name][later] = rows[name]
        else:
            asked = np.maximum(time, prior[left])
        matched = known & (found[_DELETED] == 0) & spec.left.has_key(events, left)
        if spec.ttl_ms:
            matched &= found[_OWN_TIME] >= asked - spec.ttl_ms
        joined = left_rows(spec, events, left)
        joined[MATCHED] = matched
        joined[spec.right.time][matched] = found[_OWN_TIME][matched]
        for name, _ in spec.right.columns():
            joined[name][matched] = found[name][matched]
        written = np.ones(len(left), dtype=np.bool_) if spec.outer else matched
        if written.any():
            self._joined.add(byte_objects(events.key.take(left[written])), joined[written])
        return 0 if spec.outer else int(np.count_nonzero(~matched))

    def _remember(self, slots: Int64, is_right: Bools, rows: Rows) -> None:
        """Keep the last row of each key."""
        right = np.flatnonzero(is_right)
        if not len(right):
            return
        order = right[np.argsort(slots[right], kind="stable")]
        last = order[np.append(slots[order][1:] != slots[order][:-1], True)]
        self.newest.put(slots[last], rows[last], self.newest.of(slots[last]))

    # --- the commit cycle -------------------------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Whether nothing waits to be written."""
        return super().is_settled and not self.newest.has_changed

    def changes(self, changed: ChangedKeys) -> Changes:
        """As every join, and the newest rows."""
        found = super().changes(changed)
        pieces = self.newest.take_changed(found.store)
        found.sections = {**found.sections, self._spec.newest_part: pieces}
        found.is_of_cycle_end = bool(pieces)
        return found

    def applied(self, journal_first: int) -> None:
        """Remember since where the journal has all newest rows."""
        self.newest.applied(journal_first)

    def journal_needed(self, cut: int) -> int | None:
        """What has newest rows, until they are written again."""
        return self.newest.journal_needed(cut)

    # --- restore ----------------------------------------------------------------------------------------------------

    def replay(self, record: Replayed, budget: RestoreBudget) -> int:
        """Take the rows that the store lacks."""
        count = super().replay(record, budget)
        if (section := record.sections.get(self._spec.forgotten_part)) is not None and record.is_new:
            self.newest.forget_keys(unpack_keys(section))
        if (section := record.sections.get(self._spec.newest_part)) is not None:
            count += self.newest.replay(section, is_new=record.is_new)
        return count

    def journal_restored(self, watermark: int, marks: Mapping[str, int]) -> None:
        """Rows come into memory with their keys.

        Raises:
            JournalCorrupted: a row of the store is none.

        """
        super().journal_restored(watermark, marks)
        self.newest.write_replayed()

    def snapshot(self, watermark: int, marks: Mapping[str, int]) -> Changes:
        """All rows of the store."""
        found = super().snapshot(watermark, marks)
        sections: Mapping[str, Sequence[bytes]] = {**found.sections, self._spec.newest_part: self.newest.snapshot()}
        return Changes(sections=sections, event_time_max=max(found.event_time_max, watermark))

    # --- between cycles ---------------------------------------------------------------------------------------------

    def expire(self, watermark: int, batch: WriteBatch) -> int:
        """Forget rows that nobody asks for, or that are too old; now and then, for it reads all newest ones."""
        durable = super().expire(watermark, batch)
        if watermark > TIME_MIN and watermark - _EXPIRE_EVERY_MS >= self._expired_at:
            self._expired_at = watermark
            asked = watermark - self._spec.history_ms
            oldest = asked - self._spec.ttl_ms if self._spec.ttl_ms else TIME_MIN
            self.newest.expire(
                batch, lambda rows: (rows[_OWN_TIME] < oldest) | ((rows[_DELETED] == 1) & (rows[_SINCE] < asked))
            )
        return durable


def _right_before(slots: Int64, is_right: Bools) -> Int64:
    """Row of the last right event before each event of the same slot, without itself; -1 where there is none."""
    order = np.argsort(slots, kind="stable")
    ordered, place = slots[order], np.arange(len(order))
    starts = np.append(True, ordered[1:] != ordered[:-1])
    first = np.maximum.accumulate(np.where(starts, place, 0))
    upto = np.maximum.accumulate(np.where(is_right[order], place, -1))
    before = np.append(-1, upto[:-1])
    found = np.empty(len(order), dtype=np.int64)
    found[order] = np.where(before >= first, order[np.maximum(before, 0)], -1)
    return found
