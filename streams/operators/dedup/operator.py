"""Dedup as an operator: the first copy of an event in the log goes on, within the horizon.

What is older than the horizon cannot be told from a copy: it goes to the late topic. Identities of a cycle are in the
journal; they are moved to pages in the store by `spill`, and forgotten by `expire`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streams.batch.columns import TIME_MIN, Bools
from streams.batch.event_ids import event_time_of
from streams.batch.events import Events
from streams.batch.replayed import is_replayed
from streams.limits import JOURNAL_RECORD_BYTES_MAX
from streams.operators.base import Operator, OperatorContext, Replayed, RestoreBudget, Spill
from streams.operators.changes import Changes
from streams.operators.dedup.id_set import IdSet
from streams.operators.dedup.pages import SpilledIds
from streams.operators.dedup.section import SECTION, Ids, pack_ids, unpack_ids
from streams.operators.keyed import ChangedKeys
from streams.operators.late import LATE, LateEvents
from streams.operators.output import EventRecords, Output, RefusedEvents
from streams.operators.refused import accepted
from streams.operators.spec import OperatorSpec, named_for
from streams.operators.trace import WatermarkTrace
from streams.state.identity import Consequences, SettingsByName
from streams.state.store import WriteBatch

NAME: Final = "dedup"
DUPLICATE: Final = "duplicate"
KNOWN_FROM: Final = "dedup.known_from"
"""Event time from which on all ids are known: below it, a copy cannot be told from a first event."""
HORIZON_MS: Final = "horizon_ms"
_EXPIRIES: Final = 8
"""How often within a horizon expired ids are removed."""


@dataclass(frozen=True)
class Dedup(OperatorSpec):
    """Declaration: copies within `horizon_ms` of event time before the watermark are dropped."""

    horizon_ms: int
    late_topic: str
    of: str = ""
    """Input whose events it gets, where that is not the flow's first one."""

    @property
    def name(self) -> str:
        """`dedup`, and the input."""
        return named_for(NAME, self.of)

    def build(self, context: OperatorContext) -> "DedupOperator":
        """Create the operator of one partition, without any ids."""
        return DedupOperator(self, context)

    @property
    def bounds(self) -> Mapping[str, int]:
        """The horizon, which is recorded with the state."""
        return {self._bound: self.horizon_ms}

    @property
    def _bound(self) -> str:
        return named_for(HORIZON_MS, self.of)

    @property
    def journal_ms(self) -> int:
        """The horizon: older ids are forgotten."""
        return self.horizon_ms

    def judge_change(self, bounds: Mapping[str, int], settings: SettingsByName) -> Consequences:
        """A longer horizon than before grows, a shorter one is in force at once."""
        del settings
        before_ms = bounds.get(self._bound, self.horizon_ms)
        if before_ms == self.horizon_ms:
            return Consequences()
        how, then = "shorter", "older ids are forgotten, and events older than it are late from now on"
        if self.horizon_ms > before_ms:
            how, then = "longer", "it grows as ids are remembered for longer"
        text = f"the {self.name} horizon is {how} than before ({self.horizon_ms} ms, was {before_ms} ms): {then}"
        return Consequences(migrated=(text,))

    @property
    def parts(self) -> Mapping[str, str]:
        """The operator's parts of the store: pages of ids."""
        return {self.name: named_for("pages of ids", self.of)}


class DedupOperator(Operator):
    """Drops copies of events within the horizon."""

    stage = "dedup"
    takes_references = True

    def __init__(self, spec: Dedup, context: OperatorContext) -> None:
        self._spec, self._context = spec, context
        self._space = context.space(spec.name)
        self._section, self._known_from_mark = named_for(SECTION, spec.of), named_for(KNOWN_FROM, spec.of)
        self._ids = IdSet(context.seed, context.add_ids)
        self.spilled = SpilledIds(self._space)
        self._spilled_below = self.spilled.newest_bucket_end
        self._expired_below = TIME_MIN
        self._added: list[Ids] = []
        self._known_from = 0

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Pass first copies on."""
        if not len(events):
            return Output(events, trace)
        records: list[EventRecords] = []
        refused: list[RefusedEvents] = []
        oldest = np.maximum(trace.at - self._spec.horizon_ms, self._known_from)
        beyond = events.event_time < oldest
        if beyond.any():
            by_ms = (oldest - events.event_time)[beyond]
            records.append(
                LateEvents(self._spec.late_topic, events.take(beyond), LATE, beyond_horizon=True, by_ms=by_ms)
            )
            events, trace = events.take(~beyond), trace.take(~beyond)
        new = self._first_copies(events)
        duplicates = len(events) - int(np.count_nonzero(new))
        output = {}
        if duplicates:
            if events.headers is not None:
                output = {DUPLICATE: [headers for headers in events.headers[~new] if is_replayed(headers)]}
            events, trace = events.take(new), trace.take(new)
        refusals = self._context.refusals()
        if refusals:
            good = accepted(events, refusals, refused)
            events, trace = events.take(good), trace.take(good)
            records = [part.take(kept) for part in records if (kept := accepted(part.events, refusals, refused)).any()]
        return Output(events, trace, records, {DUPLICATE: duplicates}, output, refused=refused)

    def _first_copies(self, events: Events) -> Bools:
        """Remember the identities of `events`; returns which of them were new."""
        new = self._ids.add(events.id_hi, events.id_lo, events.id_word)
        doubtful = (new & (events.event_time < self._spilled_below)).nonzero()[0]
        if len(doubtful):
            asked = Ids(events.id_hi[doubtful], events.id_lo[doubtful], events.id_word[doubtful])
            new[doubtful[self.spilled.contains(asked)]] = False
        if new.all():
            self._added.append(Ids(events.id_hi, events.id_lo, events.id_word))
        elif new.any():
            self._added.append(Ids(events.id_hi[new], events.id_lo[new], events.id_word[new]))
        return new

    # --- the commit cycle -------------------------------------------------------------------------------------------

    def changes(self, changed: ChangedKeys) -> Changes:
        """The ids that are new, and from when on all are known."""
        del changed
        ids = Ids.concat(self._added)
        self._added = []
        pieces = pack_ids(ids, self._known_from, bytes_max=JOURNAL_RECORD_BYTES_MAX)
        return Changes(sections={self._section: pieces}, event_time_max=_newest(ids))

    @property
    def is_settled(self) -> bool:
        """Whether all ids are in the journal."""
        return not self._added

    # --- restore ----------------------------------------------------------------------------------------------------

    def replay(self, record: Replayed, budget: RestoreBudget) -> int:
        """Remember the ids of a cycle."""
        del budget
        section = record.sections.get(self._section)
        if section is None:
            return 0
        ids, known_from = unpack_ids(section)
        self._ids.add(ids.hi, ids.lo, ids.word)
        if record.is_new:
            self._known_from = known_from
        return len(ids)

    def bound_replay(self, watermark: int, budget: RestoreBudget) -> int:
        """Move ids older than the watermark to the store: they are committed, and no held event has one of them."""
        if len(self._ids) <= budget.rows_max:
            return TIME_MIN
        batch = WriteBatch()
        self._move(watermark, watermark, batch)
        self._space.write(batch)
        return watermark

    def journal_restored(self, watermark: int, marks: Mapping[str, int]) -> None:
        """Restore from when on all ids are known: the journal's value, or the checkpoint's if it has none."""
        del watermark
        self._known_from = max(self._known_from, marks.get(self._known_from_mark, 0))

    def bounds_changed(self, found: Mapping[str, int], watermark: int) -> None:
        """With a longer horizon than before, the ids that the shorter one has dropped are unknown."""
        before_ms = found.get(named_for(HORIZON_MS, self._spec.of), self._spec.horizon_ms)
        if self._spec.horizon_ms > before_ms and watermark > TIME_MIN:
            self._known_from = max(self._known_from, watermark - before_ms)

    @property
    def marks(self) -> Mapping[str, int]:
        """From when on all ids are known."""
        return {self._known_from_mark: self._known_from}

    def marked_sections(self) -> Mapping[str, Sequence[bytes]]:
        """From when on all ids are known."""
        return {self._section: pack_ids(Ids.concat([]), self._known_from, bytes_max=JOURNAL_RECORD_BYTES_MAX)}

    def snapshot(self, watermark: int, marks: Mapping[str, int]) -> Changes:
        """All ids of the store."""
        del watermark
        ids = self.spilled.all()
        pieces = pack_ids(ids, marks.get(self._known_from_mark, 0), bytes_max=JOURNAL_RECORD_BYTES_MAX)
        return Changes(sections={self._section: pieces}, event_time_max=_newest(ids))

    # --- between cycles ---------------------------------------------------------------------------------------------

    def spill(self, goal: Spill, watermark: int, batch: WriteBatch) -> int:
        """Move ids below an event time into pages."""
        self._move(goal.below, watermark, batch)
        return goal.below

    def expire(self, watermark: int, batch: WriteBatch) -> int:
        """Forget ids older than the horizon, in memory and in the store.

        Done when the watermark has gone on by an eighth of the horizon: it rebuilds the set. It changes no outcome, for
        what is older than the horizon is late before it is looked up.
        """
        horizon = watermark - self._spec.horizon_ms
        if watermark == TIME_MIN or horizon < self._expired_below + self._spec.horizon_ms // _EXPIRIES:
            return TIME_MIN
        self._expired_below = horizon
        self._move(TIME_MIN, watermark, batch)
        return horizon

    def _move(self, below: int, watermark: int, batch: WriteBatch) -> None:
        """Put ids below an event time into pages, and forget those older than the horizon."""
        horizon = watermark - self._spec.horizon_ms if watermark > TIME_MIN else TIME_MIN
        hi, lo, word = self._ids.rows()
        times = event_time_of(word)
        moved = (times < below) & (times >= horizon)
        self.spilled.add(Ids(hi[moved], lo[moved], word[moved]), batch)
        if horizon > 0:
            self.spilled.expire(horizon, batch)
        if moved.any():
            self._spilled_below = max(self._spilled_below, int(times[moved].max()) + 1)
        self._ids.retain((times >= below) & (times >= horizon))

    @property
    def bytes_used(self) -> int:
        """Memory of the ids."""
        return self._ids.bytes_used

    def in_memory(self) -> Mapping[str, int]:
        """Number of ids."""
        return {named_for("ids", self._spec.of): len(self._ids)}


def _newest(ids: Ids) -> int:
    return int(event_time_of(ids.word).max()) if len(ids) else TIME_MIN
