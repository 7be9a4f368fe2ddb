"""Rows to events: derived ids and sequences, the pipeline's rules, Avro.

The id of an event whose file has none is a UUID (version 5) of what the row says: key, event time and every other
column that the file gives. The same row has the same id in any run, in any file, in any order of columns; two rows with
the same key and time but another content have different ids; two rows that agree in everything are one event sent
twice, and the pipeline drops the second.
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

from streams.errors import UsageError
from streams.ingest.fields import ARROW, Field, Kind, convert, fields_of
from streams.ingest.readers import BadRow, Chunk
from streams.limits import ID_BYTES_MAX
from streams.operators.declaration import Pipeline
from streams.operators.identity import EVENT_TIME_MAX
from streams.registry.catalog import SchemaVersion

NAMESPACE: Final = uuid.UUID("6ba3a9c0-5d3c-5d0e-9f0a-0c5a1d9f3b7e")
"""Name space of derived event ids: never change it, or the same file makes other events."""
_NUMBER_BYTES_MAX: Final = 10
"""Most bytes that Avro takes for one field that is no text."""

_HEX: Final = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_HEX_AT: Final = np.array([i for i in range(36) if i not in {8, 13, 18, 23}])


@dataclass(frozen=True, slots=True)
class Events:
    """Valid events of a chunk in file order: the number of their row and one column per field of the schema."""

    numbers: NDArray[np.int64]
    columns: dict[str, pa.Array]

    def after(self, number: int) -> "Events":
        """The events of rows behind row `number`."""
        first = int(np.searchsorted(self.numbers, number, side="right"))
        if first == 0:
            return self
        return Events(self.numbers[first:], {name: column.slice(first) for name, column in self.columns.items()})


class Converter:
    """Makes events of the chunks of one file, in order: it counts the sequence of each key when the file has none."""

    def __init__(
        self,
        pipeline: Pipeline,
        schema: SchemaVersion,
        columns: Sequence[str],
        mapping: Mapping[str, str],
        *,
        record_bytes_max: int,
    ) -> None:
        """Decide which column fills which field.

        Raises:
            UsageError: a required field has no column, or the mapping names a field or column that is not there.

        """
        self._pipeline = pipeline
        self._fields = fields_of(schema.parsed)
        self._text_bytes_max = record_bytes_max - 5 - _NUMBER_BYTES_MAX * len(self._fields)
        self.column_of = _columns_of(pipeline, self._fields, columns, mapping)
        """Column by field, for the fields that the file fills."""
        self._sequences: dict[str, int] = {}

    def convert(self, chunk: Chunk) -> tuple[Events, list[BadRow]]:
        """Events of the valid rows, and the other rows with the first reason against each, both in file order."""
        rows = len(chunk.numbers)
        reasons: dict[int, str] = {}
        converted: dict[str, pa.Array] = {}
        for field in self._fields:
            name = self.column_of.get(field.name)
            if name is not None:
                converted[field.name], found = convert(chunk.columns[name], field)
                for row, reason in found.items():
                    reasons.setdefault(row, reason)
        for mask, reason in self._rules(converted, rows):
            for row in np.flatnonzero(mask).tolist():
                reasons.setdefault(row, reason)
        bad = chunk.bad + [self._bad_row(chunk, row, reasons[row]) for row in sorted(reasons)]
        bad.sort(key=lambda one: one.number)
        numbers = chunk.numbers
        if reasons:
            good = np.ones(rows, dtype=np.bool_)
            good[list(reasons)] = False
            numbers = numbers[good]
            converted = {name: column.filter(pa.array(good)) for name, column in converted.items()}
        return self._completed(numbers, converted), bad

    def _rules(self, columns: Mapping[str, pa.Array], rows: int) -> list[tuple[NDArray[np.bool_], str]]:
        """Masks of the rows that break a rule, and the rule: those of the pipeline's decoder, and required values."""
        found: list[tuple[NDArray[np.bool_], str]] = []

        def rule(mask: pa.Array, reason: str) -> None:
            if pc.any(mask).as_py():
                found.append((pc.fill_null(mask, pa.scalar(value=False)).to_numpy(zero_copy_only=False), reason))

        pipeline = self._pipeline
        text_bytes = np.zeros(rows, dtype=np.int64)
        for field in self._fields:
            column = columns.get(field.name)
            if column is None:
                continue
            if not field.nullable:
                rule(column.is_null(), f"{field.name} is missing")
            if field.kind is Kind.TEXT:
                length = pc.binary_length(column)
                text_bytes += length.fill_null(0).to_numpy()
                if field.name in {pipeline.id_field, pipeline.key_field}:
                    rule(pc.equal(length, 0), f"{field.name} is empty")
                if field.name == pipeline.id_field:
                    rule(pc.greater(length, ID_BYTES_MAX), f"{field.name} is longer than {ID_BYTES_MAX} bytes")
            if field.kind in {Kind.DOUBLE, Kind.FLOAT}:
                rule(pc.invert(pc.is_finite(column)), f"{field.name} is not a finite number")
            if field.name in pipeline.field_ranges:
                low, high = pipeline.field_ranges[field.name]
                outside = pc.or_(pc.less(column, low), pc.greater(column, high))
                rule(outside, f"{field.name} is outside [{low:g}, {high:g}]")
            if field.name == pipeline.time_field:
                rule(pc.less(column, 0), f"{field.name} is negative")
                rule(pc.greater(column, EVENT_TIME_MAX), f"{field.name} is beyond all calendars")
        found.append((text_bytes > self._text_bytes_max, "the event is larger than STREAMS_RECORD_BYTES_MAX"))
        return found

    def _completed(self, numbers: NDArray[np.int64], columns: dict[str, pa.Array]) -> Events:
        """Fill what the file does not give."""
        pipeline, rows = self._pipeline, len(numbers)
        given = dict(columns)
        for field in self._fields:
            if field.name in columns:
                continue
            if field.name == pipeline.id_field:
                columns[field.name] = derived_ids(given, pipeline.key_field, pipeline.time_field)
            elif field.name == pipeline.sequence_field:
                columns[field.name] = pa.array(self._count(columns[pipeline.key_field]), pa.int64())
            else:
                columns[field.name] = pa.array([field.default] * rows, ARROW[field.kind])
        ordered = {field.name: columns[field.name] for field in self._fields}
        return Events(numbers, ordered)

    def _count(self, keys: pa.Array) -> list[int]:
        counted = self._sequences
        sequence = []
        for key in keys.to_pylist():
            number = counted.get(key, 0)
            counted[key] = number + 1
            sequence.append(number)
        return sequence

    def _bad_row(self, chunk: Chunk, row: int, reason: str) -> BadRow:
        data = {}
        for name in dict.fromkeys(self.column_of.values()):
            value = chunk.columns[name][row]
            data[name] = value.as_py() if isinstance(value, pa.Scalar) else value
        return BadRow(int(chunk.numbers[row]), reason, data)


class Encoder:
    """Events to Kafka records: Confluent's frame (a zero byte, the schema id) and the Avro of the event."""

    def __init__(self, pipeline: Pipeline, schema: SchemaVersion, schema_id: int) -> None:
        self._key_field = pipeline.key_field
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


def derived_ids(columns: Mapping[str, pa.Array], key_field: str, time_field: str) -> pa.Array:
    """Event ids of rows from their content: UUIDs of version 5 in text form.

    Hashed under NAMESPACE: 8 bytes length of the key; for event time and then each other given column in alphabetical
    order one byte (0 null, 1 not) and 8 bytes (a number itself, the length of a text); the key; the other texts. All
    numbers are big-endian, lengths in bytes.
    """
    count = len(columns[key_field])
    names = [time_field, *sorted(columns.keys() - {key_field, time_field})]
    fixed = np.zeros((count, 9 * len(names) + 8), dtype=np.uint8)
    texts = [columns[key_field]]
    fixed[:, :8] = _big_endian(pc.binary_length(columns[key_field]).cast(pa.int64()))
    for position, name in enumerate(names):
        column = columns[name]
        at = 8 + 9 * position
        fixed[:, at] = column.is_valid().to_numpy(zero_copy_only=False)
        if pa.types.is_string(column.type):
            texts.append(column)
            column = pc.binary_length(column)
        wide = pa.float64() if pa.types.is_floating(column.type) else pa.int64()
        fixed[:, at + 1 : at + 9] = _big_endian(column.cast(wide).fill_null(0))
    joined = [column.cast(pa.binary()).fill_null(b"") for column in texts]
    tails = joined[0] if len(joined) == 1 else pc.binary_join_element_wise(*joined, pa.scalar(b""))
    content, width = fixed.tobytes(), fixed.shape[1]
    space = hashlib.sha1(NAMESPACE.bytes, usedforsecurity=False)
    digests = []
    for row, tail in enumerate(tails.to_pylist()):
        digest = space.copy()
        digest.update(content[row * width : (row + 1) * width] + tail)
        digests.append(digest.digest())
    return _uuid_texts(b"".join(digests), count)


def _big_endian(numbers: pa.Array) -> NDArray[np.uint8]:
    values = numbers.to_numpy(zero_copy_only=False)
    as_bytes: NDArray[np.uint8] = values.astype(values.dtype.newbyteorder(">")).view(np.uint8)
    return as_bytes.reshape(len(values), 8)


def _uuid_texts(digests: bytes, count: int) -> pa.Array:
    raw = np.frombuffer(digests, dtype=np.uint8).reshape(count, 20)[:, :16].copy()
    raw[:, 6] = (raw[:, 6] & 0x0F) | 0x50
    raw[:, 8] = (raw[:, 8] & 0x3F) | 0x80
    text = np.full((count, 36), ord("-"), dtype=np.uint8)
    text[:, _HEX_AT[0::2]] = _HEX[raw >> 4]
    text[:, _HEX_AT[1::2]] = _HEX[raw & 15]
    offsets = pa.py_buffer(np.arange(0, 36 * (count + 1), 36, dtype=np.int32))
    return pa.Array.from_buffers(pa.string(), count, [None, offsets, pa.py_buffer(text)])


def _columns_of(
    pipeline: Pipeline, fields: Sequence[Field], columns: Sequence[str], mapping: Mapping[str, str]
) -> dict[str, str]:
    names = [field.name for field in fields]
    for field_name, column in mapping.items():
        if field_name not in names:
            raise UsageError(f"--map {field_name}={column}: there is no field {field_name!r}, only {', '.join(names)}")
        if column not in columns:
            raise UsageError(f"--map {field_name}={column}: there is no column {column!r}, only {', '.join(columns)}")
    found = {name: mapping.get(name, name) for name in names if name in mapping or name in columns}
    derived = {pipeline.id_field, pipeline.sequence_field}
    for field in fields:
        if field.name not in found and field.name not in derived and not field.has_default:
            raise UsageError(
                f"no column for the field {field.name!r}: the file has {', '.join(columns) or 'no columns'}; "
                f"name one by --map {field.name}=COLUMN"
            )
    return found
