"""The two sides of a join, and the rows that come of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa

from streams.batch.columns import TIME_MIN, Bools, Int64, Objects, has_text
from streams.batch.events import Events, Fields
from streams.batch.refs import byte_objects
from streams.batch.rows import Rows, empty_rows
from streams.operators.changes import RowRecords, ToColumns
from streams.operators.join.packed import memory_of
from streams.operators.spec import OperatorSpec, OutputTopic

LEFT, RIGHT = 0, 1
"""Numbers of the merged inputs."""
MATCHED: Final = "matched"
"""Column of joined rows: whether there is a right event."""
UNMATCHED: Final = "unmatched"
"""What left events are counted as that have no right one and are not written."""
EVENT_ID: Final = "event_id"
SEQUENCE: Final = "sequence"


@dataclass(frozen=True)
class Side:
    """An input of a join: its name, and the fields of its events."""

    name: str
    fields: Fields
    key_field: str = ""
    """One of the texts: an event in which it is null may have no key of the join. Empty: all have one."""
    own_key_field: str = ""
    """The text that is the key of such an event instead. It matches nothing.

    One in which the text was not read yet, since it was held by an earlier version of the flow, has another key.
    """

    def columns(self) -> list[tuple[str, str]]:
        """Columns of joined rows for its fields: numbers, NaN for null; texts as bytes or None."""
        numbers = [(f"{self.name}.{field}", "<f8") for field in self.fields.payload]
        return [*numbers, *((f"{self.name}.{field}", "O") for field in self.fields.texts)]

    @property
    def time(self) -> str:
        """Name of the column with the event's time, of the right side."""
        return f"{self.name}.event_time"

    @property
    def id(self) -> str:
        """Name of the column with the event's id, of the right side of pairs."""
        return f"{self.name}.event_id"

    def has_key(self, events: Events, of: Int64) -> Bools:
        """Which of its events at `of` have a key of the join."""
        if not self.key_field:
            return np.ones(len(of), dtype=np.bool_)
        texts = (events.text(f"{self.name}.{name}")[of] for name in (self.key_field, self.own_key_field))
        return _has_key(byte_objects(events.key.take(of)), *texts)

    def keys_of_join(self, keys: Objects, rows: Rows) -> Objects:
        """Keys of joined rows, empty for those whose left event has no key of the join."""
        if not self.key_field:
            return keys
        texts = (rows[f"{self.name}.{name}"] for name in (self.key_field, self.own_key_field))
        return np.where(_has_key(keys, *texts), keys, b"")


@dataclass(frozen=True, kw_only=True)
class JoinSpec(OperatorSpec):
    """Declaration of a join of `left`, the first merged input, with `right`, the second: rows of `topic`.

    `columns` makes public rows of the keys and joined rows, whose columns `row_dtype` names. With `outer`, left events
    without a right one have a row too; else they are counted as `unmatched`.
    """

    passes_all: ClassVar[bool] = True
    topic: str
    left: Side
    right: Side
    columns: ToColumns
    outer: bool = False
    subject: str = ""

    @property
    def name(self) -> str:
        """Name of the operator, derived from the topic."""
        return f"join.{self.topic}"

    @property
    def forgotten_part(self) -> str:
        """Name of the part of the journal that has keys which were forgotten."""
        return f"{self.name}.forgotten"

    @cached_property
    def row_dtype(self) -> np.dtype[Any]:
        """Columns of joined rows: of the left event and its fields, whether there is a right one, and of that."""
        own = [(EVENT_ID, "O"), ("event_time", "<i8"), (SEQUENCE, "<i8")]
        return np.dtype([*own, *self.left.columns(), (MATCHED, "?"), *self.right_columns()])

    def right_columns(self) -> list[tuple[str, str]]:
        """Columns of joined rows that tell of the right event."""
        return [(self.right.time, "<i8"), *self.right.columns()]

    @property
    def outputs(self) -> Sequence[OutputTopic]:
        """The topic of joined rows."""
        return (OutputTopic(self.topic, self.columns, unmatched_rows(self, 1), self.subject),)


@dataclass(slots=True)
class JoinedRows:
    """Rows of a cycle for the topic of a join."""

    spec: JoinSpec
    bytes_used: int = 0
    """Approximate memory."""
    _parts: list[tuple[Objects, Rows]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, keys: Objects, rows: Rows) -> None:
        """Rows of keys, in the order in which they are written."""
        if len(rows):
            self._parts.append((keys, rows))
            self.bytes_used += memory_of(rows)

    def take(self) -> list[RowRecords]:
        """All rows, for the end of the cycle."""
        parts, self._parts, self.bytes_used = self._parts, [], 0
        return [RowRecords(self.spec.topic, keys, rows, self._public_rows) for keys, rows in parts]

    def _public_rows(self, keys: Objects, rows: Rows) -> pa.RecordBatch:
        """Public rows; the key of an event that has none of the join is empty there."""
        return self.spec.columns(self.spec.left.keys_of_join(keys, rows), rows)


def _has_key(keys: Objects, text: Objects, own: Objects) -> Bools:
    has: Bools = has_text(text) | (keys != own)
    return has


def left_rows(spec: JoinSpec, events: Events, left: Int64) -> Rows:
    """Joined rows of the events at `left`, each without a right event."""
    rows = unmatched_rows(spec, len(left))
    rows[EVENT_ID], rows["event_time"] = byte_objects(events.event_id.take(left)), events.event_time[left]
    rows[SEQUENCE] = events.sequence[left]
    set_fields(rows, spec.left, events, left)
    return rows


def unmatched_rows(spec: JoinSpec, count: int) -> Rows:
    """Joined rows in which nothing is known of a right event."""
    rows = empty_rows(spec.row_dtype, count)
    for name, _ in spec.right_columns():
        rows[name] = null_of(spec.row_dtype[name])
    return rows


def set_fields(rows: Rows, side: Side, events: Events, of: Int64) -> None:
    """Set the columns of a side's fields from its events at `of`."""
    for name in side.fields.payload:
        rows[f"{side.name}.{name}"] = events.number(f"{side.name}.{name}")[of]
    for name in side.fields.texts:
        rows[f"{side.name}.{name}"] = events.text(f"{side.name}.{name}")[of]


def null_of(kind: np.dtype[Any]) -> Any:
    """What stands for a value that is missing: None, NaN, the earliest time."""
    if kind.hasobject:
        return None
    return np.nan if kind.kind == "f" else TIME_MIN
