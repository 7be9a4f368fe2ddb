"""Windows of all kinds as an operator: the newest window of each key is a keyed row; closed ones go to a topic.

A window closes when an event of its key falls into a later one, or by the watermark. Open windows of keys that are not
in memory are remembered in the store by the watermark that closes them, so that they close without an event.
"""

import itertools
import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, Final, Self

import numpy as np
import pyarrow as pa

from streams.batch.columns import Int64, Objects, objects
from streams.batch.events import Events
from streams.batch.rows import RowLayout, Rows, concat_rows, put_rows, unpack_rows
from streams.growth.home import Home
from streams.operators.base import Operator, OperatorContext
from streams.operators.changes import CarriedRows, Changes, RowRecords
from streams.operators.fold.aggregate import WindowAggregate
from streams.operators.keyed import ChangedKeys, StoredRows
from streams.operators.output import Output
from streams.operators.spec import KeyedState, OperatorSpec
from streams.operators.trace import WatermarkTrace
from streams.operators.window.runs import NEVER, Closed, WindowFamily, close
from streams.state.identity import Consequences, SettingsByName
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

_SCAN_ROWS: Final = 4_096
"""Rows of windows that are looked at together when open ones are looked for."""
_LOADED_MAX: Final = 10_000
"""Keys that are loaded from the store at once because the watermark has passed the ends of their windows."""
_CLOSE_AT: Final = struct.Struct(">q")
GRACE_MS: Final = "grace_ms"


def window_name(topic: str) -> str:
    """Name of the windows whose rows go to `topic`."""
    return f"window.{topic}"


def open_window_name(topic: str) -> str:
    """Name of the part of the store that remembers open windows that are not in memory."""
    return f"{window_name(topic)}.open"


class WindowSpec(OperatorSpec):
    """What the declarations of all kinds of windows have in common."""

    passes_all: ClassVar[bool] = True
    topic: str
    aggregate: WindowAggregate

    @property
    def label(self) -> str:
        """Stands for these windows where their rows are kept: the topic, where that has no other ones."""
        return self.topic

    @property
    def name(self) -> str:
        """By the topic."""
        return window_name(self.label)

    def build(self, context: OperatorContext) -> "WindowOperator":
        """An operator without windows."""
        return WindowOperator(self, context)

    @cached_property
    def windows(self) -> WindowFamily:
        """What folds and closes."""
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
        """What follows when windows were declared with other `settings` whose grace alone may differ."""
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
        self.rows = context.keys.attach(_WindowRows(state.empty, context.space(state.part), waiting, context.home))
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
        """Take the rows of keys after their events, and what closed on the way."""
        rows = self.rows
        put_rows(rows.rows, slots, after)
        self._note_closed(slots[closed.owner], closed)
        rows.close_at_min = min(rows.close_at_min, int(after["close_at"].min()))
        self.keys.touch(slots)

    def close(self, watermark: int) -> None:
        """Close windows that the watermark has passed.

        All that are in memory, and in each cycle `_LOADED_MAX` of those that are in the store only; `next_timer` says
        whether there are more. When a window is closed changes nothing about its rows.
        """
        rows = self.rows
        if rows.waits_at <= watermark and not rows.has_loaded:
            waiting = rows.take_waiting(watermark)
            if waiting:
                self.keys.slots(objects(waiting))
        if rows.close_at_min > watermark:
            return
        known = rows.rows[: len(self.keys)]
        closed = close(known, watermark)
        rows.close_at_min = int(known["close_at"].min(initial=NEVER))
        self._note_closed(closed.owner, closed)
        self.keys.touch(closed.owner)

    def next_timer(self) -> int:
        """Watermark that closes the next window."""
        return min(self.rows.waits_at, int(self.rows.rows["close_at"].min(initial=NEVER)))

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


class _WindowRows(StoredRows):
    """The newest window of each key, and which of them are open in the store only."""

    def __init__(self, empty: Rows, space: StoreSpace, waiting: StoreSpace, home: Home) -> None:
        super().__init__(empty, space)
        self._waiting = waiting
        self._home = home
        self.close_at_min = NEVER
        """No window in memory closes below this watermark."""
        self.waits_at = NEVER
        """Least watermark that closes a window that is in the store only."""
        self._upto = b""
        """Where in the store those begin that were not loaded again yet."""
        self.has_loaded = False
        """Whether some were loaded since the last cycle: what is before `_upto` can be deleted."""

    def load(self, first: int, keys: list[bytes]) -> None:
        """Take rows from the store."""
        super().load(first, keys)
        loaded = int(self.rows["close_at"][first : first + len(keys)].min())
        self.close_at_min = min(self.close_at_min, loaded)

    def forget(self, keys: Objects, batch: WriteBatch) -> None:
        """Drop all rows; `batch` remembers which of them have open windows."""
        slots = (self.rows["close_at"] != NEVER).nonzero()[0]
        self._let_wait(keys[slots].tolist(), self.rows["close_at"][slots], batch)
        super().forget(keys, batch)
        self.close_at_min = NEVER

    def find_open(self) -> None:
        """Remember the open windows of the store; reads all rows, a bounded number at a time."""
        batch = WriteBatch()
        self._waiting.clear(batch)
        self._space.write(batch)
        self.waits_at = NEVER
        rows = self._space.scan()
        while some := list(itertools.islice(rows, _SCAN_ROWS)):
            close_at = unpack_rows(self.rows.dtype, [row for _, row in some])["close_at"]
            is_open = (close_at != NEVER).nonzero()[0]
            if (kept := self._home.kept([some[row][0] for row in is_open])) is not None:
                is_open = is_open[kept]
            batch = WriteBatch()
            self._let_wait([some[row][0] for row in is_open], close_at[is_open], batch)
            self._space.write(batch)

    def _let_wait(self, keys: Iterable[bytes], close_at: Int64, batch: WriteBatch) -> None:
        """Have `batch` remember open windows of keys that will not be in memory."""
        self._upto = b""  # what was loaded before is deleted by now, and these may close earlier than it did
        pairs = zip(keys, close_at.tolist(), strict=True)
        self._waiting.put(batch, [(_CLOSE_AT.pack(at) + key, b"") for key, at in pairs])
        self.waits_at = min(self.waits_at, int(close_at.min(initial=NEVER)))

    def take_waiting(self, watermark: int) -> list[bytes]:
        """Keys whose windows were remembered in the store and are passed by the watermark, in their order.

        What is remembered may be no longer so: the key's window was loaded and closed meanwhile. That does no harm.
        """
        end = _CLOSE_AT.pack(watermark + 1)
        keys: list[bytes] = []
        self.waits_at, upto = NEVER, end
        for row, _ in self._waiting.scan():
            if row < self._upto:
                continue  # loaded before, and not yet deleted
            if row >= end or len(keys) == _LOADED_MAX:
                self.waits_at = _CLOSE_AT.unpack_from(row)[0]
                upto = row
                break
            keys.append(row[_CLOSE_AT.size :])
        self._upto, self.has_loaded = min(upto, end), True
        kept = self._home.kept(keys)
        return keys if kept is None else list(itertools.compress(keys, kept.tolist()))

    def delete_loaded(self, batch: WriteBatch) -> None:
        """Have `batch` delete what says nothing any more."""
        if self.has_loaded:
            self._waiting.delete_range(batch, b"", self._upto)
        self.has_loaded = False
