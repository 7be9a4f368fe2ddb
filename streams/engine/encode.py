"""Encodes operators' rows as framed Avro, and their private state for the headers that restore reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyruhvro

from streams.batch.columns import Headers
from streams.batch.refs import byte_objects
from streams.engine.changelog_rows import CARRIED_HEADER, OWN_HEADER, carried_headers, own_headers
from streams.operators.changes import CarriedRows, ChangelogRows, RowRecords


@dataclass(frozen=True, slots=True)
class ChangelogPart:
    """Rows of one partition for a changelog, with the state that they carry."""

    partition: int
    rows: ChangelogRows
    carried: Sequence[CarriedRows]


@dataclass(frozen=True, slots=True)
class RowEncoder:
    """Encoder of the rows of one topic: its Avro schema, and the id that the registry gave it."""

    topic: str
    schema_json: str
    schema_id: int

    def encode(self, parts: Sequence[RowRecords]) -> tuple[list[bytes], list[bytes]]:
        """Keys and values of all parts (at least one), encoded together."""
        keys = np.concatenate([byte_objects(part.keys) for part in parts])
        rows = np.concatenate([part.rows for part in parts])
        table = next(iter(parts)).columns(keys, rows)
        return keys.tolist(), _framed(table, self.schema_json, self.schema_id)

    def encode_changelog(
        self, parts: Sequence[ChangelogPart]
    ) -> Iterator[tuple[int, list[bytes], list[bytes], list[Headers | None]]]:
        """(partition, keys, values, headers) of each part; all parts are encoded together."""
        keys, values = self.encode([part.rows for part in parts])
        start = 0
        for part in parts:
            end = start + len(part.rows)
            yield part.partition, keys[start:end], values[start:end], _headers(part)
            start = end


def _headers(part: ChangelogPart) -> list[Headers | None]:
    own = own_headers(part.rows.digest, part.rows.rows)
    if not part.carried:
        return [[(OWN_HEADER, row)] for row in own]
    here = part.rows.of_changed
    carried = part.carried if here is None else [replace(one, rows=one.rows[here]) for one in part.carried]
    return [
        [(OWN_HEADER, row), (CARRIED_HEADER, packed)] for row, packed in zip(own, carried_headers(carried), strict=True)
    ]


def _framed(table: pa.RecordBatch, schema_json: str, schema_id: int) -> list[bytes]:
    frame = b"\0" + schema_id.to_bytes(4, "big", signed=True)
    (encoded,) = pyruhvro.serialize_record_batch(table, schema_json, 1)
    return [frame + value for value in encoded.to_pylist()]
