"""Reads Avro object container files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streams.ingest.avro_file import AvroFile
from streams.ingest.chunks import CHUNK_ROWS_MAX, Chunk, InputFormat, Source, refuse_compressed
from streams.ingest.fields import Values


def open_avro(path: Path) -> Source:
    """Columns and chunks of an Avro file; a row's number is its place in the file."""
    refuse_compressed(path, InputFormat.AVRO)
    file = AvroFile(path)

    def chunks(names: Sequence[str]) -> Iterator[Chunk]:
        done = 0
        rows: list[dict[str, Any]] = []
        position = 0.0
        for block, position in file.blocks():
            rows += block
            while len(rows) >= CHUNK_ROWS_MAX:
                yield chunk(rows[:CHUNK_ROWS_MAX], done, position, names)
                done += CHUNK_ROWS_MAX
                rows = rows[CHUNK_ROWS_MAX:]
        if rows:
            yield chunk(rows, done, position, names)

    def chunk(rows: list[dict[str, Any]], done: int, position: float, names: Sequence[str]) -> Chunk:
        columns: dict[str, Values] = {}
        for name in names:
            values = [row[name] for row in rows]
            columns[name] = pa.array(values, file.times[name]) if name in file.times else values
        return Chunk(np.arange(done + 1, done + 1 + len(rows)), columns, position=position)

    return Source(file.columns, chunks)
