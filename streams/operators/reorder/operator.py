"""Reorder as an operator: events go on in order per key once the watermark has passed them; late ones go elsewhere.

Held events are in the journal of the cycle in which they came, as long as they are held at its end; `spill` moves those
that are not due soon to pages in the store. The last released event of each key is a keyed row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streams.batch.columns import TIME_MIN, Int64
from streams.batch.events import Events
from streams.batch.refs import byte_values
from streams.limits import JOURNAL_RECORD_BYTES_MAX
from streams.operators.base import ALL, Operator, OperatorContext, Replayed, RestoreBudget, Spill
from streams.operators.changes import Changes
from streams.operators.keyed import ChangedKeys
from streams.operators.late import LATE, LateEvents
from streams.operators.output import EventRecords, Output, RefusedEvents
from streams.operators.refused import accepted
from streams.operators.reorder.held import Held, sections_in_store
from streams.operators.reorder.journalled import HeldInJournal
from streams.operators.reorder.judge import judge_behind, release_order
from streams.operators.reorder.last import LastReleased, due_pairs, due_rows
from streams.operators.reorder.section import (
    FORGOTTEN,
    HELD,
    LAST_RELEASED,
    count_of_due,
    pack_due,
    pack_held,
    pack_keys,
    unpack_due,
    unpack_keys,
)
from streams.operators.spec import OperatorSpec, named_for
from streams.operators.trace import WatermarkTrace
from streams.state.store import WriteBatch

NAME: Final = "reorder"
_PUTS_MAX: Final = 50_000


@dataclass(frozen=True)
class Reorder(OperatorSpec):
    """Declaration: events are released in (event time, sequence, id) per key."""

    late_topic: str
    of: str = ""
    """Input whose events it gets, where that is not the flow's first one."""

    @property
    def name(self) -> str:
        """`reorder`, and the input."""
        return named_for(NAME, self.of)

    @property
    def held_part(self) -> str:
        """Name of the part of store and journal that has held events."""
        return named_for(HELD, self.of)

    @property
    def last_part(self) -> str:
        """Name of the part of store and journal that has the last released event of each key."""
        return named_for(LAST_RELEASED, self.of)

    @property
    def forgotten_part(self) -> str:
        """Name of the part of the journal that has keys which were forgotten."""
        return named_for(FORGOTTEN, self.of)

    def build(self, context: OperatorContext) -> "ReorderOperator":
        """Create the operator of one partition, without held events."""
        return ReorderOperator(self, context)

    @property
    def parts(self) -> Mapping[str, str]:
        """The operator's parts of the store: last released events, and pages of held ones."""
        return {
            self.last_part: named_for("last released events", self.of),
            self.held_part: named_for("pages of held events", self.of),
        }


class ReorderOperator(Operator):
    """Holds events and releases them in order."""

    stage = "reorder"
    takes_references = True

    def __init__(self, spec: Reorder, context: OperatorContext) -> None:
        self._spec, self._context, self._keys = spec, context, context.keys
        self._last_space = context.space(spec.last_part)
        self._held_space = context.space(spec.held_part)
        self.held = Held(context.fields, self._held_space, context.home.kept)
        self._last = context.keys.attach(LastReleased(self._last_space))
        self._none = Events.none(context.fields)
        self._cycle = 1
        """Cycles counted since the restore: tells held events of the open cycle from others."""
        self._journalled = HeldInJournal(self.held, context.fields)
        self._replayed = WriteBatch()

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Hold events, release them in order, or pass them to the late topic."""
        end = trace.end
        self._load_pages(end)
        self.held.link_due(end, self._keys.slots)
        events = self._keys.located(events)
        records: list[EventRecords] = []
        refused: list[RefusedEvents] = []
        at = trace.at
        ahead = events.event_time > at
        due: list[Events] = []
        places: list[Int64] = []
        if not ahead.all():
            behind = ~ahead
            is_late, by_ms = judge_behind(events, at, behind, self._last.due(), self._rivals(end))
            if is_late.any():
                late = events.take(is_late)
                records.append(
                    LateEvents(self._spec.late_topic, late, LATE, beyond_horizon=False, by_ms=by_ms[is_late])
                )
            due.append(events.take(behind & ~is_late))
            places.append(trace.place[behind & ~is_late])
        ripe = ahead & (events.event_time <= end)
        in_time = self._held_due(end, refused)
        if ripe.any():
            in_time.append(events.take(ripe))
        self.held.add(events, self._cycle, (ahead & ~ripe).nonzero()[0])
        places += [trace.passing(part.event_time) for part in in_time]
        released, trace = self._in_order([*due, *in_time], places, trace)
        if len(released):
            segments = self._keys.segments(released, trace)
            self._last.note(segments)
            self._keys.touch(segments.slot)
        return Output(released, trace, records, refused=refused)

    def _in_order(self, due: list[Events], places: list[Int64], trace: WatermarkTrace) -> tuple[Events, WatermarkTrace]:
        places = [place for events, place in zip(due, places, strict=True) if len(events)]
        due = [events for events in due if len(events)]
        if not due:
            return self._none, trace.moved(np.empty(0, dtype=np.int64))
        events = Events.concat(due)
        order = release_order(events)
        return events.take(order), trace.moved(np.concatenate(places)[order])

    def _held_due(self, watermark: int, refused: list[RefusedEvents]) -> list[Events]:
        """Take the held events that are due; those that an output has refused become dead letters."""
        due = self.held.take_due(watermark)
        refusals = self._context.refusals()
        if not refusals:
            return due
        return [events.take(accepted(events, refusals, refused, were_held=True)) for events in due]

    def _rivals(self, watermark: int) -> list[Events]:
        """Held events that may make later ones late; without those that an output has refused (never released)."""
        refusals = self._context.refusals()
        if not refusals:
            return self.held.ripe(watermark)
        found: list[Events] = []
        for events in self.held.ripe(watermark):
            rival = np.ones(len(events), dtype=np.bool_)
            rival[list(refusals.messages(events))] = False
            found.append(events.take(rival))
        return found

    def _load_pages(self, watermark: int) -> None:
        """Bring events back from the store that may be due at `watermark`."""
        if self.held.pages_due(watermark):
            for events in self.held.load_due_pages(watermark):
                self.held.add(events, 0)

    def next_timer(self) -> int:
        """Event time of the oldest held event."""
        return self.held.event_time_min()

    # --- the commit cycle -------------------------------------------------------------------------------------------

    def changes(self, changed: ChangedKeys) -> Changes:
        """Events that came in this cycle and are still held, and each changed key's last released event."""
        due = self._last.rows(changed)
        cycle, self._cycle = self._cycle, self._cycle + 1
        found = Changes(
            sections={
                self._spec.held_part: pack_held(self.held.came_in(cycle), bytes_max=JOURNAL_RECORD_BYTES_MAX),
                self._spec.last_part: pack_due(due, bytes_max=JOURNAL_RECORD_BYTES_MAX),
            },
            event_time_max=int(due.event_time.max()) if len(due) else TIME_MIN,
        )
        self._last_space.put(found.store, due_pairs(due))
        return found

    # --- restore ----------------------------------------------------------------------------------------------------

    def replay(self, record: Replayed, budget: RestoreBudget) -> int:
        """Hold what a cycle has held, as far as it is not due; take the last released events that the store lacks."""
        rows = 0
        if (section := record.sections.get(self._spec.held_part)) is not None:
            rows += self._journalled.add(section, record.watermark, budget.bytes_max)
        if (section := record.sections.get(self._spec.forgotten_part)) is not None and record.is_new:
            self._write_replayed()
            self._last_space.delete(self._replayed, unpack_keys(section))
            self._write_replayed()
        if (section := record.sections.get(self._spec.last_part)) is not None:
            rows += count_of_due(section)
            if record.is_new:
                self._last_space.put(self._replayed, due_pairs(unpack_due(section)))
                if len(self._replayed.puts) > _PUTS_MAX:
                    self._write_replayed()
        return rows

    def bound_replay(self, watermark: int, budget: RestoreBudget) -> int:
        """Held events are bounded as they come."""
        del budget
        return watermark

    def journal_restored(self, watermark: int, marks: Mapping[str, int]) -> None:
        """Hold what is above the watermark.

        Raises:
            JournalCorrupted: a page of the store cannot be read.

        """
        del marks
        self._write_replayed()
        events = self._journalled.rest(watermark)
        if events is not None and (kept := self._context.home.kept(byte_values(events.key))) is not None:
            events = events.take(kept)
        if events is not None:
            self.held.add(events, 0)
        self.held.restore_pages(watermark)

    def forgotten(self, keys: Sequence[bytes]) -> Mapping[str, Sequence[bytes]]:
        """Sections that say that the last released events of forgotten keys no longer count."""
        return {self._spec.forgotten_part: [pack_keys(keys)]}

    def holds(self, key: bytes, watermark: int) -> bool:
        """Whether events of the key wait for the watermark."""
        return self.held.has_key(key, watermark)

    def _write_replayed(self) -> None:
        self._last_space.write(self._replayed)
        self._replayed = WriteBatch()

    def snapshot(self, watermark: int, marks: Mapping[str, int]) -> Changes:
        """The store's held events and last released ones."""
        del marks
        home = self._context.home
        held = sections_in_store(self._held_space, self._context.fields, watermark, home.kept)
        due = due_rows(list(self._last_space.scan()))
        if (kept := home.kept(due.key.tolist())) is not None:
            due = due.take(kept)
        return Changes(
            sections={
                self._spec.held_part: held,
                self._spec.last_part: pack_due(due, bytes_max=JOURNAL_RECORD_BYTES_MAX),
            },
            event_time_max=int(due.event_time.max()) if len(due) else TIME_MIN,
        )

    # --- between cycles ---------------------------------------------------------------------------------------------

    def spill(self, goal: Spill, watermark: int, batch: WriteBatch) -> int:
        """Move all but the oldest held events into pages; the journal is needed for those that stay in memory."""
        self.held.make_room(goal, watermark, batch)
        return self._durable_below(watermark)

    def expire(self, watermark: int, batch: WriteBatch) -> int:
        """Do nothing: no held event is too old."""
        del batch
        return self._durable_below(watermark)

    def _durable_below(self, watermark: int) -> int:
        return watermark if len(self.held) else ALL

    def keys_moved(self) -> None:
        """Hold events of kept keys only."""
        self.held.drop_moved()

    def keys_forgotten(self) -> None:
        """The key space was emptied: held events have no slots any more."""
        self.held.unlink()

    @property
    def bytes_used(self) -> int:
        """Memory of held events."""
        return self.held.bytes_used

    @property
    def cycle_bytes(self) -> int:
        """Bytes of events to be journalled."""
        return self.held.bytes_since(self._cycle)

    def in_memory(self) -> Mapping[str, int]:
        """Number of held events."""
        return {named_for("held", self._spec.of): len(self.held)}
