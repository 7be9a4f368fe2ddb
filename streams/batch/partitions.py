"""Which partitions the records of a micro-batch are of."""

import numpy as np

from streams.batch.columns import Int64


def last_rows(partition: Int64) -> tuple[Int64, Int64]:
    """Each partition that occurs, ascending, and the row of its last record."""
    if not len(partition):
        nothing = np.empty(0, dtype=np.int64)
        return nothing, nothing
    last = np.full(int(partition.max()) + 1, -1)
    last[partition] = np.arange(len(partition))  # of several rows the last one stays
    found = np.flatnonzero(last >= 0)
    return found, last[found]
