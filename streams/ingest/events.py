"""Rows to events: conversion, derived ids and sequences, Avro, and the flow's own verdict.

An event without an id in its file gets a UUID (version 5) of the row's content: key, event time and every other value,
with the names of their fields. The same row has the same id in any run, in any file of any format, in any order of
columns, and whether a column without values is there or not; two rows with the same key and time but another content
have different ids; two rows that agree in everything are one event sent twice, and the flow drops the second.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro
from numpy.typing import NDArray

from streams.batch.event_ids import EVENT_TIME_MAX
from streams.flow.declaration import Pipeline
from streams.ingest.chunks import BadRow, Chunk
from streams.ingest.fields import ARROW, Field, Kind, convert, fields_of
from streams.ingest.filling import Filling
from streams.ingest.judge import Judge
from streams.ingest.reading import Reading
from streams.schemas.catalog import SchemaVersion

NAMESPACE: Final = uuid.UUID("6ba3a9c0-5d3c-5d0e-9f0a-0c5a1d9f3b7e")
"""Name space of derived event ids: never change it, or the same file makes other events."""
_DIGEST_BYTES: Final = 20

_HEX: Final = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_HEX_AT: Final = np.array([i for i in range(36) if i not in {8, 13, 18, 23}])


@dataclass(frozen=True, slots=True)
class Events:
    """Events of a chunk in file order: the number of their row and one column per field of the schema."""

    numbers: NDArray[np.int64]
    columns: dict[str, pa.Array]


@dataclass(frozen=True, slots=True)
class Batch:
    """Valid events of a chunk in file order: columns, and the records that are sent."""

    events: Events
    keys: list[bytes]
    values: list[bytes]

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Numbers of the rows."""
        return self.events.numbers

    def after(self, number: int) -> "Batch":
        """The events of rows after row `number`."""
        first = int(np.searchsorted(self.numbers, number, side="right"))
        if first == 0:
            return self
        columns = {name: column.slice(first) for name, column in self.events.columns.items()}
        return Batch(Events(self.numbers[first:], columns), self.keys[first:], self.values[first:])


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows that converted: their numbers, the columns that the file gives, and the rows that lack one of them."""

    numbers: NDArray[np.int64]
    columns: dict[str, pa.Array]
    absent: dict[str, NDArray[np.bool_]]

    def take(self, good: NDArray[np.bool_]) -> "_Rows":
        kept = pa.array(good)
        columns = {name: column.filter(kept) for name, column in self.columns.items()}
        return _Rows(self.numbers[good], columns, {name: mask[good] for name, mask in self.absent.items()})


class Converter:
    """Makes events of the chunks of one file, in order: it counts the sequence of each key when the file has none."""

    def __init__(
        self,
        flow: Pipeline,
        filling: Filling,
        encoder: "Encoder",
        judge: Judge,
        reading: Reading,
        shift_ms: int = 0,
    ) -> None:
        """All times of the records are moved by `shift_ms`, which ids do not depend on."""
        self._flow = flow
        self._filling = filling
        self._encoder, self._judge, self._reading = encoder, judge, reading
        self._shift_ms = shift_ms
        self._sequences: dict[str, int] = {}
        self.filled = set(filling.column_of)
        """Fields that have values in the file, as far as known."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a chunk must have."""
        return tuple(dict.fromkeys(self._filling.asked.values()))

    def convert(self, chunk: Chunk) -> tuple[Batch, list[BadRow]]:
        """The valid events, and the other rows with the first reason against each, both in file order.

        Valid is what converts to the schema and what the flow's decoder accepts. Raises UsageError where a whole
        column is of a type that never converts.
        """
        rows, reasons = self._converted(chunk)
        batch, counted = self._encoded(rows)
        times = batch.events.columns[self._flow.time_field]
        times_ms = pc.add(times, self._shift_ms).to_pylist() if self._shift_ms else times.to_pylist()
        rejected = self._judge.reasons(batch.keys, batch.values, times_ms) if batch.keys else {}
        if rejected:
            position_of = {number: position for position, number in enumerate(chunk.numbers.tolist())}
            for position, reason in rejected.items():
                reasons[position_of[int(rows.numbers[position])]] = reason
            good = np.ones(len(rows.numbers), dtype=np.bool_)
            good[list(rejected)] = False
            batch, counted = self._encoded(rows.take(good))
        self._sequences.update(counted)
        bad = chunk.bad + [self._bad_row(chunk, row, reasons[row]) for row in sorted(reasons)]
        bad.sort(key=lambda one: one.number)
        return batch, bad

    def _converted(self, chunk: Chunk) -> tuple[_Rows, dict[int, str]]:
        """Rows whose every value converts, and the reasons of the others by their position in the chunk."""
        reasons: dict[int, str] = {}
        converted: dict[str, pa.Array] = {}
        absent: dict[str, NDArray[np.bool_]] = {}
        for field in self._filling.fields:
            name = self._filling.asked.get(field.name)
            if name is None:
                continue
            missing = chunk.absent.get(name)
            if missing is not None and missing.all() and field.name not in self._filling.column_of:
                continue
            self.filled.add(field.name)
            converted[field.name], found = convert(chunk.columns[name], field, self._reading)
            if missing is not None:
                absent[field.name] = missing
            for row, reason in found.items():
                reasons.setdefault(row, reason)
        for mask, reason in self._rules(converted, absent):
            for row in np.flatnonzero(mask).tolist():
                reasons.setdefault(row, reason)
        rows = _Rows(chunk.numbers, converted, absent)
        if reasons:
            good = np.ones(len(chunk.numbers), dtype=np.bool_)
            good[list(reasons)] = False
            rows = rows.take(good)
        return rows, reasons

    def _rules(
        self, columns: Mapping[str, pa.Array], absent: Mapping[str, NDArray[np.bool_]]
    ) -> list[tuple[NDArray[np.bool_], str]]:
        """Conditions for the decoder to judge an event at all: masks of the rows that fail, and why."""
        found: list[tuple[NDArray[np.bool_], str]] = []

        def rule(mask: pa.Array, reason: str) -> None:
            if pc.any(mask).as_py():
                found.append((pc.fill_null(mask, pa.scalar(value=False)).to_numpy(zero_copy_only=False), reason))

        for field in self._filling.fields:
            column = columns.get(field.name)
            if column is None:
                continue
            if not field.nullable:
                missing = column.is_null()
                if field.name in absent and self._is_filled(field):
                    missing = pc.and_(missing, pa.array(~absent[field.name]))
                rule(missing, f"{field.name} is missing")
            if field.kind in {Kind.DOUBLE, Kind.FLOAT}:
                rule(pc.invert(pc.is_finite(column)), f"{field.name} is not a finite number")
            if field.name == self._flow.time_field:
                rule(pc.greater(column, EVENT_TIME_MAX), f"{field.name} is outside the range of dates")
        return found

    def _is_filled(self, field: Field) -> bool:
        """Whether a field gets a value where a row has none."""
        return field.has_default or field.name in {self._flow.id_field, self._flow.sequence_field}

    def _encoded(self, rows: _Rows) -> tuple[Batch, dict[str, int]]:
        """Events and records of rows, and how far the sequences of their keys are then."""
        events, counted = self._completed(rows)
        keys, values = self._encoder.encode(events, self._shift_ms)
        return Batch(events, keys, values), counted

    def _completed(self, rows: _Rows) -> tuple[Events, dict[str, int]]:
        """Fill fields that the file, or a row of it, does not give."""
        flow = self._flow
        counted: dict[str, int] = {}
        completed: dict[str, pa.Array] = {}
        for field in self._filling.fields:
            given = rows.columns.get(field.name)
            mask = rows.absent.get(field.name)
            if given is not None and (mask is None or not mask.any()):
                completed[field.name] = given
                continue
            if field.name == flow.id_field:
                filler = derived_ids(rows.columns, flow.id_field, flow.key_field, flow.time_field)
            elif field.name == flow.sequence_field:
                numbers, counted = self._count(rows.columns[flow.key_field])
                filler = pa.array(numbers, pa.int64())
            else:
                filler = pa.array([field.default] * len(rows.numbers), ARROW[field.kind])
            completed[field.name] = filler if given is None else pc.if_else(pa.array(mask), filler, given)
        return Events(rows.numbers, completed), counted

    def _count(self, keys: pa.Array) -> tuple[list[int], dict[str, int]]:
        counted: dict[str, int] = {}
        sequence = []
        for key in keys.to_pylist():
            number = counted[key] if key in counted else self._sequences.get(key, 0)
            counted[key] = number + 1
            sequence.append(number)
        return sequence, counted

    def _bad_row(self, chunk: Chunk, row: int, reason: str) -> BadRow:
        data = {}
        for name in self.columns:
            if name not in chunk.absent or not chunk.absent[name][row]:
                data[name] = _plain(chunk.columns[name][row])
        return BadRow(int(chunk.numbers[row]), reason, data)


def _plain(value: object) -> object:
    """A value as a Python object; one without a Python type (a time of nanoseconds) as text."""
    if not isinstance(value, pa.Scalar):
        return value
    try:
        return value.as_py()
    except (ValueError, OverflowError):
        pass
    try:
        return value.cast(pa.string()).as_py()
    except pa.ArrowException:  # it has a zone, and this machine has no time zone data
        return str(value.value)


class Encoder:
    """Events to Kafka records: Confluent's frame (a zero byte, the schema id) and the Avro of the event."""

    def __init__(self, flow: Pipeline, schema: SchemaVersion, schema_id: int) -> None:
        self.schema_id = schema_id
        self._key_field = flow.key_field
        self._fields = fields_of(schema.parsed)
        self._text = schema.text
        self._arrow = pyruhvro.avro_to_arrow_schema(schema.text)
        self._frame = b"\0" + schema_id.to_bytes(4, "big", signed=True)

    def encode(self, events: Events, shift_ms: int = 0) -> tuple[list[bytes], list[bytes]]:
        """Keys and values, in the order of `events`, with all times moved by `shift_ms`."""
        if len(events.numbers) == 0:
            return [], []
        arrays = []
        for field, target in zip(self._fields, self._arrow, strict=True):
            column = events.columns[field.name]
            if field.kind is Kind.TIME and shift_ms:
                column = pc.add(column, shift_ms)
            arrays.append(column.cast(target.type))
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._arrow)
        frame = self._frame
        values = [
            frame + value
            for part in pyruhvro.serialize_record_batch(batch, self._text, 1)
            for value in part.to_pylist()
        ]
        return events.columns[self._key_field].cast(pa.binary()).to_pylist(), values


def derived_ids(columns: Mapping[str, pa.Array], id_field: str, key_field: str, time_field: str) -> pa.Array:
    """Event ids of rows from their content: UUIDs of version 5 in text form.

    Hashed under NAMESPACE, of the row's values other than null, its id left out: the names of their fields in
    alphabetical order, without those of key and event time, each ended by a comma; a zero byte; 8 bytes length of the
    key; 8 bytes of event time and then of each other value (a number itself, zero without its sign, the length of a
    text); the key; the other texts. All numbers are big-endian, lengths in bytes.
    """
    count = len(columns[key_field])
    names = sorted(columns.keys() - {id_field, key_field, time_field})
    present = np.empty((count, len(names)), dtype=np.bool_)
    for position, name in enumerate(names):
        present[:, position] = columns[name].is_valid().to_numpy(zero_copy_only=False)
    digests = np.empty((count, _DIGEST_BYTES), dtype=np.uint8)
    # With a column that is always there, so that rows without any other value are a pattern, too.
    always = np.ones((count, 1), dtype=np.bool_)
    patterns, pattern_of = np.unique(np.hstack([present, always]), axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        rows = np.flatnonzero(pattern_of.reshape(-1) == number)
        given = [name for name, is_given in zip(names, pattern.tolist(), strict=False) if is_given]
        taken = {name: columns[name].take(pa.array(rows)) for name in (key_field, time_field, *given)}
        digests[rows] = _digests(taken, key_field, [time_field, *given])
    return _uuid_texts(digests.tobytes(), count)


def _digests(columns: Mapping[str, pa.Array], key_field: str, names: Sequence[str]) -> NDArray[np.uint8]:
    """Digests of rows that have a value in every column; the first of `names` is event time."""
    key = columns[key_field]
    fixed = [_big_endian(pc.binary_length(key).cast(pa.int64()))]
    texts = [key]
    for name in names:
        column = columns[name]
        if pa.types.is_string(column.type):
            texts.append(column)
            column = pc.binary_length(column)
        if pa.types.is_floating(column.type):
            column = pc.add(column.cast(pa.float64()), 0.0)  # -0.0 becomes 0.0
        else:
            column = column.cast(pa.int64())
        fixed.append(_big_endian(column))
    content, width = np.hstack(fixed).tobytes(), 8 * len(fixed)
    joined = [column.cast(pa.binary()) for column in texts]
    tails = joined[0] if len(joined) == 1 else pc.binary_join_element_wise(*joined, pa.scalar(b""))
    space = hashlib.sha1(NAMESPACE.bytes, usedforsecurity=False)
    space.update("".join(f"{name}," for name in names[1:]).encode() + b"\0")
    found = []
    for row, tail in enumerate(tails.to_pylist()):
        digest = space.copy()
        digest.update(content[row * width : (row + 1) * width] + tail)
        found.append(digest.digest())
    return np.frombuffer(b"".join(found), dtype=np.uint8).reshape(len(found), _DIGEST_BYTES)


def _big_endian(numbers: pa.Array) -> NDArray[np.uint8]:
    values = numbers.to_numpy(zero_copy_only=False)
    as_bytes: NDArray[np.uint8] = values.astype(values.dtype.newbyteorder(">")).view(np.uint8)
    return as_bytes.reshape(len(values), 8)


def _uuid_texts(digests: bytes, count: int) -> pa.Array:
    raw = np.frombuffer(digests, dtype=np.uint8).reshape(count, _DIGEST_BYTES)[:, :16].copy()
    raw[:, 6] = (raw[:, 6] & 0x0F) | 0x50
    raw[:, 8] = (raw[:, 8] & 0x3F) | 0x80
    text = np.full((count, 36), ord("-"), dtype=np.uint8)
    text[:, _HEX_AT[0::2]] = _HEX[raw >> 4]
    text[:, _HEX_AT[1::2]] = _HEX[raw & 15]
    offsets = pa.py_buffer(np.arange(0, 36 * (count + 1), 36, dtype=np.int32))
    return pa.Array.from_buffers(pa.string(), count, [None, offsets, pa.py_buffer(text)])
