"""Source records to events, by other means than the engine's: columnar where that is provably right, else fastavro.

A block whose records all have the layout that the reader schema demands goes through Arrow and back; what comes back
equal byte for byte was decoded right, whatever the library does with junk at the end of a record. Everything else is
decoded record by record with the writer schema resolved to the reader schema.
"""

import io
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import fastavro
import pyarrow as pa
import pyruhvro
from fastavro.utils import generate_many

from streams.reconcile.model.events import WHOLE_NUMBER_MAX, Event, Fields, Record, Reject

SAMPLES: Final = 100
"""Random values of a writer schema that are tried before it counts as unreadable: a union or an enum may have some that
the reader knows and some that it does not."""
_BLOCK_RECORDS_MIN: Final = 16
"""Fewer are as cheap one by one."""
_FRAME_BYTES: Final = 5
# What fastavro raises for bytes that are not a record of the writer's schema.
_UNDECODABLE: Final = (EOFError, IndexError, KeyError, ValueError, TypeError, OverflowError, MemoryError)

SchemaById = Callable[[int], str | None]
Values = tuple[Any, ...]
Make = Callable[[Record, Values], Any]
"""An event of a record and the values of its fields."""


def plain_schema(text: str) -> Any:
    """The schema parsed for fastavro, without logical types: times stay integers."""
    return fastavro.parse_schema(_without_logical_types(json.loads(text)))


def _without_logical_types(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_logical_types(value) for key, value in node.items() if key != "logicalType"}
    if isinstance(node, list):
        return [_without_logical_types(value) for value in node]
    return node


class Decoder:
    """Framed records to events or, where that fails, to `Reject` with the reason."""

    def __init__(self, schema_by_id: SchemaById, reader_schema: str, names: Sequence[str], make: Make) -> None:
        """`names` are the fields of the reader schema that `make` gets the values of, in this order."""
        self._schema_by_id = schema_by_id
        self._names = tuple(names)
        self._make = make
        self._reader_text = reader_schema
        self._reader = plain_schema(reader_schema)
        self._plans: dict[int, _Plan | None] = {}

    def decode(self, records: Sequence[Record]) -> list[Any]:
        """Decode records; result i belongs to record i."""
        results: list[Any] = [None] * len(records)
        by_schema: dict[int, list[int]] = defaultdict(list)
        for row, record in enumerate(records):
            value = record.value
            if not _is_framed(value):
                results[row] = _reject(record, "not_framed")
            else:
                by_schema[int.from_bytes(value[1:5], "big")].append(row)
        for schema_id, rows in by_schema.items():
            decoded = self._decode_block([records[row] for row in rows], schema_id)
            for row, result in zip(rows, decoded, strict=True):
                results[row] = result
        return [result for result in results if result is not None]

    def decode_one(self, record: Record) -> Any:
        """As `decode`, for a single record: cheaper for few, several times dearer for many."""
        plan = self._plan(int.from_bytes(record.value[1:5], "big")) if _is_framed(record.value) else None
        if plan is None or not plan.readable:
            return self.decode([record])[0]
        return self._decode_one(record, plan)

    def _plan(self, schema_id: int) -> "_Plan | None":
        if schema_id not in self._plans:
            text = self._schema_by_id(schema_id)
            self._plans[schema_id] = None if text is None else _Plan.of(text, self._reader_text, self._names)
        return self._plans[schema_id]

    def _decode_block(self, records: list[Record], schema_id: int) -> Sequence[Any]:
        plan = self._plan(schema_id)
        if plan is None:
            return [_reject(record, "unknown_schema") for record in records]
        if not plan.readable:
            return [_reject(record, "incompatible_schema") for record in records]
        if plan.columnar is None:
            return [self._decode_one(record, plan) for record in records]
        return self._decode_columns(records, plan, plan.columnar)

    def _decode_columns(self, records: list[Record], plan: "_Plan", schema: str) -> Sequence[Any]:
        """As one block; where that fails by halves, so that one bad record costs its neighbours little."""
        if len(records) < _BLOCK_RECORDS_MIN:
            return [self._decode_one(record, plan) for record in records]
        payloads = [record.value[_FRAME_BYTES:] for record in records]
        try:
            batch = pyruhvro.deserialize_array(payloads, schema)
            again = pyruhvro.serialize_record_batch(batch, schema, 1)[0]
            columns = [_values(batch.column(name)) for name in self._names]
        except ValueError:
            half = len(records) // 2
            return [
                *self._decode_columns(records[:half], plan, schema),
                *self._decode_columns(records[half:], plan, schema),
            ]
        events: list[Any] = [
            self._make(record, values) for record, values in zip(records, zip(*columns, strict=True), strict=True)
        ]
        for row, (payload, same) in enumerate(zip(payloads, again.to_pylist(), strict=True)):
            if payload != same:
                events[row] = self._decode_one(records[row], plan)
        return events

    def _decode_one(self, record: Record, plan: "_Plan") -> Any:
        payload = io.BytesIO(record.value[_FRAME_BYTES:])
        try:
            if plan.writer != self._reader:  # what the reader does not know is skipped, however short it is
                fastavro.schemaless_reader(payload, plan.writer, None, handle_unicode_errors="ignore")
                payload.seek(0)
            fields = fastavro.schemaless_reader(payload, plan.writer, self._reader)
        except fastavro.read.SchemaResolutionError:  # a symbol that the reader's enum does not have
            return _reject(record, "incompatible_schema")
        except _UNDECODABLE:
            return _reject(record, "malformed")
        if payload.read(1):
            return _reject(record, "malformed")
        values: Any = fields
        return self._make(record, tuple(values[name] for name in self._names))


def unknown_schema(record: Record) -> Reject:
    """What becomes of a record whose schema the registry does not know."""
    return _reject(record, "unknown_schema")


def bad_header(record: Record) -> Reject:
    """What becomes of a record that has headers whose names are not UTF-8."""
    return _reject(record, "bad_header")


def too_large(record: Record) -> Reject:
    """What becomes of a record with more bytes of headers than a record may have."""
    return _reject(record, "too_large")


class _Plan(NamedTuple):
    """How records of one writer schema are decoded."""

    writer: Any
    readable: bool
    """Whether the writer schema resolves to the reader schema."""
    columnar: str | None
    """The writer schema, when the block path may be tried with it."""

    @staticmethod
    def of(text: str, reader_text: str, names: Sequence[str]) -> "_Plan":
        writer, reader = plain_schema(text), plain_schema(reader_text)
        if not any(_resolves(sample, writer, reader) for sample in generate_many(writer, SAMPLES)):
            return _Plan(writer, readable=False, columnar=None)
        types, wanted = _column_types(text), _column_types(reader_text)
        fits = all(types.get(name) == wanted[name] for name in names)
        return _Plan(writer, readable=True, columnar=text if fits else None)


def _resolves(sample: Any, writer: Any, reader: Any) -> bool:
    data = io.BytesIO()
    fastavro.schemaless_writer(data, writer, sample)
    data.seek(0)
    try:
        fastavro.schemaless_reader(data, writer, reader)
    except fastavro.read.SchemaResolutionError:
        return False
    return True


def _column_types(text: str) -> dict[str, tuple[pa.DataType, list[str] | None]]:
    """Arrow type and, of enums, the symbols of each field; nothing when the columnar decoder does not know them all."""
    types = {field["name"]: field["type"] for field in plain_schema(text)["fields"]}
    try:
        columns = pyruhvro.avro_to_arrow_schema(text)
    except ValueError:
        return {}
    return {column.name: (column.type, _symbols(types[column.name])) for column in columns}


def _symbols(kind: Any) -> list[str] | None:
    return kind.get("symbols") if isinstance(kind, dict) else None


def _is_framed(value: bytes) -> bool:
    return len(value) >= _FRAME_BYTES and value[0] == 0


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    # NaN and null are different things here, and NumPy knows only one of them.
    values: list[Any] = column.to_pylist() if column.null_count else column.to_numpy(zero_copy_only=False).tolist()
    return values


def _reject(record: Record, reason: str) -> Reject:
    return Reject(record.offset, record.key, record.value or b"", reason, record.timestamp_ms)


def decoder_of(schema_by_id: SchemaById, reader_schema: str, fields: Fields) -> Decoder:
    """A decoder to `Event`, for a flow that reads these fields."""
    enums = symbols_of(reader_schema, fields.numbers)
    symbols = [enums.get(name) for name in fields.numbers]
    first, last = 4, 4 + len(fields.numbers)

    def make(record: Record, values: Values) -> Event:
        numbers = tuple(_number(value, places) for value, places in zip(values[first:last], symbols, strict=True))
        event_id, entity, time_ms, sequence = values[:first]
        return Event(*record, event_id, entity, time_ms, sequence, numbers, values[last:])

    return Decoder(schema_by_id, reader_schema, fields.names, make)


def symbols_of(schema: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Symbols of those of the fields `names` that are enums."""
    known = {field["name"]: field["type"] for field in plain_schema(schema)["fields"]}
    return {name: symbols for name in names if (symbols := _symbols_of(known[name])) is not None}


def _symbols_of(kind: Any) -> list[str] | None:
    """Symbols of an enum, or of one that may be null."""
    branches = kind if isinstance(kind, list) else [kind]
    return next((symbols for branch in branches if (symbols := _symbols(branch)) is not None), None)


def _number(value: Any, symbols: list[str] | None) -> float | None:
    if value is None:
        return None
    if symbols is not None:
        return float(symbols.index(value))
    if isinstance(value, int) and abs(value) > WHOLE_NUMBER_MAX:
        return float("inf")
    return float(value)


def row_reader(schema_by_id: SchemaById) -> Callable[[bytes], dict[str, Any]]:
    """Rows of a topic from its records, times in milliseconds; it raises `RowUnreadable` for what is none."""
    schemas: dict[int, Any] = {}

    def read_row(value: bytes) -> dict[str, Any]:
        if not _is_framed(value):
            raise RowUnreadable("it is not framed: no schema id")
        schema_id = int.from_bytes(value[1:_FRAME_BYTES], "big")
        if schema_id not in schemas:
            text = schema_by_id(schema_id)
            schemas[schema_id] = None if text is None else plain_schema(text)
        if schemas[schema_id] is None:
            raise RowUnreadable(f"the registry has no schema {schema_id}")
        body = io.BytesIO(value[_FRAME_BYTES:])
        try:
            row: Any = fastavro.schemaless_reader(body, schemas[schema_id], None)
        except _UNDECODABLE as error:
            raise RowUnreadable(f"it is no record of schema {schema_id}: {error}") from None
        if body.read(1) or not isinstance(row, dict):
            raise RowUnreadable(f"it is no record of schema {schema_id}")
        return row

    return read_row


class RowUnreadable(ValueError):
    """The bytes are no row; the message says why."""
