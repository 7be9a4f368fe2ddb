"""Merge: the events of several inputs, each in order, become one stream in the order in which they are due.

An event is due at its event time or, if it arrived after its input's watermark had passed that (and was not late), at
that watermark. Below the smallest watermark of all inputs all due events are known. They are passed on, sorted by the
time at which they are due, event time, sequence, id and input. That is a function of the inputs' logs (and of the idle
time that is recorded with their positions), not of the order in which they were read.

Events that wait for another input are in the journal of the cycle in which they came, if they are still held at its
end; `spill` moves those that are not due soon to pages in the store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from streams.batch.columns import TIME_MIN, Headers, Int64
from streams.batch.events import Events, Fields
from streams.batch.refs import byte_values
from streams.batch.replayed import is_replayed
from streams.growth.home import Home
from streams.limits import JOURNAL_RECORD_BYTES_MAX
from streams.operators.base import ALL, Operator, OperatorContext, Replayed, RestoreBudget, Spill
from streams.operators.changes import Changes
from streams.operators.keyed import ChangedKeys
from streams.operators.merge.section import HELD, INPUT, Union, as_held, held_fields, merged_fields
from streams.operators.output import Output, RefusedEvents
from streams.operators.refused import accepted
from streams.operators.reorder.held import Held, held_in_store
from streams.operators.reorder.journalled import HeldInJournal
from streams.operators.reorder.section import pack_held
from streams.operators.spec import OperatorSpec, named_for
from streams.operators.trace import WatermarkTrace, complete_below
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

NAME: Final = "merge"
MERGED: Final = "clean"
"""Outcome of merged events: unique and in order."""


@dataclass(frozen=True)
class Merge(OperatorSpec):
    """Declaration: the events of `inputs`, name and fields of each, are merged.

    A field of a merged event is named after its input and its own name, `orders.kind`; those of other inputs are null.
    """

    passes_all: ClassVar[bool] = True
    inputs: tuple[tuple[str, Fields], ...]

    @property
    def name(self) -> str:
        """Name of the operator: `merge`."""
        return NAME

    def build(self, context: OperatorContext) -> "MergeOperator":
        """Create the operator of one partition, which holds nothing yet."""
        return MergeOperator(self, context)

    @property
    def fields(self) -> Fields:
        """Fields of merged events."""
        return merged_fields(self.inputs)

    def passes_on(self, given: Sequence[Fields]) -> Fields:
        """The fields of all inputs."""
        del given
        return self.fields

    @property
    def parts(self) -> Mapping[str, str]:
        """Pages of what waits for other inputs."""
        return {named_for(HELD, name): f"pages of {name} that wait for other inputs" for name, _ in self.inputs}


class _Waiting:
    """Events of one input that wait for others."""

    def __init__(self, name: str, fields: Fields, space: StoreSpace, home: Home) -> None:
        self.section = named_for(HELD, name)
        self.fields = held_fields(fields)
        self.space = space
        self.held = Held(self.fields, space, home.kept)
        self.journalled = HeldInJournal(self.held, self.fields)

    def due(self, events: Events, trace: WatermarkTrace, horizon: int, cycle: int) -> list[Events]:
        """Hold new events; take all that are due up to `horizon`."""
        if self.held.pages_due(horizon):
            for found in self.held.load_due_pages(horizon):
                self.held.add(found, 0)
        ripe = self.held.take_due(horizon)
        if len(events):
            new = as_held(events, np.maximum(events.event_time, trace.prior))
            is_due = new.event_time <= horizon
            if is_due.any():
                ripe.append(new.take(is_due))
            self.held.add(new, cycle, (~is_due).nonzero()[0])
        return ripe


class MergeOperator(Operator):
    """Holds events above the smallest watermark of the inputs."""

    stage = "merge"

    def __init__(self, spec: Merge, context: OperatorContext) -> None:
        self._context, self._keys = context, context.keys
        self._waiting = [
            _Waiting(name, fields, context.space(named_for(HELD, name)), context.home) for name, fields in spec.inputs
        ]
        self._union = Union(spec.inputs)
        self._none = Events.none(spec.fields)
        self._horizon = TIME_MIN
        """Events that were due up to here have been passed on."""
        self._cycle = 1
        """Cycles counted since the restore: tells events of the open cycle from others."""
        self._has_moved = False

    def merge(self, given: Sequence[Output]) -> Output:
        """Hold events until the other inputs have caught up; pass on, in order, those that are due in all of them."""
        start, horizon = self._horizon, complete_below(min(one.trace.end for one in given))
        self._horizon = horizon = max(start, horizon)
        found: list[Events] = []
        dues: list[Int64] = []
        refused: list[RefusedEvents] = []
        replayed: list[Headers] = []
        for number, (waiting, one) in enumerate(zip(self._waiting, given, strict=True)):
            if one.events.headers is not None:
                replayed += [headers for headers in one.events.headers if is_replayed(headers)]
            for held in waiting.due(one.events, one.trace, horizon, self._cycle):
                part = self._accepted(held, number, refused)
                if len(part):
                    dues.append(part.event_time)
                    found.append(self._union.of(number, part))
        dropped_replayed = {MERGED: replayed} if replayed else {}
        if not found:
            self._has_moved |= bool(refused)
            idle = WatermarkTrace.idle(start, horizon)
            return Output(self._none, idle, dropped_replayed=dropped_replayed, refused=refused)
        self._has_moved = True
        events, due = Events.concat(found), np.concatenate(dues)
        order = _in_order(events, due)
        events, due = events.take(order), due[order]
        events = events.with_slots(self._keys.slots(events.key))
        return Output(events, _trace(start, due, horizon), (), {MERGED: len(events)}, dropped_replayed, refused=refused)

    def _accepted(self, held: Events, number: int, refused: list[RefusedEvents]) -> Events:
        """Events that no output has refused; the others become dead letters."""
        refusals = self._context.refusals()
        if not refusals or not len(held):
            return held
        found: list[RefusedEvents] = []
        good = accepted(held, refusals, found, were_held=True)
        refused += [RefusedEvents(one.events, one.messages, number) for one in found]
        return held.take(good)

    def next_timer(self) -> int:
        """When the first of what is held is due."""
        return min(one.held.event_time_min() for one in self._waiting)

    # --- the commit cycle -------------------------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Whether nothing was passed on since the last cycle."""
        return not self._has_moved

    def changes(self, changed: ChangedKeys) -> Changes:
        """Events that came in this cycle and are still held."""
        del changed
        cycle, self._cycle = self._cycle, self._cycle + 1
        self._has_moved = False
        came = [(one.section, one.held.came_in(cycle)) for one in self._waiting]
        return Changes(
            sections={name: pack_held(held, bytes_max=JOURNAL_RECORD_BYTES_MAX) for name, held in came},
            event_time_max=max((int(held.event_time.max()) for _, held in came if len(held)), default=TIME_MIN),
        )

    # --- restore ----------------------------------------------------------------------------------------------------

    def replay(self, record: Replayed, budget: RestoreBudget) -> int:
        """Hold the events of a cycle's record that are not due yet."""
        rows = 0
        for one in self._waiting:
            if (section := record.sections.get(one.section)) is not None:
                rows += one.journalled.add(section, record.watermark, budget.bytes_max // len(self._waiting))
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
        self._horizon = watermark
        for one in self._waiting:
            events = one.journalled.rest(watermark)
            if events is not None:
                kept = self._context.home.kept(byte_values(events.key))
                one.held.add(events if kept is None else events.take(kept), 0)
            one.held.restore_pages(watermark)

    def holds(self, key: bytes, watermark: int) -> bool:
        """Whether events of the key wait for other inputs."""
        del watermark
        return any(one.held.has_key(key, self._horizon) for one in self._waiting)

    def snapshot(self, watermark: int, marks: Mapping[str, int]) -> Changes:
        """What the store holds."""
        del marks
        kept = self._context.home.kept
        found = [(one.section, held_in_store(one.space, one.fields, watermark, kept)) for one in self._waiting]
        return Changes(
            sections={
                name: [] if held is None else pack_held(held, bytes_max=JOURNAL_RECORD_BYTES_MAX)
                for name, held in found
            },
            event_time_max=max((int(held.event_time.max()) for _, held in found if held is not None), default=TIME_MIN),
        )

    # --- between cycles ---------------------------------------------------------------------------------------------

    def spill(self, goal: Spill, watermark: int, batch: WriteBatch) -> int:
        """Move all but the events that are due first into pages; the journal is needed for what stays in memory."""
        for one in self._waiting:
            one.held.make_room(goal, watermark, batch, among=len(self._waiting))
        return self._durable_below(watermark)

    def expire(self, watermark: int, batch: WriteBatch) -> int:
        """Do nothing: no event is too old."""
        del batch
        return self._durable_below(watermark)

    def keys_moved(self) -> None:
        """Hold events of kept keys only."""
        for one in self._waiting:
            one.held.drop_moved()

    def _durable_below(self, watermark: int) -> int:
        return watermark if any(len(one.held) for one in self._waiting) else ALL

    @property
    def bytes_used(self) -> int:
        """Memory of held events."""
        return sum(one.held.bytes_used for one in self._waiting)

    @property
    def cycle_bytes(self) -> int:
        """Bytes of events to be journalled."""
        return sum(one.held.bytes_since(self._cycle) for one in self._waiting)

    def in_memory(self) -> Mapping[str, int]:
        """Number of held events."""
        return {"merging": sum(len(one.held) for one in self._waiting)}


def _trace(start: int, due: Int64, horizon: int) -> WatermarkTrace:
    """Watermark of merged events: just before each of them, exactly the events due before it are known.

    So it does not depend on the cut into micro-batches or on the inputs' watermarks.
    """
    course = np.append(np.repeat(due - 1, 2), horizon)
    return WatermarkTrace(start, course, 2 * np.arange(len(due)) + 1)


def _in_order(events: Events, due: Int64) -> Int64:
    """Rows by (due, event time, sequence, id, input)."""
    number = events.number(INPUT)
    order: Int64 = np.lexsort((number, events.sequence, events.event_time, due))
    columns = (due[order], events.event_time[order], events.sequence[order])
    tied = np.ones(max(0, len(order) - 1), dtype=np.bool_)
    for column in columns:
        tied &= column[1:] == column[:-1]
    if not tied.any():
        return order
    is_tied, groups = np.zeros(len(order), dtype=np.bool_), np.zeros(len(order), dtype=np.int64)
    is_tied[:-1], groups[1:] = tied, np.cumsum(~tied)
    is_tied[1:] |= tied
    places = is_tied.nonzero()[0]
    group = groups[places].tolist()
    ids = events.event_id.take(order[places])
    members = zip(group, ids.tolist(), number[order[places]].tolist(), order[places].tolist(), strict=True)
    order[places] = [row for *_, row in sorted(members)]
    return order
