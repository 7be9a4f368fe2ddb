"""Decoded events, columnar: one array per attribute, all of one length, in log order unless said otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from streams.batch.columns import Bools, Float64, Int64, Objects, UInt64, object_rows, objects
from streams.batch.refs import ByteColumn, byte_objects, compact, concat_bytes


class FieldUnknown(KeyError):
    """Events do not carry the field that was asked for: its name is the first argument."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name)
        self._name, self._known = name, tuple(known)

    def __str__(self) -> str:
        return f"no field {self._name!r}: there is {', '.join(self._known) or 'none'}"


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the fields that events carry beyond id, key, time and sequence, in the order of their columns."""

    payload: tuple[str, ...] = ()
    """Numeric fields."""
    texts: tuple[str, ...] = ()


NO_FIELDS: Final = Fields()


class FieldColumns:
    """Access by name to columns of fields: a base of frozen dataclasses that declare these three."""

    __slots__ = ()

    payload: Float64
    """Shape (fields, events): the numeric fields; null is NaN."""
    texts: Objects
    """Shape (fields, events): the text fields, UTF-8 bytes or None."""
    fields: Fields
    """Names of the rows of `payload` and `texts`."""

    def number(self, name: str) -> Float64:
        """The numeric field `name` of each event; null is NaN.

        Raises:
            FieldUnknown: there is no such field.

        """
        column: Float64 = self.payload[_position(self.fields.payload, name)]
        return column

    def text(self, name: str) -> Objects:
        """The text field `name` of each event, UTF-8 bytes or None.

        Raises:
            FieldUnknown: there is no such field.

        """
        column: Objects = self.texts[_position(self.fields.texts, name)]
        return column


def _position(names: tuple[str, ...], name: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        raise FieldUnknown(name, names) from None


@dataclass(frozen=True, slots=True)
class Events(FieldColumns):
    """Decoded events, with the record each came in: what dedup, reorder and aggregate work on."""

    row: Int64
    """Position in the micro-batch; meaningless once events of several batches are mixed."""
    timestamp_ms: Int64
    event_time: Int64
    """Milliseconds since the epoch."""
    sequence: Int64
    event_id: ByteColumn
    """UTF-8 bytes."""
    id_hi: UInt64
    id_lo: UInt64
    id_word: UInt64
    """With `id_hi` and `id_lo` the identity of (event_id, event_time) in 24 bytes: see `operators.identity`."""
    key: ByteColumn
    value: ByteColumn
    """Original bytes."""
    headers: Objects | None
    payload: Float64
    """Shape (fields, events): the numeric fields that `fields` names; null is NaN. Read one by `number`."""
    texts: Objects
    """Shape (fields, events): the text fields that `fields` names, UTF-8 bytes or None. Read one by `text`."""
    slot: Int64
    """Position of the key in its partition's key space; -1 before it is looked up."""
    fields: Fields = NO_FIELDS

    def __len__(self) -> int:
        return len(self.event_time)

    @staticmethod
    def none(fields: Fields) -> "Events":
        """No events, with the columns of `fields`."""
        number, word, nothing = np.empty(0, np.int64), np.empty(0, np.uint64), objects([])
        return Events(
            row=number,
            timestamp_ms=number,
            event_time=number,
            sequence=number,
            event_id=nothing,
            id_hi=word,
            id_lo=word,
            id_word=word,
            key=nothing,
            value=nothing,
            headers=None,
            payload=np.empty((len(fields.payload), 0)),
            texts=object_rows([nothing] * len(fields.texts), 0),
            slot=number,
            fields=fields,
        )

    def take(self, rows: Int64 | Bools | slice) -> "Events":
        """Events at `rows` (indices, mask or slice), in that order.

        Those of a slice, or of a mask that leaves none out, share memory with these.
        """
        # Written out column by column: with few events in each of many partitions this dominates the cost.
        if isinstance(rows, slice):
            return Events(
                self.row[rows],
                self.timestamp_ms[rows],
                self.event_time[rows],
                self.sequence[rows],
                self.event_id[rows],
                self.id_hi[rows],
                self.id_lo[rows],
                self.id_word[rows],
                self.key[rows],
                self.value[rows],
                None if self.headers is None else self.headers[rows],
                self.payload[:, rows],
                self.texts[:, rows],
                self.slot[rows],
                self.fields,
            )
        index: Any = rows
        if rows.dtype == np.bool_:  # the mask is evaluated once for all columns
            index = rows.nonzero()[0]
            if len(index) == len(rows):
                return self
        # `take` is twice as fast as indexing.
        return Events(
            self.row.take(index),
            self.timestamp_ms.take(index),
            self.event_time.take(index),
            self.sequence.take(index),
            self.event_id.take(index),
            self.id_hi.take(index),
            self.id_lo.take(index),
            self.id_word.take(index),
            self.key.take(index),
            self.value.take(index),
            None if self.headers is None else self.headers.take(index),
            self.payload.take(index, axis=1),
            self.texts.take(index, axis=1),
            self.slot.take(index),
            self.fields,
        )

    def with_slots(self, slots: Int64) -> "Events":
        """The same events with other slots."""
        return self._with(self.row, self.event_id, self.key, self.value, slots)

    def with_objects(self) -> "Events":
        """The same events with id, key and value as object arrays of bytes objects."""
        if all(isinstance(column, np.ndarray) for column in (self.event_id, self.key, self.value)):
            return self
        event_id, key, value = map(byte_objects, (self.event_id, self.key, self.value))
        return self._with(self.row, event_id, key, value, self.slot)

    def compact(self) -> "Events":
        """A copy without other events' bytes, for events that are held longer than their batch."""
        if all(isinstance(column, np.ndarray) for column in (self.event_id, self.key, self.value)):
            return self
        event_id, key, value = map(compact, (self.event_id, self.key, self.value))
        return self._with(self.row, event_id, key, value, self.slot)

    def with_rows(self, rows: Int64) -> "Events":
        """The same events at other rows of the micro-batch."""
        return self._with(rows, self.event_id, self.key, self.value, self.slot)

    def _with(self, row: Int64, event_id: ByteColumn, key: ByteColumn, value: ByteColumn, slot: Int64) -> "Events":
        # Written out, since `dataclasses.replace` takes as long as all other work on a partition's few events.
        return Events(
            row,
            self.timestamp_ms,
            self.event_time,
            self.sequence,
            event_id,
            self.id_hi,
            self.id_lo,
            self.id_word,
            key,
            value,
            self.headers,
            self.payload,
            self.texts,
            slot,
            self.fields,
        )

    @staticmethod
    def concat(parts: Sequence["Events"]) -> "Events":
        """The events of `parts`, one after the other (at least one part; all of the same fields)."""
        if len(parts) == 1:
            return parts[0]
        headers: Objects | None = None
        if any(part.headers is not None for part in parts):
            headers = np.concatenate(
                [part.headers if part.headers is not None else objects([None] * len(part)) for part in parts]
            )
        columns: dict[str, Any] = {"headers": headers, "fields": parts[0].fields}
        for name in _COLUMNS:
            if name in _BYTES:
                columns[name] = concat_bytes([getattr(part, name) for part in parts])
            elif name != "headers":
                columns[name] = np.concatenate([getattr(part, name) for part in parts], axis=-1)
        return Events(**columns)


_BYTES: Final = frozenset({"event_id", "key", "value"})
_COLUMNS: Final = tuple(column.name for column in fields(Events) if column.name != "fields")
