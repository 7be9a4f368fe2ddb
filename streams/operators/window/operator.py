"""Windows of all kinds as an operator: the newest window of each key is a keyed row; closed ones go to a topic.

A window closes when an event of its key falls into a later one, or by the watermark. Open windows of keys that are not
in memory are remembered in the store by the watermark that closes them, so that they close without an event.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, Final, Self

import numpy as np
import pyarrow as pa

from streams.batch.columns import Int64, Objects
from streams.batch.events import Events
from streams.batch.rows import RowLayout, Rows, concat_rows, put_rows
from streams.operators.base import Operator, OperatorContext
from streams.operators.changes import CarriedRows, Changes, RowRecords
from streams.operators.fold.aggregate import WindowAggregate
from streams.operators.keyed import ChangedKeys
from streams.operators.output import Output
from streams.operators.spec import KeyedState, OperatorSpec
from streams.operators.timed import TimedRows
from streams.operators.trace import WatermarkTrace
from streams.operators.window.runs import NEVER, Closed, WindowFamily, close
from streams.state.identity import Consequences, SettingsByName

GRACE_MS: Final = "grace_ms"


def window_name(topic: str) -> str:
    """Name of the windows whose rows go to `topic`."""
    return f"window.{topic}"


def open_window_name(topic: str) -> str:
    """Name of the store's part for open windows that are not in memory."""
    return f"{window_name(topic)}.open"


class WindowSpec(OperatorSpec):
    """What the declarations of all kinds of windows have in common."""

    passes_all: ClassVar[bool] = True
    topic: str
    aggregate: WindowAggregate

    @property
    def label(self) -> str:
        """Name of these windows where their rows are kept: the topic, where that has no other ones."""
        return self.topic

    @property
    def name(self) -> str:
        """Name derived from the topic."""
        return window_name(self.label)

    def build(self, context: OperatorContext) -> "WindowOperator":
        """Create the operator of one partition, without windows."""
        return WindowOperator(self, context)

    @cached_property
    def windows(self) -> WindowFamily:
        """The implementation that folds and closes these windows."""
        raise NotImplementedError

    @cached_property
    def keyed(self) -> Sequence[KeyedState]:
        """The newest window of each key."""
        meanings = getattr(self.aggregate, "meanings", None) or {}
        columns = RowLayout.of(self.windows.dtype).columns
        layout = RowLayout(tuple(replace(one, meaning=meanings.get(_column_of(one.path), "")) for one in columns))
        return (KeyedState(self.label, self.name, self.windows.empty(1), layout),)

    def table(self, keys: Objects, rows: Rows) -> pa.RecordBatch:
        """Public rows of closed windows."""
        raise NotImplementedError

    def with_grace(self, settings: SettingsByName, grace_ms: int) -> Consequences:
        """What changed `settings` mean for windows whose grace alone may differ."""
        before_ms = settings[self.label].get(GRACE_MS, grace_ms)
        if before_ms == grace_ms:
            return Consequences()
        text = (
            f"the grace of windows of {self.topic} is {grace_ms} ms now (was {before_ms} ms): it counts for "
            "windows that open from now on, open ones close as before"
        )
        return Consequences(migrated=(text,))


def _column_of(path: str) -> str:
    """Name of the aggregate's column that a stored column is, or is a part of; empty where it is none of it."""
    return path.removeprefix("state.").partition(".")[0] if path.startswith("state.") else ""


class WindowOperator(Operator):
    """Opens, folds and closes windows."""

    stage = "windows"
    takes_references = True

    def __init__(self, spec: WindowSpec, context: OperatorContext) -> None:
        self.spec, self.keys = spec, context.keys
        (state,) = spec.keyed
        waiting = context.space(open_window_name(spec.label))
        self.rows = context.keys.attach(TimedRows(state.empty, context.space(state.part), waiting, context.home))
        self._digest = state.digest
        self._closed: list[tuple[Objects, Rows]] = []

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Fold the events and pass them on; close what the watermark has passed then."""
        [found] = self.process_all([self], [Output(events, trace)])
        return found

    @classmethod
    def process_all(cls, operators: Sequence[Self], given: Sequence[Output]) -> list[Output]:
        """Fold the events of all partitions at once, then close in each what its watermark has passed."""
        found = [Output(one.keys.located(it.events), it.trace) for one, it in zip(operators, given, strict=True)]
        busy = [at for at, one in enumerate(found) if len(one.events)]
        if busy:
            some = [operators[at] for at in busy]
            released = some[0].keys.segments_of_all(
                [one.keys for one in some], [(found[at].events, found[at].trace) for at in busy]
            )
            before = concat_rows([one.rows.of(part.slot) for one, part in zip(some, released.parts, strict=True)])
            after, closed = some[0].spec.windows.fold(before, released.segments)
            at_closed = np.searchsorted(closed.owner, released.bounds).tolist()
            for number, (one, part) in enumerate(zip(some, released.parts, strict=True)):
                first, end = released.bounds[number], released.bounds[number + 1]
                mine = slice(at_closed[number], at_closed[number + 1])
                one.folded(part.slot, after[first:end], Closed(closed.owner[mine] - first, closed.rows[mine]))
        for one, it in zip(operators, given, strict=True):
            one.close(it.trace.end)
        return found

    def folded(self, slots: Int64, after: Rows, closed: Closed) -> None:
        """Store the rows of keys after their events, and the windows that closed."""
        rows = self.rows
        put_rows(rows.rows, slots, after)
        self._note_closed(slots[closed.owner], closed)
        rows.due_min = min(rows.due_min, int(after["close_at"].min()))
        self.keys.touch(slots)

    def close(self, watermark: int) -> None:
        """Close windows that the watermark has passed.

        All that are in memory, and in each cycle a bounded number of those that are in the store only; `next_timer`
        says whether there are more. When a window is closed changes nothing about its rows.
        """
        rows = self.rows
        rows.load_waiting(watermark, self.keys)
        if rows.due_min > watermark:
            return
        known = rows.rows[: len(self.keys)]
        closed = close(known, watermark)
        rows.due_min = int(known["close_at"].min(initial=NEVER))
        self._note_closed(closed.owner, closed)
        self.keys.touch(closed.owner)

    def next_timer(self) -> int:
        """Watermark that closes the next window."""
        return self.rows.next_timer()

    def is_overdue(self, watermark: int) -> bool:
        """Whether `close` has left some for the next cycle."""
        return self.rows.waits_at <= watermark

    def _note_closed(self, slots: Int64, closed: Closed) -> None:
        if len(closed):
            self._closed.append((self.keys.keys_at(slots), closed.rows))

    # --- the commit cycle -------------------------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Whether no windows were loaded or closed since the last cycle."""
        return not self.rows.has_loaded and not self._closed

    def changes(self, changed: ChangedKeys) -> Changes:
        """Closed windows for the topic; the newest of changed keys for the store and the rows of tables."""
        found, spec = Changes(), self.spec
        rows = self.rows.of(changed.slots)
        self.rows.write(changed, rows, found.store)
        self.rows.delete_loaded(found.store)
        found.carried = CarriedRows(self._digest, rows)
        found.rows = [RowRecords(spec.topic, keys, closed, spec.table) for keys, closed in self._closed]
        self._closed = []
        return found

    def rows_restored(self) -> None:
        """Find the windows that are open in the store: the watermark may close them without an event."""
        self.rows.find_open()
