"""Decodes values to the reader's columns: a whole batch at once, or one by one with fastavro, which decides."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from streams.avro.framing import FRAME_BYTES
from streams.avro.reads import ReaderFields
from streams.avro.resolve import Plan
from streams.avro.wire import are_symbols, are_texts, encoded_sizes, text_offsets
from streams.batch.columns import Bools, Float64, Int64, Objects, UInt64
from streams.batch.event_ids import id_words
from streams.batch.rejects import Reason
from streams.limits import WHOLE_NUMBER_MAX
from streams.text import counted

_UNREADABLE: Final = "not readable with the flow's schema"
PANIC: Final = "PanicException"
"""Type name of a panic of native code: a BaseException of no module, so that it is known by name only."""
_ADDRESS: Final = re.compile(r"<[\w.]+ object at 0x[0-9a-f]+>")
"""fastavro names its input by a memory address, which differs each time."""
_GARBAGE_ERRORS: Final = (EOFError, IndexError, KeyError, OverflowError, TypeError, ValueError, MemoryError)
"""What fastavro raises on bytes that do not match the schema."""

IdWords = tuple[UInt64, UInt64, Bools]


@dataclass(frozen=True, slots=True)
class Columns:
    """The reader's columns of some rows, before validation."""

    rows: Int64
    event_id: pa.Array
    key_field: pa.Array
    event_time: Int64
    sequence: Int64
    payload: Float64
    """A whole number that a double may not hold exactly (`WHOLE_NUMBER_MAX`) is an infinity, which is `invalid`."""
    nulls: Bools
    """Shape of payload: where it is null (a NaN that is not null is `invalid`)."""
    texts: list[pa.Array]
    """The text fields."""
    words: IdWords | None = None
    """Words of the event ids, as `event_ids.id_words` returns them, if they are known already."""

    def id_words(self) -> IdWords:
        """Words of the event ids."""
        return self.words or id_words(text_data(self.event_id), text_offsets(self.event_id), text_bytes(self.event_id))


def decode_columns(
    plan: Plan, values: list[Any], sizes: Int64, rows: Int64, reads: ReaderFields, *, framed: bool
) -> Columns | None:
    """All values at once; None when any of them is not exactly one record of the plan's writer schema."""
    columns = decode_fields(plan, values, sizes, reads.fields_read, framed=framed)
    return None if columns is None else _from_columns(plan, columns, rows, reads)


def decode_fields(
    plan: Plan, values: list[Any], sizes: Int64, names: Sequence[str], *, framed: bool
) -> dict[str, pa.Array] | None:
    """The reader's fields `names`, which are simple columns, of all values at once; enums as positions of symbols.

    None when any value is not exactly one record of the plan's writer schema, or has no value in the reader's.
    """
    schema = plan.framed_json if framed else plan.bare_json
    if schema is None:
        return None
    try:
        batch = pyruhvro.deserialize_array(values, schema)
    except ValueError:
        return None
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        return None  # fastavro decides what it is: a bad record must affect only itself
    written = batch.columns
    if framed:
        magic, ids = written[0], written[1].to_numpy().view(np.uint32)
        wanted = np.uint32(int.from_bytes(plan.schema_id.to_bytes(4, "big", signed=True), "little"))
        if magic.true_count or not (ids == wanted).all():
            return None
        written, sizes = written[2:], sizes - FRAME_BYTES
    if not np.array_equal(encoded_sizes(written, plan.shapes), sizes):
        return None  # trailing bytes, or numbers in more bytes than they need
    return _read_columns(plan, written, names)


def _read_columns(plan: Plan, written: Sequence[pa.Array], names: Sequence[str]) -> dict[str, pa.Array] | None:
    """The columns of `names`; None when some value cannot be read: text that is not UTF-8, an unknown symbol."""
    resolved = plan.columns or {}
    read = {column.position for column in resolved.values()}
    for position, (values, shape) in enumerate(zip(written, plan.shapes, strict=True)):
        if not are_symbols(values, shape) or (position in read and not are_texts(values, shape)):
            return None
    columns: dict[str, pa.Array] = {}
    for name, column in resolved.items():
        if name not in names:  # not read, but a symbol that the reader lacks is a mismatch anyway
            codes, place = column.codes, column.position
            if codes and place is not None and -1 in codes and _translated(written[place], codes) is None:
                return None
            continue
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


def _constant(value: Any, count: int) -> pa.Array:
    return pa.nulls(count, pa.float64()) if value is None else pa.array([value] * count)


def _from_columns(plan: Plan, columns: Mapping[str, pa.Array], rows: Int64, reads: ReaderFields) -> Columns:
    payload = np.empty((len(reads.payload_fields), len(rows)), dtype=np.float64)
    nulls = np.zeros(payload.shape, dtype=np.bool_)
    for position, name in enumerate(reads.payload_fields):
        column = columns[name]
        payload[position] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        if name in plan.longs and pa.types.is_integer(column.type):
            payload[position][_is_inexact(column)] = np.inf
        if column.null_count:
            nulls[position] = column.is_null().to_numpy(zero_copy_only=False)
    return Columns(
        rows=rows,
        event_id=columns[reads.id_field],
        key_field=columns[reads.key_field],
        event_time=columns[reads.time_field].cast(pa.int64()).to_numpy(zero_copy_only=False),
        sequence=columns[reads.sequence_field].cast(pa.int64()).to_numpy(zero_copy_only=False),
        payload=payload,
        nulls=nulls,
        texts=[columns[name].cast(pa.string()) for name in reads.text_fields],
    )


def constant_number(plan: Plan, name: str) -> float | None:
    """The default of a numeric field that the writer does not have, as its column holds it; None for null."""
    return _number(plan, name, (plan.columns or {})[name].default)


def from_rows(plan: Plan, decoded: list[dict[str, Any]], rows: Int64, reads: ReaderFields) -> Columns:
    """Columns of records that were decoded one by one, at `rows` of the batch."""
    columns = {
        reads.id_field: pa.array([row[reads.id_field] for row in decoded], pa.string()),
        reads.key_field: pa.array([row[reads.key_field] for row in decoded], pa.string()),
        reads.time_field: pa.array([row[reads.time_field] for row in decoded], pa.int64()),
        reads.sequence_field: pa.array([row[reads.sequence_field] for row in decoded], pa.int64()),
        **{
            name: pa.array([_number(plan, name, row[name]) for row in decoded], pa.float64())
            for name in reads.payload_fields
        },
        **{name: pa.array([row[name] for row in decoded], pa.string()) for name in reads.text_fields},
    }
    return _from_columns(plan, columns, rows, reads)


def _number(plan: Plan, name: str, value: Any) -> float | None:
    if value is None:
        return None
    if name in plan.longs and abs(value) > WHOLE_NUMBER_MAX:
        return math.inf
    return float(_code(plan, name, value))


def _is_inexact(column: pa.Array) -> Bools:
    """Which whole numbers are so large that a double may not hold them exactly."""
    too_large = pc.or_(pc.greater(column, WHOLE_NUMBER_MAX), pc.less(column, -WHOLE_NUMBER_MAX))
    found: Bools = too_large.fill_null(pa.scalar(value=False)).to_numpy(zero_copy_only=False)
    return found


def concat_fields(parts: list[Columns], reads: ReaderFields) -> Columns:
    """All parts, in batch order."""
    if len(parts) == 1 and (np.diff(parts[0].rows) > 0).all():
        return parts[0]
    if not parts:
        empty = np.empty(0, dtype=np.int64)
        text = pa.array([], pa.string())
        nothing = np.empty((len(reads.payload_fields), 0))
        texts = [text for _ in reads.text_fields]
        return Columns(empty, text, text, empty, empty, nothing, nothing.astype(np.bool_), texts)
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")
    taken = pa.array(order)
    return Columns(
        rows=rows[order],
        event_id=pa.concat_arrays([part.event_id for part in parts]).take(taken),
        key_field=pa.concat_arrays([part.key_field for part in parts]).take(taken),
        event_time=np.concatenate([part.event_time for part in parts])[order],
        sequence=np.concatenate([part.sequence for part in parts])[order],
        payload=np.concatenate([part.payload for part in parts], axis=1)[:, order],
        nulls=np.concatenate([part.nulls for part in parts], axis=1)[:, order],
        texts=[pa.concat_arrays(columns).take(taken) for columns in zip(*(part.texts for part in parts), strict=True)],
        words=_concat_words(parts, order),
    )


def _concat_words(parts: Sequence[Columns], order: Int64) -> IdWords | None:
    """Words of all ids in `order`, if those of some part are known already."""
    if all(part.words is None for part in parts):
        return None
    hi, lo, digest = zip(*(part.id_words() for part in parts), strict=True)
    return np.concatenate(hi)[order], np.concatenate(lo)[order], np.concatenate(digest)[order]


def decode_one(plan: Plan, body: bytes) -> dict[str, Any] | tuple[Reason, str]:
    """One value by fastavro: the reader's record, or why there is none.

    A value that the reader does not read to its end must still be valid for the writer's schema: fastavro does not
    notice when a part that it skips is cut off.
    """
    if plan.is_skipping and (malformed := _why_not_whole(plan, body)) is not None:
        return malformed
    stream = io.BytesIO(body)
    try:
        if plan.others and (other := plan.others.get(_branch(body))) is not None:
            message = f"the record is of {other!r}, another branch of schema {plan.schema_id}"
            return _why_not_whole(plan, body) or (Reason.INCOMPATIBLE_SCHEMA, message)
        record = fastavro.schemaless_reader(stream, plan.writer, plan.reader)
    except fastavro.read.SchemaResolutionError as error:
        malformed = _why_not_whole(plan, body)
        return malformed or (Reason.INCOMPATIBLE_SCHEMA, _nulls(plan, body) or f"{_UNREADABLE}: {error}")
    except _GARBAGE_ERRORS as error:
        return _garbage(plan, error)
    return _behind(stream, body) or dict(record)


def _why_not_whole(plan: Plan, body: bytes) -> tuple[Reason, str] | None:
    """Why bytes are not a value of the writer's schema; None if they are. Text need not be UTF-8, as in columns."""
    stream = io.BytesIO(body)
    try:
        fastavro.schemaless_reader(stream, plan.writer, None, handle_unicode_errors="ignore")
    except _GARBAGE_ERRORS as error:
        return _garbage(plan, error)
    return _behind(stream, body)


def _nulls(plan: Plan, body: bytes) -> str:
    """Names of the fields of a whole value that are null where the reader allows no null; empty if there are none."""
    value: Any = fastavro.schemaless_reader(io.BytesIO(body), plan.writer, None, handle_unicode_errors="ignore")
    reader: Any = plan.reader
    if not isinstance(value, dict):
        return ""
    never_null = [field["name"] for field in reader["fields"] if not _takes_null(field["type"])]
    nulls = ", ".join(repr(name) for name in never_null if name in value and value[name] is None)
    return f"{_UNREADABLE}: null in {nulls}, which cannot be null there" if nulls else ""


def _takes_null(kind: Any) -> bool:
    return isinstance(kind, list) or kind == "null"


def _branch(body: bytes) -> int:
    """Position of the branch of a union that a value begins with."""
    return int(fastavro.schemaless_reader(io.BytesIO(body), "long", None))


def _garbage(plan: Plan, error: Exception) -> tuple[Reason, str]:
    words = _ADDRESS.sub("the value", str(error))
    return Reason.MALFORMED, f"not a value of schema {plan.schema_id}: {type(error).__name__}: {words}"


def _behind(stream: io.BytesIO, body: bytes) -> tuple[Reason, str] | None:
    rest = len(body) - stream.tell()
    return (Reason.MALFORMED, f"{counted(rest, 'byte')} after the end of the value") if rest else None


def text_bytes(column: pa.Array) -> Objects:
    """A string column as bytes objects, None where it is null."""
    array: Objects = column.cast(pa.binary()).to_numpy(zero_copy_only=False)
    return array


def text_data(column: pa.Array) -> Any:
    """The bytes of a string column, to which `text_offsets` refers."""
    buffer = column.buffers()[2]
    return np.empty(0, dtype=np.uint8) if buffer is None else np.frombuffer(buffer, dtype=np.uint8)
