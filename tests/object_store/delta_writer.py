"""A process that writes rows into a Delta table until it has written all, or is killed: `URL ROWS`."""

import sys
from typing import Final

import numpy as np
import pyarrow as pa

from streams.sinks.delta.target import DeltaTarget
from streams.sinks.target import TargetBatch, TargetColumn

COLUMNS: Final = (TargetColumn("id", "long", pa.int64(), is_nullable=False),)
SCHEMA: Final = pa.schema([pa.field("id", pa.int64(), nullable=False)])
ROWS_OF_A_BATCH: Final = 10


def target_of(url: str) -> DeltaTarget:
    """The sink of all tests here."""
    return DeltaTarget(url, sink="s", topic_id="t", columns=COLUMNS)


def batch_of(partition: int, first: int) -> TargetBatch:
    """Rows `first` and on of a partition; each row's id is its offset."""
    offsets = np.arange(first, first + ROWS_OF_A_BATCH, dtype=np.int64)
    return TargetBatch(
        rows=pa.RecordBatch.from_arrays([pa.array(offsets)], schema=SCHEMA),
        partition=np.full(ROWS_OF_A_BATCH, partition, dtype=np.int64),
        offset=offsets,
        offsets={partition: first + ROWS_OF_A_BATCH},
        deleted_partition=np.empty(0, dtype=np.int64),
        deleted_offset=np.empty(0, dtype=np.int64),
    )


def write_all(url: str, rows: int) -> None:
    """Write partition 0 up to `rows`, from where the table stands."""
    target = target_of(url)
    target.prepare()
    done = max(0, target.open([0])[0])
    while done < rows:
        target.write(batch_of(0, done))
        done += ROWS_OF_A_BATCH


if __name__ == "__main__":
    write_all(sys.argv[1], int(sys.argv[2]))
