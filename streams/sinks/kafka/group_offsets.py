"""Positions of a cycle as offsets of the consumer group."""

from collections.abc import Mapping, Sequence

from confluent_kafka import TopicPartition

from streams.batch.lanes import input_of, partition_of_lane
from streams.kafka.positions import metadata_of
from streams.sinks.base import Committed


def offsets_of(positions: Mapping[int, Committed], topics: Sequence[str]) -> list[TopicPartition]:
    """Offsets with their metadata; positions are by lane (`batch.lanes`), `topics` those of the inputs in order."""
    return [
        TopicPartition(topics[input_of(lane)], partition_of_lane(lane), position.offset_next, metadata_of(position))
        for lane, position in positions.items()
    ]
