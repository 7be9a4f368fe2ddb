"""Lanes: the partitions of all inputs of a flow, each under one number.

A flow reads one topic or several that are partitioned alike; a task reads the same partition of each. Where records,
positions and idle time of all of them are kept together, they go by the number of the lane. The lanes of the first
input have the numbers of its partitions.
"""

from collections.abc import Iterable
from typing import Final

from streams.batch.columns import Int64

PARTITIONS_MAX: Final = 1 << 24
"""Upper bound of a topic's partitions."""


def lane_of(input_number: int, partition: int) -> int:
    """Number of the lane of a partition of an input; inputs are counted from 0."""
    return input_number * PARTITIONS_MAX + partition


def input_of(lane: int) -> int:
    """Number of the input that a lane belongs to."""
    return lane // PARTITIONS_MAX


def partition_of_lane(lane: int) -> int:
    """Partition of a lane."""
    return lane % PARTITIONS_MAX


def inputs_of(lanes: Int64) -> Int64:
    """Return `input_of` each lane of a column."""
    found: Int64 = lanes // PARTITIONS_MAX
    return found


def partitions_of(lanes: Int64) -> Int64:
    """Return `partition_of_lane` of each lane of a column."""
    found: Int64 = lanes % PARTITIONS_MAX
    return found


def all_lanes(partitions: Iterable[int], inputs: int) -> list[int]:
    """Lanes of these partitions in each of so many inputs."""
    wanted = list(partitions)
    return [lane_of(number, partition) for number in range(inputs) for partition in wanted]
