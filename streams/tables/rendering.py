"""Rows as JSON and as an Arrow stream, with personal data masked. Pure."""

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import repeat
from json.encoder import encode_basestring
from math import isfinite
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from streams.masking import PERSONAL_MASK

ARROW: Final = "application/vnd.apache.arrow.stream"
JSON: Final = "application/json"
ROW_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Headers that every answer has."""
_ISO: Final = "%Y-%m-%dT%H:%M:%S"
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - the zone is written after it
_UNITS: Final = {"s": ("seconds", 1_000_000), "ms": ("milliseconds", 1_000), "us": ("microseconds", 1)}
"""By unit of a time: digits of the second, and microseconds. Python writes single times faster than Arrow."""


def dicts_of(batch: pa.RecordBatch, *, masked: Collection[str] = ()) -> list[dict[str, Any]]:
    """Rows as JSON has them.

    Times are ISO 8601 in UTC, decimals and numbers that JSON has not (NaN) are text, bytes are hexadecimal digits. What
    is in a column of `masked` is personal data: `•••` stands for it, null stays null.
    """
    names = batch.schema.names
    columns = [_plain(column, is_masked=name in masked) for name, column in zip(names, batch.columns, strict=True)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def texts_of(batch: pa.RecordBatch, *, masked: Collection[str] = ()) -> list[str]:
    """Rows as texts, each what `body_of` makes of a row of `dicts_of`, in about a third of the time."""
    names = batch.schema.names
    form = ",".join(f"{encode_basestring(name).replace('%', '%%')}:%s" for name in names)
    columns = [_texts(column, is_masked=name in masked) for name, column in zip(names, batch.columns, strict=True)]
    rows = zip(*columns, strict=True) if columns else repeat((), batch.num_rows)
    return [f"{{{form % row}}}" for row in rows]


def key_text(key: bytes) -> str:
    """A key as text; bytes that are no UTF-8 are shown as such."""
    return key.decode(errors="backslashreplace")


def body_of(document: Any) -> bytes:
    """A document of what `dicts_of` makes."""
    return _ENCODER.encode(document).encode()


def arrow_stream(batch: pa.RecordBatch, *, masked: Collection[str] = (), about: dict[str, str] | None = None) -> bytes:
    """Rows in Arrow's stream format. A column of `masked` is null. `about` goes into the metadata of the schema."""
    for place, name in enumerate(batch.schema.names):
        if name in masked:
            field = batch.schema.field(place)
            batch = batch.set_column(place, field, pa.nulls(batch.num_rows, field.type))
    batch = batch.replace_schema_metadata(about)
    with pa.BufferOutputStream() as out:
        with pa.ipc.new_stream(out, batch.schema) as writer:
            writer.write_batch(batch)
        return bytes(out.getvalue())


def batch_of(stream: bytes) -> pa.RecordBatch:
    """Rows of a stream that `arrow_stream` has made.

    Raises:
        pyarrow.ArrowInvalid: it is none.

    """
    with pa.ipc.open_stream(stream) as reader:
        table = reader.read_all()
        whole = table.combine_chunks()
        batches = whole.to_batches()
        found = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=reader.schema)
        return found.replace_schema_metadata(reader.schema.metadata)


def _plain(column: pa.Array, *, is_masked: bool) -> Sequence[Any]:
    kind = column.type
    if is_masked:
        return [PERSONAL_MASK if there else None for there in pc.is_valid(column).to_pylist()]
    if pa.types.is_timestamp(kind):
        return _times(column)
    values: list[Any] = column.to_pylist()
    if pa.types.is_floating(kind) and not all(pc.is_finite(column.drop_null()).to_pylist()):
        return [value if value is None or value - value == 0 else str(value) for value in values]
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return [None if value is None else value.hex() for value in values]
    if pa.types.is_decimal(kind) or pa.types.is_date(kind) or pa.types.is_time(kind):
        return [None if value is None else str(value) for value in values]
    return values


def _texts(column: pa.Array, *, is_masked: bool) -> Sequence[str]:
    encode: Callable[[Any], str] = _ENCODER.encode
    kind = column.type
    values: Sequence[Any] | None = None
    if not is_masked and pa.types.is_floating(kind):
        values = column.to_pylist()
        if isfinite(sum(it for it in values if it is not None) if column.null_count else sum(values)):
            encode = repr
        else:  # there is one that JSON has not, or they are very large
            values = None
    elif not is_masked and pa.types.is_integer(kind):
        encode = repr
    elif not is_masked and (pa.types.is_string(kind) or pa.types.is_timestamp(kind)):
        encode = encode_basestring
    if values is None:
        values = _plain(column, is_masked=is_masked)
    return [*map(encode, values)] if not column.null_count else ["null" if it is None else encode(it) for it in values]


def _times(column: pa.Array) -> Sequence[Any]:
    """ISO 8601, with as many digits of the second as the type has."""
    kind = column.type
    zone = "Z" if kind.tz else ""
    usual = _UNITS.get(kind.unit)
    if usual is not None and kind.tz in {None, "UTC"}:
        digits, microseconds = usual
        with suppress(OverflowError):  # a year that Python has not
            return [
                None if it is None
                else f"{(_EPOCH + timedelta(microseconds=it * microseconds)).isoformat(timespec=digits)}{zone}"
                for it in column.view(pa.int64()).to_pylist()
            ]  # fmt: skip
    found: Sequence[Any] = pc.strftime(column, format=f"{_ISO}{zone}").to_pylist()
    return found
