"""What a flow's folds make of the events of one key, one key at a time.

The fold of a table may name a second opinion (`reference`), which is plain Python; then rows are computed by that. Any
other fold is the user's code and is applied as it is: what is checked is that it was given each clean event once, in
order, and that its rows were kept and published. The engine folds the events of all keys of a batch at once, and goes
on from state that it has stored; here the events of one key are folded from nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from streams.batch.columns import Objects
from streams.batch.events import Fields
from streams.batch.rows import Rows, empty_rows
from streams.operators.fold.aggregate import Aggregate, Segments, WindowAggregate
from streams.reconcile.differences import Column, differing
from streams.reconcile.model.events import Event
from streams.reconcile.model.events import Fields as SourceFields
from streams.reconcile.model.reference import NamedEvent, ReferenceFold, Symbols

Row = Mapping[str, Any]

_NO_TIMES: Final = np.empty(0, dtype=np.int64)


class TableFold:
    """The rows of a table's fold: of its second opinion, where it names one."""

    def __init__(self, aggregate: Aggregate, fields: Fields, names: SourceFields, symbols: Symbols) -> None:
        self._aggregate, self._fields = aggregate, fields
        self._names, self._symbols = names, symbols
        self._reference: Callable[[str], ReferenceFold] | None = getattr(aggregate, "reference", None)
        self._slack: Mapping[str, tuple[float, float]] = getattr(self._reference, "slack", {})

    def differing(self, expected: Row, row: Row) -> tuple[Column, ...]:
        """Columns that differ."""
        return differing(expected, row, self._slack)

    def row(self, key: bytes, events: Sequence[Event]) -> Row:
        """The row after `events` (at least one)."""
        if self._reference is not None:
            return self._referred(self._reference, key, events)[-1]
        state = self._aggregate.fold(empty_rows(self._aggregate.dtype, 1), segment_of(events, self._fields))
        return public_row(self._aggregate.table(keys_of(key), state))

    def rows(self, key: bytes, events: Sequence[Event]) -> list[Row]:
        """The row after each of `events`."""
        if self._reference is not None:
            return self._referred(self._reference, key, events, each=True)
        state, found = empty_rows(self._aggregate.dtype, 1), list[Row]()
        for event in events:
            state = self._aggregate.fold(state, segment_of([event], self._fields))
            found.append(public_row(self._aggregate.table(keys_of(key), state)))
        return found

    def _referred(
        self, reference: Callable[[str], ReferenceFold], key: bytes, events: Sequence[Event], *, each: bool = False
    ) -> list[Row]:
        """By the second opinion: the row after each of `events`, or after all of them."""
        fold, found = reference(key.decode()), list[Row]()
        for event in events:
            fold.add(NamedEvent(event, self._names, self._symbols))
            if each or event is events[-1]:
                found.append(fold.row())
        return found


class WindowNames(NamedTuple):
    """Which columns of a window's rows say which window a row is of; None where no column does."""

    start: str | None
    revision: str | None


class WindowFold:
    """The rows of a window's fold."""

    def __init__(self, aggregate: WindowAggregate, fields: Fields) -> None:
        self._aggregate, self._fields = aggregate, fields
        self.names = self._names()

    def nothing(self) -> Rows:
        """State before any event."""
        return empty_rows(self._aggregate.dtype, 1)

    def carry(self, state: Rows) -> Rows:
        """State that the next row of a key begins with."""
        return self._aggregate.carry(state)

    def fold(self, state: Rows, events: Sequence[Event]) -> Rows:
        """State after `events` (at least one)."""
        return self._aggregate.fold(state, segment_of(events, self._fields))

    def row(self, key: bytes, start_ms: int, end_ms: int, revision: int, state: Rows) -> Row:
        """The public row."""
        start, end, number = (np.array([value], dtype=np.int64) for value in (start_ms, end_ms, revision))
        return public_row(self._aggregate.table(keys_of(key), start, end, number, state))

    def _names(self) -> WindowNames:
        """By rows of windows that differ in nothing but that."""
        one, other = (
            self.row(b"k", start_ms, 9_000_000, revision, self.nothing())
            for start_ms, revision in ((1_000_000, 3), (2_000_000, 4))
        )
        start = next((name for name in one if (one[name], other[name]) == (1_000_000, 2_000_000)), None)
        revision = next((name for name in one if (one[name], other[name]) == (3, 4)), None)
        return WindowNames(start, revision)


def segment_of(events: Sequence[Event], fields: Fields) -> Segments:
    """Events of one key, as folds get them."""
    count = len(events)
    payload = np.array(
        [[np.nan if number is None else number for number in event.numbers] for event in events], dtype=np.float64
    ).reshape(count, len(fields.payload))
    texts = np.empty((len(fields.texts), count), dtype=np.object_)
    for column, event in enumerate(events):
        for row, text in enumerate(event.texts):
            texts[row, column] = None if text is None else text.encode()
    return Segments(
        event_time=np.array([event.event_time_ms for event in events], dtype=np.int64),
        sequence=np.array([event.sequence for event in events], dtype=np.int64),
        payload=np.ascontiguousarray(payload.T),
        texts=texts,
        prior=_NO_TIMES,
        start=np.array([0], dtype=np.int64),
        end=np.array([count - 1], dtype=np.int64),
        fields=fields,
    )


def keys_of(key: bytes) -> Objects:
    """One key, as folds get it."""
    found: Objects = np.empty(1, dtype=np.object_)
    found[0] = key
    return found


def public_row(batch: pa.RecordBatch) -> Row:
    """The row of a batch of one, times in milliseconds."""
    return {name: _plain(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def _plain(column: pa.Array) -> Any:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms")).cast(pa.int64())
    return column[0].as_py()
