"""Rows for PostgreSQL: as CSV for COPY; which ones it would refuse; which ones COPY would misread."""

import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from streams.batch.columns import Int64
from streams.sinks.postgres.statements import OFFSET, PARTITION
from streams.sinks.target import TargetBatch, TargetColumn

_NUL: Final = "\0"
_TEXTS: Final = frozenset({"string", "json"})
_CSV: Final = pyarrow.csv.WriteOptions(include_header=False, batch_size=8_192)
_END_MARK: Final = r"(^|[\r\n])\\\."
"""Of COPY, until version 17 also within quotes: `\\.` at the beginning of a line."""


def unfit(batch: TargetBatch, columns: Sequence[TargetColumn]) -> dict[tuple[int, int], str]:
    """Places of rows that PostgreSQL would not take, and why: text with the character NUL."""
    found: dict[tuple[int, int], str] = {}
    for column in columns:
        if column.kind not in _TEXTS:
            continue
        pattern = _NUL if column.kind == "string" else r"\u0000"  # as JSON text is written
        hits = pc.match_substring(batch.rows.column(column.name), pattern).fill_null(pa.scalar(value=False))
        if not pc.any(hits).as_py():
            continue
        for at in np.flatnonzero(hits.to_numpy(zero_copy_only=False)).tolist():
            place = int(batch.partition[at]), int(batch.offset[at])
            found.setdefault(place, f"{column.name} holds the character NUL, which PostgreSQL cannot store in text")
    return found


def awkward(batch: TargetBatch, columns: Sequence[TargetColumn]) -> Int64:
    """Positions of rows that COPY would misread: a line of a text begins with its mark of the end."""
    hits = np.zeros(batch.rows.num_rows, dtype=np.bool_)
    for column in columns:
        if column.kind in _TEXTS:
            found = pc.match_substring_regex(batch.rows.column(column.name), _END_MARK)
            hits |= found.fill_null(pa.scalar(value=False)).to_numpy(zero_copy_only=False)
    return np.flatnonzero(hits)


def table_of(batch: TargetBatch, columns: Sequence[TargetColumn]) -> pa.Table:
    """All columns of the rows, bytes as the text that PostgreSQL takes for them, and where each row was read."""
    arrays = [_csv_column(batch.rows.column(column.name), column) for column in columns]
    place = [pa.array(batch.partition, pa.int32()), pa.array(batch.offset, pa.int64())]
    return pa.Table.from_arrays([*arrays, *place], names=[*(column.name for column in columns), PARTITION, OFFSET])


def csv_of(table: pa.Table) -> memoryview:
    """The table as CSV: null is an empty cell, text is always in quotes."""
    out = io.BytesIO()
    pyarrow.csv.write_csv(table, out, _CSV)
    return out.getbuffer()


def texts_of(table: pa.Table, rows: Int64) -> list[list[str | None]]:
    """The values of single rows as text."""
    taken = table.take(pa.array(rows))
    columns: list[Any] = [column.cast(pa.string()).to_pylist() for column in taken.columns]
    return [list(values) for values in zip(*columns, strict=True)]


def _csv_column(values: pa.Array, column: TargetColumn) -> pa.Array:
    if column.kind != "bytes":
        return values
    return pa.array([None if value is None else "\\x" + value.hex() for value in values.to_pylist()], pa.string())
