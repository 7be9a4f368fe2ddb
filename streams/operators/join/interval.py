"""Join each event of one input with all events of another that are near it in event time.

Both come merged (`operators.merge`). A pair is written when the later one of its two events is passed. A left event
without any right one is known to be so once the watermark has passed the time within which one could have come.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from streams.batch.columns import TIME_MIN, Bools, Float64, Int64
from streams.batch.events import Events
from streams.batch.refs import byte_objects
from streams.batch.rows import Rows, empty_rows
from streams.limits import JOIN_MATCHES_DEFAULT
from streams.operators.base import OperatorContext
from streams.operators.join.bucketed import NUMBER, TIME
from streams.operators.join.kept import KeptRows, from_watermark
from streams.operators.join.operator import JoinOperator
from streams.operators.join.side import (
    EVENT_ID,
    LEFT,
    MATCHED,
    RIGHT,
    SEQUENCE,
    UNMATCHED,
    JoinSpec,
    Side,
    left_rows,
    set_fields,
    unmatched_rows,
)
from streams.operators.merge.section import INPUT
from streams.operators.output import Output
from streams.operators.trace import NEVER, WatermarkTrace

BEYOND: Final = "beyond_matches"
"""What pairs are counted as that are not written, since one of their events has `matches_max` others."""
_NOWHERE: Final = -1
"""Stands for the input of left events that have no key of the join."""
_PASSED: Final = "passed"
"""Column of kept events: the watermark at which they were passed."""


@dataclass(frozen=True, kw_only=True)
class JoinInterval(JoinSpec):
    """Declaration: a row of `topic` for each pair of a `left` and a `right` event of the same key near each other.

    The right event is at most `before_ms` earlier and `after_ms` later than the left one, and when the later one of
    them is passed the watermark is at most `grace_ms` beyond the time until which it could match the other.
    """

    before_ms: int
    after_ms: int
    grace_ms: int = 0
    matches_max: int = JOIN_MATCHES_DEFAULT
    """An event is joined with so many others at most, those that were passed last."""

    def build(self, context: OperatorContext) -> "JoinIntervalOperator":
        """Create the operator of one partition, without events."""
        return JoinIntervalOperator(self, context)

    def right_columns(self) -> list[tuple[str, str]]:
        """Columns of joined rows that tell of the right event, its id first."""
        return [(self.right.id, "O"), *super().right_columns()]

    def kept_dtype(self, side: Side) -> np.dtype[Any]:
        """Columns of what is kept of an event of a side."""
        own = [(NUMBER, "<i8"), (TIME, "<i8"), (_PASSED, "<i8"), (SEQUENCE, "<i8"), (EVENT_ID, "O")]
        return np.dtype([*own, *side.columns()])

    @cached_property
    def dtypes(self) -> tuple[np.dtype[Any], np.dtype[Any]]:
        """Columns of what is kept of left and right events."""
        return self.kept_dtype(self.left), self.kept_dtype(self.right)

    @property
    def left_ms(self) -> int:
        """For how long after the watermark has passed it a left event may be joined."""
        return self.after_ms + self.grace_ms

    @property
    def right_ms(self) -> int:
        """For how long after the watermark has passed it a right event may be joined."""
        return self.before_ms + self.grace_ms

    def rows_part(self, side: Side) -> str:
        """Name of the part of store and journal that has events of a side."""
        return f"{self.name}.{'left' if side is self.left else 'right'}"

    @property
    def bounds(self) -> Mapping[str, int]:
        """How far apart two events may be, and for how long they are kept beyond that."""
        return {
            f"{self.name}.before_ms": self.before_ms,
            f"{self.name}.after_ms": self.after_ms,
            f"{self.name}.grace_ms": self.grace_ms,
        }

    @property
    def journal_ms(self) -> int:
        """As long as a right event says whether a left one has none: until that cannot be joined any more."""
        return self.left_ms + self.before_ms

    @property
    def parts(self) -> Mapping[str, str]:
        """Events of both sides."""
        return {self.rows_part(side): f"events of {side.name} that may match" for side in (self.left, self.right)}


class JoinIntervalOperator(JoinOperator[JoinInterval]):
    """The interval join of one partition."""

    def __init__(self, spec: JoinInterval, context: OperatorContext) -> None:
        (left_dtype, right_dtype), kept = spec.dtypes, context.home.kept
        parts = [spec.rows_part(side) for side in (spec.left, spec.right)]
        spaces = [context.space(part) for part in parts]
        self.left = KeptRows(left_dtype, spec.journal_ms, spaces[LEFT], context.keys, kept)
        self.right = KeptRows(right_dtype, spec.journal_ms, spaces[RIGHT], context.keys, kept)
        self._closed_at = TIME_MIN
        """Left events that cannot be joined any more at this watermark were looked at."""
        self._first = 0
        """Number of the first event of the micro-batch."""
        self._came_late: list[tuple[Int64, Rows]] = []
        """Left events of the micro-batch that could not be joined with later ones when they came."""
        super().__init__(spec, context, dict(zip(parts, (self.left, self.right), strict=True)))

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Remember all events, join each with those before it, say which left ones have none; pass all on."""
        self._pass_to(trace.start)
        dropped = {UNMATCHED: 0, BEYOND: 0}
        found = _Found()
        if len(events):
            events = self._keys.located(events)
            self._pass_without_key(events, found)
            self._remember(events, trace.prior)
            for number in (LEFT, RIGHT):
                dropped[BEYOND] += self._pairs(events, trace.prior, number, found)
        dropped[UNMATCHED] += self._close(trace, found)
        if found:
            slots, rows = found.in_order()
            self._joined.add(self._keys.keys_at(slots), rows)
        return Output(events, trace, dropped={name: count for name, count in dropped.items() if count})

    def journal_restored(self, watermark: int, marks: Mapping[str, int]) -> None:
        """Those that cannot be joined at this watermark were looked at in an earlier cycle."""
        super().journal_restored(watermark, marks)
        self._closed_at = watermark

    def next_timer(self) -> int:
        """Watermark at which the oldest left event cannot be joined any more."""
        oldest = self.left.oldest(self._open_from(self._closed_at))
        return NEVER if oldest == NEVER else oldest + self._spec.left_ms + 1

    def _open_from(self, watermark: int) -> int:
        return TIME_MIN if watermark == TIME_MIN else watermark - self._spec.left_ms

    def _inputs(self, events: Events) -> Float64:
        """Number of the input of each event; none of left ones that have no key of the join."""
        numbers = events.number(INPUT)
        if not self._spec.left.key_field:
            return numbers
        left = np.flatnonzero(numbers == LEFT)
        numbers = numbers.copy()
        numbers[left[~self._spec.left.has_key(events, left)]] = _NOWHERE
        return numbers

    def _pass_without_key(self, events: Events, found: "_Found") -> None:
        """Write the left events that have no key of the join at once: nothing ever matches them."""
        spec = self._spec
        at = np.flatnonzero(self._inputs(events) == _NOWHERE)
        if len(at):
            rows, none = left_rows(spec, events, at), np.zeros(len(at), dtype=np.int64)
            found.add(at, none, none, events.slot[at], rows, is_pair=True)

    def _remember(self, events: Events, prior: Int64) -> None:
        """Keep the events of both sides, numbered together."""
        self._first = max(self.left.next_number, self.right.next_number)
        numbers, of_input = self._first + np.arange(len(events)), self._inputs(events)
        for side, kept, dtype, number in zip(
            (self._spec.left, self._spec.right), (self.left, self.right), self._spec.dtypes, (LEFT, RIGHT), strict=True
        ):
            mine = np.flatnonzero(of_input == number)
            rows = empty_rows(dtype, len(mine))
            rows[NUMBER], rows[TIME], rows[_PASSED] = numbers[mine], events.event_time[mine], prior[mine]
            rows[SEQUENCE], rows[EVENT_ID] = events.sequence[mine], byte_objects(events.event_id.take(mine))
            set_fields(rows, side, events, mine)
            kept.add(events.slot[mine], rows)
            if number == LEFT and (is_late := rows[TIME] < self._open_from(self._closed_at)).any():
                self._came_late.append((events.slot[mine][is_late], rows[is_late]))

    def _pairs(self, events: Events, prior: Int64, number: int, found: "_Found") -> int:
        """Join the events of an input with those of the other one before them; returns how many pairs are left out."""
        spec = self._spec
        mine = np.flatnonzero(self._inputs(events) == number)
        if not len(mine):
            return 0
        kept, kept_ms, earlier_ms, later_ms = (
            (self.right, spec.right_ms, spec.before_ms, spec.after_ms)
            if number == LEFT
            else (self.left, spec.left_ms, spec.after_ms, spec.before_ms)
        )
        time = events.event_time[mine]
        low = np.maximum(time - earlier_ms, from_watermark(prior[mine], kept_ms))
        matches = kept.between(events.slot[mine], low, time + later_ms, self._first + mine, spec.matches_max)
        if len(matches.query):
            of = mine[matches.query]
            rows = unmatched_rows(spec, len(of))
            rows[MATCHED] = True
            if number == LEFT:
                _set_left(rows, spec, _of_events(events, of, spec.left, spec.dtypes[LEFT]))
                _set_right(rows, spec, matches.rows)
            else:
                _set_left(rows, spec, matches.rows)
                _set_right(rows, spec, _of_events(events, of, spec.right, spec.dtypes[RIGHT]))
            found.add(of, np.zeros(len(of), dtype=np.int64), matches.rows[NUMBER], events.slot[of], rows, is_pair=True)
        return matches.beyond

    def _close(self, trace: WatermarkTrace, found: "_Found") -> int:
        """Write, or count, the left events that cannot be joined any more and never were; returns how many of those."""
        spec, end = self._spec, trace.end
        if end == TIME_MIN:
            return 0
        start = self._open_from(self._closed_at)
        slots, rows = self.left.from_time(start, end - spec.left_ms)
        if self._came_late:
            slots = np.concatenate([*(slots for slots, _ in self._came_late), slots])
            rows = np.concatenate([*(rows for _, rows in self._came_late), rows])
        self._came_late, self._closed_at = [], max(end, self._closed_at)
        if not len(rows):
            return 0
        alone = ~self._was_joined(slots, rows)
        slots, rows = slots[alone], rows[alone]
        if not spec.outer or not len(rows):
            return len(rows)
        when = rows[TIME] + spec.left_ms + 1
        own = rows[NUMBER] - self._first + 1
        place = np.maximum(np.searchsorted(trace.prior, when, "left"), np.where(own > 0, own, 0))
        joined = unmatched_rows(spec, len(rows))
        _set_left(joined, spec, rows)
        found.add(place, when, rows[NUMBER], slots, joined, is_pair=False)
        return 0

    def _was_joined(self, slots: Int64, left: Rows) -> Bools:
        """Which of these left events make a pair with a right one that was passed."""
        spec, time = self._spec, left[TIME]
        high = time + spec.after_ms
        earlier = np.maximum(time - spec.before_ms, from_watermark(left[_PASSED], spec.right_ms))
        before, _ = self.right.latest(slots, earlier, high, left[NUMBER])
        later, rows = self.right.latest(slots, time - spec.before_ms, high, time + spec.left_ms + 1, _PASSED)
        return before | (later & (rows[NUMBER] > left[NUMBER]))


class _Found:
    """Joined rows of a micro-batch, and where among its events they belong."""

    def __init__(self) -> None:
        self._orders: list[tuple[Int64, Int64, Int64, Int64]] = []
        self._slots: list[Int64] = []
        self._rows: list[Rows] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, place: Int64, when: Int64, number: Int64, slots: Int64, rows: Rows, *, is_pair: bool) -> None:
        """Rows that come with the events at `place`, after those that come before them: pairs come last.

        At one place by `when` and by the number of the event that was kept.
        """
        kind = np.full(len(place), int(is_pair), dtype=np.int64)
        self._orders.append((place, kind, when, number))
        self._slots.append(slots)
        self._rows.append(rows)

    def in_order(self) -> tuple[Int64, Rows]:
        """Slots and rows in the order in which they are written."""
        place, kind, when, number = (np.concatenate(column) for column in zip(*self._orders, strict=True))
        order = np.lexsort((number, when, kind, place))
        return np.concatenate(self._slots)[order], np.concatenate(self._rows)[order]


def _of_events(events: Events, of: Int64, side: Side, dtype: np.dtype[Any]) -> Rows:
    """Columns of kept events, of events of this micro-batch."""
    rows = empty_rows(dtype, len(of))
    rows[TIME], rows[SEQUENCE] = events.event_time[of], events.sequence[of]
    rows[EVENT_ID] = byte_objects(events.event_id.take(of))
    set_fields(rows, side, events, of)
    return rows


def _set_left(joined: Rows, spec: JoinInterval, left: Rows) -> None:
    joined[EVENT_ID], joined["event_time"], joined[SEQUENCE] = left[EVENT_ID], left[TIME], left[SEQUENCE]
    for name, _ in spec.left.columns():
        joined[name] = left[name]


def _set_right(joined: Rows, spec: JoinInterval, right: Rows) -> None:
    joined[spec.right.id], joined[spec.right.time] = right[EVENT_ID], right[TIME]
    for name, _ in spec.right.columns():
        joined[name] = right[name]
