"""Avro bodies: one framed event as a producer would send it, or a container file of rows."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import fastavro.schema
import pyarrow as pa

from streams.gateway.records import Rejection, Row, Rows, TooManyRecords, malformed
from streams.ingest.avro_file import MAGIC, AvroFile
from streams.limits import GATEWAY_REQUEST_RECORDS_MAX

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: Final = {"ms": timedelta(milliseconds=1), "us": timedelta(microseconds=1)}
_FIXED_BYTES_MAX: Final = 4_096
_PLAIN: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string", "enum"})
_UNREADABLE: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    pa.ArrowException,
    fastavro.schema.SchemaParseException,
    fastavro.schema.UnknownType,
    OSError,
)
"""What the libraries raise on bytes that are not what they should be."""


def is_container(body: bytes) -> bool:
    """Whether a body is a container file."""
    return body.startswith(MAGIC)


def container(body: bytes, bytes_max: int) -> Rows:
    """The rows of a container file; a damaged one is one record that cannot be read. The bytes of a row are its JSON.

    `bytes_max`: what a block may take, unpacked; all blocks together take as much at most.

    Raises:
        TooManyRecords: it has more.

    """
    rows: list[Row | Rejection] = []
    try:
        file = AvroFile(body, block_bytes_max=bytes_max, block_records_max=GATEWAY_REQUEST_RECORDS_MAX)
        nested = nested_field(file.fields)
        if nested is not None:
            return _unreadable(body, f"field {nested!r} is no plain value: events are flat")
        left = bytes_max
        for block, _ in file.blocks():
            left -= file.block_bytes
            if left < 0:
                return _unreadable(body, f"it has more than {bytes_max} bytes, unpacked")
            if len(rows) + len(block) > GATEWAY_REQUEST_RECORDS_MAX:
                raise TooManyRecords
            rows += [_row(row, file.times) for row in block]
    except _UNREADABLE as error:
        return _unreadable(body, f"not a readable Avro container file: {' '.join(str(error).split())[:300]}")
    return Rows(rows, lambda index: json.dumps(rows[index], default=str).encode())


def _unreadable(body: bytes, words: str) -> Rows:
    return Rows([malformed(words)], lambda _: body)


def _row(row: Mapping[str, Any], times: Mapping[str, Any]) -> Row:
    found = dict(row)
    for name, kind in times.items():
        value, unit = found.get(name), _UNITS.get(kind.unit)
        if isinstance(value, int) and unit is not None:
            try:
                found[name] = _EPOCH + value * unit
            except OverflowError:
                continue  # a number that is no time: its field says so
    return found


def nested_field(fields: Sequence[Mapping[str, Any]]) -> str | None:
    """The first field whose values are not plain (a record, a list, a map); None: all are."""
    for field in fields:
        branches = field["type"] if isinstance(field["type"], list) else [field["type"]]
        if not all(map(_is_plain, branches)):
            return str(field["name"])
    return None


def _is_plain(kind: Any) -> bool:
    if isinstance(kind, dict):
        if kind.get("type") == "fixed":
            return isinstance(kind.get("size"), int) and 0 <= kind["size"] <= _FIXED_BYTES_MAX
        return kind.get("type") in _PLAIN
    return kind in _PLAIN
