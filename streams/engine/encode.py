"""Encode: table rows to framed Avro, and the rows' private state for the `state.fold` header."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyruhvro

from streams.engine.effects import TableRows
from streams.engine.keys import pack_rows
from streams.engine.restore import FOLD_HEADER
from streams.operators.aggregate import Aggregate
from streams.operators.columns import Headers


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
        frame = b"\0" + self.schema_id.to_bytes(4, "big", signed=True)
        (encoded,) = pyruhvro.serialize_record_batch(self.aggregate.table(keys, rows), self.schema_json, 1)
        values = [frame + value for value in encoded.to_pylist()]
        folds: list[Headers | None] = [[(FOLD_HEADER, row)] for row in pack_rows(rows)]
        result = []
        start = 0
        for part in parts:
            end = start + len(part.keys)
            result.append((part.partition, part.keys.tolist(), values[start:end], folds[start:end]))
            start = end
        return result
