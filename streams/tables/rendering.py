"""Rows as JSON and as an Arrow stream, with personal data masked. Pure."""

import json
from collections.abc import Collection, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from streams.masking import PERSONAL_MASK

ARROW: Final = "application/vnd.apache.arrow.stream"
JSON: Final = "application/json"
_ISO: Final = "%Y-%m-%dT%H:%M:%S"


def dicts_of(batch: pa.RecordBatch, *, masked: Collection[str] = ()) -> list[dict[str, Any]]:
    """Rows as JSON has them.

    Times are ISO 8601 in UTC, decimals and numbers that JSON has not (NaN) are text, bytes are hexadecimal digits. What
    is in a column of `masked` is personal data: `•••` stands for it, null stays null.
    """
    names = batch.schema.names
    columns = [_plain(column, is_masked=name in masked) for name, column in zip(names, batch.columns, strict=True)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def key_text(key: bytes) -> str:
    """A key as text; bytes that are no UTF-8 are shown as such."""
    return key.decode(errors="backslashreplace")


def body_of(document: Any) -> bytes:
    """A document of what `dicts_of` makes."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


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
        form = f"{_ISO}Z" if kind.tz else _ISO
        found: Sequence[Any] = pc.strftime(column, format=form).to_pylist()
        return found
    values: list[Any] = column.to_pylist()
    if pa.types.is_floating(kind) and not all(pc.is_finite(column.drop_null()).to_pylist()):
        return [value if value is None or value - value == 0 else str(value) for value in values]
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return [None if value is None else value.hex() for value in values]
    if pa.types.is_decimal(kind) or pa.types.is_date(kind) or pa.types.is_time(kind):
        return [None if value is None else str(value) for value in values]
    return values
