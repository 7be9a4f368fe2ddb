"""Join each event of one input with the latest one of another, as of its event time.

Both come merged (`operators.merge`), so that which events were there follows from the logs alone. Right events are kept
for as long as they may match (`kept.KeptRows`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from streams.batch.columns import Int64
from streams.batch.events import Events
from streams.batch.refs import byte_objects
from streams.batch.rows import Rows, empty_rows
from streams.operators.base import OperatorContext
from streams.operators.join.bucketed import NUMBER, TIME
from streams.operators.join.kept import KeptRows, from_watermark
from streams.operators.join.operator import JoinOperator
from streams.operators.join.side import (
    LEFT,
    MATCHED,
    RIGHT,
    UNMATCHED,
    JoinSpec,
    left_rows,
    set_fields,
)
from streams.operators.merge.section import INPUT
from streams.operators.output import Output
from streams.operators.trace import WatermarkTrace


@dataclass(frozen=True, kw_only=True)
class JoinLatest(JoinSpec):
    """Declaration: a row of `topic` for each event of `left` with the latest one of `right`.

    A right event matches that is not later than the left one, at most `within_ms` earlier, and at most `within_ms` and
    `grace_ms` below the watermark.
    """

    within_ms: int
    grace_ms: int = 0

    def build(self, context: OperatorContext) -> "JoinLatestOperator":
        """An operator that knows no right event."""
        return JoinLatestOperator(self, context)

    @cached_property
    def right_dtype(self) -> np.dtype[Any]:
        """Columns of what is kept of a right event."""
        return np.dtype([(NUMBER, "<i8"), (TIME, "<i8"), *self.right.columns()])

    @property
    def rows_part(self) -> str:
        """Name of the part of store and journal that has right events."""
        return f"{self.name}.right"

    @property
    def bounds(self) -> Mapping[str, int]:
        """How much earlier a right event may be, and how long it is kept beyond that."""
        return {f"{self.name}.within_ms": self.within_ms, f"{self.name}.grace_ms": self.grace_ms}

    @property
    def journal_ms(self) -> int:
        """Time for which the journal is needed: an older right event matches nothing."""
        return self.within_ms + self.grace_ms

    @property
    def parts(self) -> Mapping[str, str]:
        """The operator's parts of the store: right events."""
        return {self.rows_part: f"events of {self.right.name} that may match"}


class JoinLatestOperator(JoinOperator[JoinLatest]):
    """The join with the latest row, of one partition."""

    def __init__(self, spec: JoinLatest, context: OperatorContext) -> None:
        self.right = KeptRows(
            spec.right_dtype, spec.journal_ms, context.space(spec.rows_part), context.keys, context.home.kept
        )
        super().__init__(spec, context, {spec.rows_part: self.right})

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Remember the right events, join the left ones, pass all on."""
        self._pass_to(trace.start)
        if not len(events):
            return Output(events, trace)
        events = self._keys.located(events)
        is_right = events.number(INPUT) == RIGHT
        before = self.right.next_number + np.cumsum(is_right) - is_right
        right = np.flatnonzero(is_right)
        self.right.add(events.slot[right], self._right_rows(events, right, before[right]))
        dropped = self._join(events, trace.prior, before)
        return Output(events, trace, dropped={UNMATCHED: dropped} if dropped else {})

    def _join(self, events: Events, prior: Int64, before: Int64) -> int:
        """Note joined rows of the left events; returns how many have none."""
        spec = self._spec
        left = np.flatnonzero(events.number(INPUT) == LEFT)
        if not len(left):
            return 0
        time, watermark = events.event_time[left], prior[left]
        kept_from = from_watermark(watermark, spec.journal_ms)
        low = np.maximum(time - spec.within_ms, kept_from)
        matched, found = self.right.latest(events.slot[left], low, time, before[left])
        matched &= spec.left.has_key(events, left)
        rows = left_rows(spec, events, left)
        rows[MATCHED] = matched
        rows[spec.right.time][matched] = found[TIME][matched]
        for name, _ in spec.right.columns():
            rows[name][matched] = found[name][matched]
        written = np.ones(len(left), dtype=np.bool_) if spec.outer else matched
        if written.any():
            self._joined.add(byte_objects(events.key.take(left[written])), rows[written])
        return 0 if spec.outer else int(np.count_nonzero(~matched))

    def _right_rows(self, events: Events, rows: Int64, numbers: Int64) -> Rows:
        found = empty_rows(self._spec.right_dtype, len(rows))
        found[NUMBER], found[TIME] = numbers, events.event_time[rows]
        set_fields(found, self._spec.right, events, rows)
        return found
