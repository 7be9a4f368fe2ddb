"""Reads Parquet files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from streams.ingest.chunks import CHUNK_BYTES_MAX, CHUNK_ROWS_MAX, Chunk, InputFormat, Source, refuse_compressed


def open_parquet(path: Path) -> Source:
    """Columns and chunks of a Parquet file; a row's number is its place in the file."""
    refuse_compressed(path, InputFormat.PARQUET)
    with pq.ParquetFile(path) as file:
        columns = tuple(file.schema_arrow.names)

    def chunks(names: Sequence[str]) -> Iterator[Chunk]:
        with pq.ParquetFile(path) as file:
            total, done = max(1, file.metadata.num_rows), 0
            for batch in file.iter_batches(batch_size=_parquet_rows(file.metadata), columns=list(names)):
                numbers = np.arange(done + 1, done + 1 + batch.num_rows)
                done += batch.num_rows
                yield Chunk(numbers, {name: batch.column(name) for name in names}, position=done / total)

    return Source(columns, chunks)


def _parquet_rows(metadata: Any) -> int:
    """Rows of a chunk, fewer where they are large."""
    groups = [metadata.row_group(position) for position in range(metadata.num_row_groups)]
    row_bytes = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=1)
    return max(1, min(CHUNK_ROWS_MAX, int(CHUNK_BYTES_MAX / max(1.0, row_bytes))))
