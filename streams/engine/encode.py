"""Encode: table and window rows to framed Avro, and private state for the headers that restore reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyruhvro

from streams.batch.columns import Headers
from streams.batch.rows import pack_rows
from streams.engine.changelog_rows import FOLD_HEADER, WINDOWS_HEADER, windows_headers
from streams.engine.effects import TableRows
from streams.engine.keys import ClosedWindows
from streams.flow.declaration import Window
from streams.operators.fold.aggregate import Aggregate
from streams.state.identity import table_digest


@dataclass(frozen=True, slots=True)
class TableEncoder:
    """Encoder of one table: its aggregate, its Avro schema, and the id that the registry gave it."""

    topic: str
    aggregate: Aggregate
    schema_json: str
    schema_id: int

    def encode(self, parts: Sequence[TableRows]) -> list[tuple[int, list[bytes], list[bytes], list[Headers | None]]]:
        """(partition, keys, values, headers) of each part; all parts are encoded in one go."""
        keys = np.concatenate([part.keys for part in parts])
        rows = np.concatenate([part.rows for part in parts])
        values = _framed(self.aggregate.table(keys, rows), self.schema_json, self.schema_id)
        digest = table_digest(parts[0].table)
        folds: list[Headers | None]
        if parts[0].windows:
            declared = [window for window, _ in parts[0].windows]
            columns = zip(*([row for _, row in part.windows] for part in parts), strict=True)
            windows = [(window, np.concatenate(column)) for window, column in zip(declared, columns, strict=True)]
            folds = [
                [(FOLD_HEADER, digest + row), (WINDOWS_HEADER, packed)]
                for row, packed in zip(pack_rows(rows), windows_headers(windows), strict=True)
            ]
        else:
            folds = [[(FOLD_HEADER, digest + row)] for row in pack_rows(rows)]
        result = []
        start = 0
        for part in parts:
            end = start + len(part.keys)
            result.append((part.partition, part.keys.tolist(), values[start:end], folds[start:end]))
            start = end
        return result


@dataclass(frozen=True, slots=True)
class WindowEncoder:
    """Encoder of one window: its declaration, its Avro schema, and the id that the registry gave it."""

    window: Window
    schema_json: str
    schema_id: int

    def encode(self, parts: Sequence[ClosedWindows]) -> tuple[list[bytes], list[bytes]]:
        """Keys and values of closed windows."""
        keys = np.concatenate([part.keys for part in parts])
        rows = np.concatenate([part.rows for part in parts])
        start = np.ascontiguousarray(rows["start"])
        end, revision = start + self.window.size_ms, np.ascontiguousarray(rows["revision"])
        table = self.window.aggregate.table(keys, start, end, revision, rows["state"])
        return keys.tolist(), _framed(table, self.schema_json, self.schema_id)


def _framed(table: pa.RecordBatch, schema_json: str, schema_id: int) -> list[bytes]:
    frame = b"\0" + schema_id.to_bytes(4, "big", signed=True)
    (encoded,) = pyruhvro.serialize_record_batch(table, schema_json, 1)
    return [frame + value for value in encoded.to_pylist()]
