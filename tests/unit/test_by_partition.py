"""A micro-batch divided by partition: each partition's events in log order, however the records are interleaved."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.batch.records import Records
from streams.engine.lane_records import by_partition
from tests.unit.test_held import events


@given(st.lists(st.tuples(st.sampled_from([0, 2, 7]), st.booleans()), max_size=40))
def test_each_partition_gets_its_events_in_log_order_and_its_last_offset(rows: list[tuple[int, bool]]) -> None:
    """A record whose flag is not set has no event: it was rejected."""
    partition = np.array([number for number, _ in rows], dtype=np.int64)
    offset = np.arange(100, 100 + len(rows))
    records = Records(partition, offset, offset, [b"k"] * len(rows), [b"v"] * len(rows))
    good = np.flatnonzero(np.array([is_good for _, is_good in rows], dtype=np.bool_))
    decoded = events(*good.tolist()).with_rows(good)

    found = {number: (mine.row.tolist(), last) for number, mine, last in by_partition(records, decoded)}

    wanted = {
        number: ([row for row in good.tolist() if partition[row] == number], int(offset[partition == number][-1]))
        for number in set(partition.tolist())
    }
    assert wanted == found
