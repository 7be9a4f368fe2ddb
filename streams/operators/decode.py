"""Decode: framed Avro records to columns of valid events; what is not one becomes a reject with its reason.

The columnar path decodes a whole micro-batch at once. When it refuses (one short record is enough), the batch is halved
until the records concerned stand alone, and those are judged one by one by fastavro: one bad record costs one record.
"""

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from streams.limits import ID_BYTES_MAX
from streams.operators.columns import (
    Bools,
    Events,
    Float64,
    Headers,
    Int64,
    Objects,
    Records,
    UInt64,
    object_rows,
    objects,
)
from streams.operators.declaration import Pipeline
from streams.operators.identity import EVENT_TIME_MAX, id_words, time_word
from streams.operators.rejects import Reason, Reject
from streams.operators.resolve import ENUM, Plan

FRAME_BYTES: Final = 5
SCHEMA_ID_HEADER: Final = "__value_schema_id"
_EXACT_RECORDS_MAX: Final = 16
"""Below this a refused batch is no longer halved but judged record by record."""
_GARBAGE_ERRORS: Final = (EOFError, IndexError, KeyError, OverflowError, TypeError, ValueError, MemoryError)
"""What fastavro raises on bytes that are not what the schema says."""

Known = Mapping[int, Plan | Reject]
"""What is known of schema ids: a plan, or a reject (its row is ignored) for every record that carries the id."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Result for a micro-batch. Events and rejects are in batch order; `unresolved` rows wait for the registry."""

    events: Events
    rejects: list[Reject]
    unresolved: Mapping[int, list[int]]
    """Schema id to the rows that carry it; neither in `events` nor in `rejects`."""


@dataclass(frozen=True, slots=True)
class _Fields:
    """The reader's columns of some rows, before validation."""

    rows: Int64
    event_id: pa.Array
    key_field: pa.Array
    event_time: Int64
    sequence: Int64
    payload: Float64
    nulls: Bools
    """Shape of payload: where it is null (a NaN that is not null is `invalid`)."""
    texts: list[pa.Array]
    """The text fields."""


class Decoder:
    """Decoder of one pipeline. Pure: the same records and known schemas give the same result."""

    def __init__(self, pipeline: Pipeline, *, record_bytes_max: int, skew_ms_max: int) -> None:
        self._pipeline = pipeline
        self._record_bytes_max = record_bytes_max
        self._skew_ms_max = skew_ms_max
        self._usual: Plan | None = None

    def decode(self, records: Records, known: Known, skip: frozenset[int] = frozenset()) -> Decoded:
        """Decode a micro-batch with the schemas in `known`; rows in `skip` are not looked at."""
        rejects: list[Reject] = []
        fields = None if skip else self._decode_usual(records, known)
        unresolved: dict[int, list[int]] = {}
        if fields is None:
            parts: list[_Fields] = []
            for reference, rows in self._by_schema(records, skip, rejects).items():
                self._decode_group(records, reference, rows, known, parts, rejects, unresolved)
            fields = _concat(parts, self._pipeline)
        events = self._validated(records, fields, rejects)
        rejects.sort(key=lambda reject: reject.row)
        return Decoded(events, rejects, unresolved)

    # --- framing ----------------------------------------------------------------------------------------------------

    def _decode_usual(self, records: Records, known: Known) -> _Fields | None:
        """The whole batch in one go, if all of it is written with the schema that most batches are written with."""
        plan = self._usual
        if plan is None or plan.framed_json is None or plan.schema_id not in known or records.headers is not None:
            return None
        try:
            sizes = _sizes(records.value)
        except TypeError:  # a record without a value
            return None
        if len(sizes) == 0 or sizes.max() > self._record_bytes_max or sizes.min() < FRAME_BYTES:
            return None
        return _decode_columns(plan, records.value, sizes, np.arange(len(records)), self._pipeline, framed=True)

    def _by_schema(
        self, records: Records, skip: frozenset[int], rejects: list[Reject]
    ) -> dict[tuple[int, bool], list[int]]:
        """Rows by (schema id, framed); the rest is rejected as too large or not framed."""
        groups: dict[tuple[int, bool], list[int]] = {}
        headers: Sequence[Headers | None] = records.headers or [None] * len(records)
        for row, (value, header) in enumerate(zip(records.value, headers, strict=True)):
            if row in skip:
                continue
            if value is None:
                rejects.append(Reject(row, Reason.NOT_FRAMED, "the record has no value"))
            elif len(value) > self._record_bytes_max:
                rejects.append(
                    Reject(row, Reason.TOO_LARGE, f"{len(value)} bytes; at most {self._record_bytes_max} are accepted")
                )
            elif header and (schema_id := _schema_id_in(header)) is not None:
                groups.setdefault((schema_id, False), []).append(row)
            elif len(value) < FRAME_BYTES or value[0] != 0:
                rejects.append(
                    Reject(row, Reason.NOT_FRAMED, "no schema id: the value does not begin with the frame's magic byte")
                )
            else:
                groups.setdefault((int.from_bytes(value[1:FRAME_BYTES], "big", signed=True), True), []).append(row)
        return groups

    # --- decoding ---------------------------------------------------------------------------------------------------

    def _decode_group(
        self,
        records: Records,
        reference: tuple[int, bool],
        rows: list[int],
        known: Known,
        parts: list[_Fields],
        rejects: list[Reject],
        unresolved: dict[int, list[int]],
    ) -> None:
        schema_id, framed = reference
        plan = known.get(schema_id)
        if plan is None:
            unresolved.setdefault(schema_id, []).extend(rows)
            return
        if isinstance(plan, Reject):
            rejects += [Reject(row, plan.reason, plan.message, schema_id) for row in rows]
            return
        self._usual = plan
        values = [records.value[row] for row in rows]
        sizes = _sizes(values)
        self._halve(plan, values, sizes, np.array(rows, dtype=np.int64), parts, rejects, framed=framed)

    def _halve(
        self,
        plan: Plan,
        values: list[Any],
        sizes: Int64,
        rows: Int64,
        parts: list[_Fields],
        rejects: list[Reject],
        *,
        framed: bool,
    ) -> None:
        decoded = _decode_columns(plan, values, sizes, rows, self._pipeline, framed=framed)
        if decoded is not None:
            parts.append(decoded)
        elif len(values) <= _EXACT_RECORDS_MAX or plan.framed_json is None:
            self._decode_exactly(plan, values, rows, parts, rejects, framed=framed)
        else:
            middle = len(values) // 2
            for half in (slice(None, middle), slice(middle, None)):
                self._halve(plan, values[half], sizes[half], rows[half], parts, rejects, framed=framed)

    def _decode_exactly(
        self, plan: Plan, values: list[Any], rows: Int64, parts: list[_Fields], rejects: list[Reject], *, framed: bool
    ) -> None:
        """One by one, by fastavro: the judge of what a record is."""
        decoded: list[dict[str, Any]] = []
        good: list[int] = []
        for row, value in zip(rows.tolist(), values, strict=True):
            result = _decode_one(plan, value[FRAME_BYTES:] if framed else value)
            if isinstance(result, dict):
                decoded.append(result)
                good.append(row)
            else:
                rejects.append(Reject(row, result[0], result[1], plan.schema_id))
        if decoded:
            parts.append(_from_rows(plan, decoded, np.array(good, dtype=np.int64), self._pipeline))

    # --- validation -------------------------------------------------------------------------------------------------

    def _validated(self, records: Records, fields: _Fields, rejects: list[Reject]) -> Events:
        rows = fields.rows
        timestamp = records.timestamp_ms[rows]
        ids = _bytes(fields.event_id)
        offsets = _offsets(fields.event_id)
        complaints = self._invalid(fields, np.diff(offsets))
        keys = (
            objects([records.key[row] for row in rows.tolist()]) if len(rows) != len(records) else objects(records.key)
        )
        named = pc.equal(pa.array(keys, pa.binary()), fields.key_field.cast(pa.binary()))
        mismatched = ~np.asarray(named.fill_null(pa.scalar(value=False)), dtype=np.bool_)
        future = fields.event_time > np.minimum(timestamp, EVENT_TIME_MAX - self._skew_ms_max) + self._skew_ms_max
        bad = mismatched | future
        for complaint in complaints:
            bad[complaint[0]] = True
        hi, lo, digest = id_words(_data(fields.event_id), offsets, ids)
        values = (
            objects(records.value)
            if len(rows) == len(records)
            else objects([records.value[row] for row in rows.tolist()])
        )
        headers = None if records.headers is None else objects([records.headers[row] for row in rows.tolist()])
        events = Events(
            row=rows,
            timestamp_ms=timestamp,
            event_time=fields.event_time,
            sequence=fields.sequence,
            event_id=ids,
            id_hi=hi,
            id_lo=lo,
            id_word=time_word(fields.event_time, digest),
            key=keys,
            value=values,
            headers=headers,
            payload=fields.payload,
            texts=object_rows([_bytes(column) for column in fields.texts], len(rows)),
            slot=np.full(len(rows), -1, dtype=np.int64),
        )
        if not bad.any():
            return events
        self._explain(records, fields, complaints, mismatched, future, rejects)
        return events.take(~bad)

    def _invalid(self, fields: _Fields, id_bytes: Int64) -> list[tuple[int, str]]:
        """(position, message) of every invalid event; one message for each."""
        found: list[tuple[Bools, str]] = [
            (id_bytes == 0, "the event id is empty"),
            (id_bytes > ID_BYTES_MAX, f"the event id is longer than {ID_BYTES_MAX} bytes"),
            (np.diff(_offsets(fields.key_field)) == 0, f"{self._pipeline.key_field} is empty"),
            (fields.event_time < 0, f"{self._pipeline.time_field} is negative"),
        ]
        for position, name in enumerate(self._pipeline.payload_fields):
            column = fields.payload[position]
            found.append((~np.isfinite(column) & ~fields.nulls[position], f"{name} is not a number"))
            if name in self._pipeline.field_ranges:
                low, high = self._pipeline.field_ranges[name]
                found.append(((column < low) | (column > high), f"{name} is outside [{low:g}, {high:g}]"))
        for name, texts in zip(self._pipeline.text_fields, fields.texts, strict=True):
            found.append((np.diff(_offsets(texts)) > ID_BYTES_MAX, f"{name} is longer than {ID_BYTES_MAX} bytes"))
        complaints: dict[int, str] = {}
        for mask, message in found:
            if mask.any():
                for position in np.flatnonzero(mask).tolist():
                    complaints.setdefault(position, message)
        return list(complaints.items())

    def _explain(
        self,
        records: Records,
        fields: _Fields,
        complaints: list[tuple[int, str]],
        mismatched: Bools,
        future: Bools,
        rejects: list[Reject],
    ) -> None:
        """Append the reject of every event that is not valid, the first reason that applies."""
        said = dict(complaints)
        for position in sorted(said.keys() | set(np.flatnonzero(mismatched | future).tolist())):
            row = int(fields.rows[position])
            if position in said:
                reason, message = Reason.INVALID, said[position]
            elif mismatched[position]:
                reason = Reason.KEY_MISMATCH
                message = f"the record's key is not the event's {self._pipeline.key_field}"
            else:
                ahead_ms = int(fields.event_time[position]) - int(records.timestamp_ms[row])
                reason = Reason.FUTURE_TIMESTAMP
                message = f"{self._pipeline.time_field} is {ahead_ms} ms ahead of the record's timestamp"
            rejects.append(Reject(row, reason, message))


def _schema_id_in(headers: Headers) -> int | None:
    """Schema id in Confluent's header: the magic byte 0 and four bytes, big-endian."""
    for name, value in headers:
        if name == SCHEMA_ID_HEADER and value is not None and len(value) == FRAME_BYTES and value[0] == 0:
            return int(struct.unpack(">i", value[1:])[0])
    return None


def _decode_columns(
    plan: Plan, values: list[Any], sizes: Int64, rows: Int64, pipeline: Pipeline, *, framed: bool
) -> _Fields | None:
    """All values at once; None when any of them is not exactly one record of the plan's writer schema."""
    schema = plan.framed_json if framed else plan.bare_json
    if schema is None:
        return None
    try:
        batch = pyruhvro.deserialize_array(values, schema)
    except ValueError:
        return None
    written = batch.columns
    if framed:
        magic, ids = written[0], written[1].to_numpy().view(np.uint32)
        wanted = np.uint32(int.from_bytes(plan.schema_id.to_bytes(4, "big", signed=True), "little"))
        if magic.true_count or not (ids == wanted).all():
            return None
        written, sizes = written[2:], sizes - FRAME_BYTES
    if not np.array_equal(_encoded_sizes(written, plan.kinds), sizes):
        return None  # trailing bytes, or numbers in more bytes than they need
    if not _are_texts(written, plan) or not _are_symbols(written, plan.kinds):
        return None
    columns = _read_columns(plan, written, pipeline.fields_read)
    return None if columns is None else _from_columns(columns, rows, pipeline)


def _read_columns(plan: Plan, written: Sequence[pa.Array], names: Sequence[str]) -> dict[str, pa.Array] | None:
    """The reader's columns; None when an enum has a symbol that the reader has not."""
    columns: dict[str, pa.Array] = {}
    for name in names:
        column = (plan.columns or {})[name]
        if column.position is None:
            columns[name] = _constant(_code(plan, name, column.default), len(written[0]))
        elif column.codes is None:
            columns[name] = written[column.position]
        else:
            found = _translated(written[column.position], column.codes)
            if found is None:
                return None
            columns[name] = found
    return columns


def _translated(written: pa.Array, codes: tuple[int, ...]) -> pa.Array | None:
    """Positions of an enum's symbols in the reader; None when one has none."""
    numbers = written.fill_null(0).to_numpy(zero_copy_only=False)
    found = np.array(codes, dtype=np.int64)[numbers]
    nulls = written.is_null().to_numpy(zero_copy_only=False)
    if (found[~nulls] < 0).any():
        return None
    return pa.array(found, mask=nulls)


def _code(plan: Plan, name: str, value: Any) -> Any:
    """The position of an enum's symbol; any other value as it is."""
    symbols = plan.symbols.get(name)
    return symbols.index(value) if symbols is not None and value is not None else value


def _are_texts(written: Sequence[pa.Array], plan: Plan) -> bool:
    """Whether all strings that the reader reads are UTF-8: the columnar decoder takes any bytes for one."""
    read = {column.position for column in plan.columns.values()} if plan.columns is not None else set()
    try:
        for position, (column, kind) in enumerate(zip(written, plan.kinds, strict=True)):
            if position in read and kind.startswith("string"):
                column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _are_symbols(written: Sequence[pa.Array], kinds: tuple[str, ...]) -> bool:
    """Whether the numbers of all enums are positions of symbols."""
    for column, kind in zip(written, kinds, strict=True):
        if kind.startswith(ENUM):
            bounds = pc.min_max(column).as_py()
            symbols = int(kind.removeprefix(ENUM).removesuffix("?"))
            if bounds["min"] is not None and not 0 <= bounds["min"] <= bounds["max"] < symbols:
                return False
    return True


def _constant(value: Any, count: int) -> pa.Array:
    return pa.nulls(count, pa.float64()) if value is None else pa.array([value] * count)


def _from_columns(columns: Mapping[str, pa.Array], rows: Int64, pipeline: Pipeline) -> _Fields:
    payload = np.empty((len(pipeline.payload_fields), len(rows)), dtype=np.float64)
    nulls = np.zeros(payload.shape, dtype=np.bool_)
    for position, name in enumerate(pipeline.payload_fields):
        column = columns[name]
        payload[position] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)  # longs are rounded
        if column.null_count:
            nulls[position] = column.is_null().to_numpy(zero_copy_only=False)
    return _Fields(
        rows=rows,
        event_id=columns[pipeline.id_field],
        key_field=columns[pipeline.key_field],
        event_time=columns[pipeline.time_field].cast(pa.int64()).to_numpy(zero_copy_only=False),
        sequence=columns[pipeline.sequence_field].cast(pa.int64()).to_numpy(zero_copy_only=False),
        payload=payload,
        nulls=nulls,
        texts=[columns[name].cast(pa.string()) for name in pipeline.text_fields],
    )


def _from_rows(plan: Plan, decoded: list[dict[str, Any]], rows: Int64, pipeline: Pipeline) -> _Fields:
    columns = {
        pipeline.id_field: pa.array([row[pipeline.id_field] for row in decoded], pa.string()),
        pipeline.key_field: pa.array([row[pipeline.key_field] for row in decoded], pa.string()),
        pipeline.time_field: pa.array([row[pipeline.time_field] for row in decoded], pa.int64()),
        pipeline.sequence_field: pa.array([row[pipeline.sequence_field] for row in decoded], pa.int64()),
        **{
            name: pa.array([_number(plan, name, row[name]) for row in decoded], pa.float64())
            for name in pipeline.payload_fields
        },
        **{name: pa.array([row[name] for row in decoded], pa.string()) for name in pipeline.text_fields},
    }
    return _from_columns(columns, rows, pipeline)


def _number(plan: Plan, name: str, value: Any) -> float | None:
    return None if value is None else float(_code(plan, name, value))


def _concat(parts: list[_Fields], pipeline: Pipeline) -> _Fields:
    """All parts, in batch order."""
    if not parts:
        empty = np.empty(0, dtype=np.int64)
        text = pa.array([], pa.string())
        nothing = np.empty((len(pipeline.payload_fields), 0))
        texts = [text for _ in pipeline.text_fields]
        return _Fields(empty, text, text, empty, empty, nothing, nothing.astype(np.bool_), texts)
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")
    taken = pa.array(order)
    return _Fields(
        rows=rows[order],
        event_id=pa.concat_arrays([part.event_id for part in parts]).take(taken),
        key_field=pa.concat_arrays([part.key_field for part in parts]).take(taken),
        event_time=np.concatenate([part.event_time for part in parts])[order],
        sequence=np.concatenate([part.sequence for part in parts])[order],
        payload=np.concatenate([part.payload for part in parts], axis=1)[:, order],
        nulls=np.concatenate([part.nulls for part in parts], axis=1)[:, order],
        texts=[pa.concat_arrays(columns).take(taken) for columns in zip(*(part.texts for part in parts), strict=True)],
    )


def _decode_one(plan: Plan, body: bytes) -> dict[str, Any] | tuple[Reason, str]:
    """One value by fastavro: the reader's record, or why there is none."""
    stream = io.BytesIO(body)
    try:
        record = fastavro.schemaless_reader(stream, plan.writer, plan.reader)
    except fastavro.read.SchemaResolutionError as error:
        return Reason.INCOMPATIBLE_SCHEMA, f"not readable with the pipeline's schema: {error}"
    except _GARBAGE_ERRORS as error:
        return Reason.MALFORMED, f"not a value of schema {plan.schema_id}: {type(error).__name__}: {error}"
    if stream.tell() != len(body):
        return Reason.MALFORMED, f"{len(body) - stream.tell()} bytes behind the end of the value"
    return dict(record)


def _sizes(values: Sequence[Any]) -> Int64:
    return np.fromiter(map(len, values), dtype=np.int64, count=len(values))


def _bytes(column: pa.Array) -> Objects:
    """A string column as bytes objects, None where it is null."""
    array: Objects = column.cast(pa.binary()).to_numpy(zero_copy_only=False)
    return array


def _offsets(column: pa.Array) -> Int64:
    """Offsets (n + 1) into `_data` of a string column."""
    if len(column) == 0:
        return np.zeros(1, dtype=np.int64)
    buffer = np.frombuffer(column.buffers()[1], dtype=np.int32)
    return buffer[column.offset : column.offset + len(column) + 1].astype(np.int64)


def _data(column: pa.Array) -> Any:
    buffer = column.buffers()[2]
    return np.empty(0, dtype=np.uint8) if buffer is None else np.frombuffer(buffer, dtype=np.uint8)


def _encoded_sizes(columns: Sequence[pa.Array], kinds: tuple[str, ...]) -> Int64:
    """Bytes that Avro's binary encoding needs for each record of `columns`, by the field types in `kinds`."""
    total: Int64 = np.zeros(len(columns[0]), dtype=np.int64)
    for column, kind in zip(columns, kinds, strict=True):
        plain = "long" if kind.startswith(ENUM) else kind.removesuffix("?")
        size = _value_sizes(column, plain)
        if kind.endswith("?"):
            size = np.where(column.is_valid().to_numpy(zero_copy_only=False), size, 0) + 1
        total += size
    return total


def _value_sizes(column: pa.Array, kind: str) -> Int64 | int:
    match kind:
        case "string":
            lengths = np.diff(_offsets(column))
            return lengths + _varint_sizes(lengths.astype(np.uint64) << np.uint64(1))
        case "int" | "long":
            numbers = column.fill_null(0) if column.null_count else column
            values = numbers.cast(pa.int64()).to_numpy(zero_copy_only=False)
            return _varint_sizes(((values << 1) ^ (values >> 63)).view(np.uint64))
        case "double":
            return 8
        case "float":
            return 4
        case _:  # boolean
            return 1


def _varint_sizes(values: UInt64) -> Int64:
    """Bytes of each unsigned number in base-128."""
    sizes = np.ones(len(values), dtype=np.int64)
    if len(values) == 0:
        return sizes
    top, shift = int(values.max()), 7
    while top >> shift:
        sizes += values >= np.uint64(1 << shift)
        shift += 7
    return sizes
