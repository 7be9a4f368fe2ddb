"""In which partition of a topic a record of a task goes: by the layout of the task, whatever the topic has by now."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from streams.batch.key_hash import murmur2_all
from streams.sinks.base import TopicRecords


def placed(records: TopicRecords, partitions: int, partition: int, *, is_home: bool) -> Iterator[TopicRecords]:
    """The records, all of which have a key, in the partitions that these belong to, in their order in each.

    `partitions`: by how many the state of the task of `partition` is divided; 0: the producer decides. `is_home`: all
    keys belong to `partition`.
    """
    if not partitions:
        yield records
        return
    if is_home:
        yield replace(records, partition=partition)
        return
    to = murmur2_all([key or b"" for key in records.keys]) % partitions
    for number in np.unique(to).tolist():
        rows = np.flatnonzero(to == number).tolist()
        yield replace(
            records,
            keys=[records.keys[row] for row in rows],
            values=[records.values[row] for row in rows],
            timestamps_ms=np.asarray(records.timestamps_ms)[rows],
            headers=None if records.headers is None else [records.headers[row] for row in rows],
            partition=number,
        )
