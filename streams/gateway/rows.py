"""Rows of a source to events, as ingest makes them of files, and what the flow's decoder would reject. Pure.

A row that does not convert keeps its own bytes as a dead letter; one that becomes an event which the decoder rejects is
the dead letter that a worker would have made of it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streams.avro.decode import Decoder
from streams.avro.framing import SchemaKey
from streams.avro.resolve import Plan, build_plan
from streams.batch.event_ids import EVENT_TIME_MAX
from streams.batch.records import Records
from streams.batch.rejects import Reason, Reject
from streams.flow.declaration import Pipeline
from streams.gateway.records import Rejection, Row
from streams.ingest.events import Encoder, Events, derived_ids
from streams.ingest.fields import ARROW, Field, Kind, convert, fields_of
from streams.schemas.catalog import SchemaVersion

_OPTION: Final = re.compile(r"[:;] [^:;]*--[a-z].*$", re.DOTALL)
"""The end of a reason that names an option of `streams ingest file`."""
_REAL: Final = frozenset({Kind.DOUBLE, Kind.FLOAT})


@dataclass(frozen=True, slots=True)
class Asked:
    """Rows of a request, and what an event that has no id, or no sequence, gets."""

    rows: Sequence[Row]
    first: int
    """Position of the first row in the request: sequences count on from it where rows have none."""
    ids: Sequence[str] | None = None
    """For rows without an id; None: derived from their values, as of rows of files."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of rows, each column of their length; key and value are empty where a row did not convert."""

    event_ids: list[str | None]
    times_ms: list[int]
    keys: list[bytes]
    values: list[bytes]
    rejections: dict[int, Rejection]
    """By position. A rejected row with a value is an event that the flow's decoder would reject."""

    def part(self, start: int, end: int) -> "Converted":
        """Rows from `start` to before `end`."""
        found = {row - start: why for row, why in self.rejections.items() if start <= row < end}
        rows = slice(start, end)
        return Converted(self.event_ids[rows], self.times_ms[rows], self.keys[rows], self.values[rows], found)


class RowReader:
    """Makes events of the rows of one source."""

    def __init__(self, pipeline: Pipeline, schema: SchemaVersion, schema_id: int, decoder: Decoder) -> None:
        """Read rows of a flow's source, with its fields of personal data; `decoder` is the one that the flow uses."""
        self.fields = fields_of(schema.parsed, pipeline.personal)
        self.names = frozenset(field.name for field in self.fields)
        self._pipeline = pipeline
        self._decoder = decoder
        self._encoder = Encoder(pipeline, schema, schema_id)
        self._known: dict[SchemaKey, Plan | Reject] = {schema_id: build_plan(schema_id, schema.text, schema.text)}

    def events(self, asked: Sequence[Asked], now_ms: int) -> Converted:
        """Convert the rows of requests, one after the other; `now_ms`: when they came in."""
        rows = [row for one in asked for row in one.rows]
        rejections: dict[int, Rejection] = {}
        columns = self._columns(rows, rejections)
        good = np.ones(len(rows), dtype=np.bool_)
        good[list(rejections)] = False
        places = np.flatnonzero(good)
        converted = Converted([None] * len(rows), [0] * len(rows), [b""] * len(rows), [b""] * len(rows), rejections)
        if not len(places):
            return converted
        if len(places) < len(rows):
            kept = pa.array(good)
            columns = {name: column.filter(kept) for name, column in columns.items()}
        events = self._completed(columns, asked, places)
        keys, values = self._encoder.encode(events)
        for place, event_id, time_ms, key, value in zip(
            places.tolist(),
            events.columns[self._pipeline.id_field].to_pylist(),
            events.columns[self._pipeline.time_field].to_pylist(),
            keys,
            values,
            strict=True,
        ):
            converted.event_ids[place], converted.times_ms[place] = event_id, time_ms
            converted.keys[place], converted.values[place] = key, value
        self._judge(converted, places.tolist(), now_ms)
        return converted

    def _columns(self, rows: Sequence[Row], rejections: dict[int, Rejection]) -> dict[str, pa.Array]:
        """Each field as a column (null where a row has none); notes the first reason against each row."""
        columns: dict[str, pa.Array] = {}
        for field in self.fields:
            values = [row.get(field.name) for row in rows]
            column, reasons = convert(values, field)
            for row, message in reasons.items():
                rejections.setdefault(row, Rejection(Reason.INVALID, _OPTION.sub("", message), _pointer(field.name)))
            for row in self._unusable(column, field):
                why = "is missing" if values[row] is None else "cannot be used"
                rejections.setdefault(row, Rejection(Reason.INVALID, f"{field.name} {why}", _pointer(field.name)))
            columns[field.name] = column
        return columns

    def _unusable(self, column: pa.Array, field: Field) -> Sequence[int]:
        """Rows whose value is null where one is needed, or beyond what an event can have."""
        found: list[int] = []
        if column.null_count and not field.nullable and not self._is_filled(field):
            found += _rows_of(column.is_null())
        if field.kind in _REAL:
            finite = pc.is_finite(column)
            if pc.all(finite).as_py() is False:
                found += _rows_of(pc.invert(finite))
        elif field.name == self._pipeline.time_field and (pc.max(column).as_py() or 0) > EVENT_TIME_MAX:
            found += _rows_of(pc.greater(column, EVENT_TIME_MAX))
        return found

    def _is_filled(self, field: Field) -> bool:
        return field.has_default or field.name in {self._pipeline.id_field, self._pipeline.sequence_field}

    def _completed(self, columns: Mapping[str, pa.Array], asked: Sequence[Asked], places: Any) -> Events:
        """Fill what rows do not give: ids, sequences, defaults."""
        pipeline = self._pipeline
        completed = dict(columns)
        if columns[pipeline.id_field].null_count:
            completed[pipeline.id_field] = self._with_ids(columns, asked, places)
        sequence = columns.get(pipeline.sequence_field)
        if sequence is not None and sequence.null_count:
            counted = [number for one in asked for number in range(one.first, one.first + len(one.rows))]
            filler = pa.array(np.array(counted, dtype=np.int64)[places])
            completed[pipeline.sequence_field] = pc.coalesce(sequence, filler.cast(sequence.type))
        for field in self.fields:
            column = completed[field.name]
            if column.null_count and field.default is not None:
                completed[field.name] = column.fill_null(pa.scalar(field.default, ARROW[field.kind]))
        return Events(places, completed)

    def _with_ids(self, columns: Mapping[str, pa.Array], asked: Sequence[Asked], places: Any) -> pa.Array:
        """Ids of all rows: their own, those of the request, or ones derived from their values."""
        pipeline = self._pipeline
        given = columns[pipeline.id_field]
        if any(one.ids is not None for one in asked):
            named = [value for one in asked for value in (one.ids if one.ids is not None else [None] * len(one.rows))]
            given = pc.coalesce(given, pa.array([named[place] for place in places.tolist()], pa.string()))
            if not given.null_count:
                return given
        present = {name: column for name, column in columns.items() if column.null_count < len(column)}
        derived = derived_ids(present, pipeline.id_field, pipeline.key_field, pipeline.time_field)
        return pc.coalesce(given, derived)

    def _judge(self, converted: Converted, places: Sequence[int], now_ms: int) -> None:
        """Note what the flow's decoder would reject."""
        count = len(places)
        keys: list[bytes | None] = [converted.keys[place] for place in places]
        values: list[bytes | None] = [converted.values[place] for place in places]
        records = Records(
            np.zeros(count, dtype=np.int64), np.arange(count), np.full(count, now_ms, dtype=np.int64), keys, values
        )
        for reject in self._decoder.decode(records, self._known).rejects:
            message = reject.message.replace("the record's timestamp", "the clock of the gateway")
            first = message.partition(" ")[0]
            pointer = _pointer(first) if first in self.names else ""
            if message.startswith("the event id "):
                pointer = _pointer(self._pipeline.id_field)
            converted.rejections[places[reject.row]] = Rejection(reject.reason, message, pointer, reject.schema_id)


def _rows_of(mask: pa.Array) -> list[int]:
    found: list[int] = np.flatnonzero(mask.fill_null(pa.scalar(value=False)).to_numpy(zero_copy_only=False)).tolist()
    return found


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")
