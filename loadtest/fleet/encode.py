"""Columns of events to framed Avro values, a block at a time (about 1 µs an event)."""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro
from numpy.typing import NDArray

_HEX: Final = np.frombuffer(b"".join(b"%02x" % value for value in range(256)), dtype="S2")
_UUID_GROUPS: Final = ((0, 0, 8), (8, 9, 4), (12, 14, 4), (16, 19, 4), (20, 24, 12))
"""Source column, target column and width of each group of hexadecimal digits in the text form of a UUID."""


def frame(schema_id: int) -> bytes:
    """The five bytes before a value in Confluent's wire format."""
    return b"\0" + schema_id.to_bytes(4, "big")


def uuid_texts(rng: np.random.Generator, count: int) -> pa.StringArray:
    """`count` random UUIDs (version 4) in text form."""
    raw = rng.integers(0, 256, (count, 16), dtype=np.uint8)
    raw[:, 6] = raw[:, 6] & 0x0F | 0x40
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    digits = _HEX[raw].view(np.uint8).reshape(count, 32)
    text = np.full((count, 36), ord("-"), np.uint8)
    for source, target, width in _UUID_GROUPS:
        text[:, target : target + width] = digits[:, source : source + width]
    return _texts(text)


def numbered_texts(prefix: str, numbers: NDArray[np.int64], digits: int) -> pa.StringArray:
    """`prefix` and each number (not negative) in `digits` decimal digits, the leading zeros included."""
    text = np.empty((numbers.size, len(prefix) + digits), np.uint8)
    text[:, : len(prefix)] = np.frombuffer(prefix.encode("ascii"), np.uint8)
    for place in range(digits):
        text[:, -1 - place] = numbers // 10**place % 10 + ord("0")
    return _texts(text)


def _texts(ascii_codes: NDArray[np.uint8]) -> pa.StringArray:
    """The rows of a matrix of characters as strings."""
    count, width = ascii_codes.shape
    offsets = np.arange(0, width * (count + 1), width, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(ascii_codes))


def times(milliseconds: NDArray[np.int64], *, known: NDArray[np.bool_] | None = None) -> pa.TimestampArray:
    """Milliseconds since the epoch as Avro's `timestamp-millis`; null where they are not known."""
    return pa.array(milliseconds, mask=None if known is None else ~known).cast(pa.timestamp("ms"))


def encode(batch: pa.RecordBatch, schema: str, schema_id: int) -> NDArray[np.object_]:
    """Framed values as an array of `bytes`; the columns are the fields of `schema` (JSON text), enums as strings."""
    values = pyruhvro.serialize_record_batch(batch, schema, 1)[0]
    nothing = pa.scalar(b"", values.type)
    framed = pc.binary_join_element_wise(pa.scalar(frame(schema_id), values.type), values, nothing)
    return framed.to_numpy(zero_copy_only=False)
