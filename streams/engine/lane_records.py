"""Records and events of a micro-batch by input and by partition."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from streams.batch.events import Events
from streams.batch.lanes import lane_of, partition_of_lane, partitions_of
from streams.batch.partitions import last_rows
from streams.batch.records import Records


def by_partition(records: Records, events: Events) -> Iterator[tuple[int, Events, int]]:
    """Each partition of the records, its events in log order, and the offset of its last record."""
    partitions, rows = last_rows(records.partition)
    last = records.offset[rows].tolist()
    if len(partitions) <= 1:
        yield from ((int(partition), events, last[0]) for partition in partitions)
        return
    of_event = records.partition[events.row]
    if (of_event[1:] < of_event[:-1]).any():
        order = np.argsort(of_event, kind="stable")
        events, of_event = events.take(order), of_event[order]
    starts = np.searchsorted(of_event, partitions, side="left").tolist()
    for partition, start, end, offset in zip(
        partitions.tolist(), starts, [*starts[1:], len(of_event)], last, strict=True
    ):
        yield partition, events.take(slice(start, end)), offset


def of_input(records: Records) -> Records:
    """Records of one input, which stand in lanes, by partition."""
    epochs = {partition_of_lane(lane): epoch for lane, epoch in records.leader_epochs.items()}
    return replace(records, partition=partitions_of(records.partition), leader_epochs=epochs)


def in_lane(records: Records, input_number: int) -> Records:
    """Give records of an input its lanes; the inverse of `of_input`."""
    if not input_number:
        return records
    epochs = {lane_of(input_number, partition): epoch for partition, epoch in records.leader_epochs.items()}
    lanes = records.partition + lane_of(input_number, 0)
    return replace(records, partition=lanes, leader_epochs=epochs)
