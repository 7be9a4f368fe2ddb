"""The partitions of a micro-batch's records."""

from typing import Final

import numpy as np

from streams.batch.columns import Int64

_TABLE_MAX: Final = 1 << 16
"""Up to this number a table with a place for each number is used: several times faster than a search. The lanes of
further inputs (`streams.batch.lanes`) are beyond it."""


def last_rows(partition: Int64) -> tuple[Int64, Int64]:
    """Each partition that occurs, ascending, and the row of its last record."""
    if not len(partition):
        nothing = np.empty(0, dtype=np.int64)
        return nothing, nothing
    if partition.max() >= _TABLE_MAX:
        found, from_end = np.unique(partition[::-1], return_index=True)
        return found, len(partition) - 1 - from_end
    last = np.full(int(partition.max()) + 1, -1)
    last[partition] = np.arange(len(partition))  # of several rows the last one stays
    found = (last >= 0).nonzero()[0]
    return found, last[found]


def of_each_row(partition: Int64, numbers: Int64, values: Int64) -> Int64:
    """The value of each row's partition; `numbers` are all that occur, ascending, `values` one for each of them."""
    if not len(numbers) or numbers[-1] >= _TABLE_MAX:
        return values[np.searchsorted(numbers, partition)]
    table = np.zeros(int(numbers[-1]) + 1, dtype=np.int64)
    table[numbers] = values
    return table[partition]
