"""Which partition a key belongs to: murmur2, bit for bit as Java's Kafka client and librdkafka's `murmur2_random` do.

With the hash of `streams.batch.key_hash` this is the one definition of how keys map to partitions.
"""

from collections.abc import Sequence
from typing import Final

from streams.batch.columns import Int64
from streams.batch.key_hash import murmur2, murmur2_all

PARTITIONER: Final = "murmur2_random"
"""librdkafka's name for it: every keyed producer sets `partitioner` to this."""


def partition_of(key: bytes, partitions: int) -> int:
    """Partition of a key on a topic with `partitions` partitions (at least 1)."""
    return murmur2(key) % partitions


def partitions_of(keys: Sequence[bytes], partitions: int) -> Int64:
    """Return `partition_of` for each key."""
    return murmur2_all(keys) % partitions
