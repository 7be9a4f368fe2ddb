"""Which partition a key belongs to: murmur2, bit for bit as Java's Kafka client and librdkafka's `murmur2_random` do.

This is the one definition; nothing else in the package may know how keys map to partitions.
"""

from typing import Final

PARTITIONER: Final = "murmur2_random"
"""librdkafka's name for it: every keyed producer sets `partitioner` to this."""

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_R: Final = 24
_WORD: Final = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """31-bit hash of a key: `Utils.toPositive(Utils.murmur2(key))` of Kafka's Java client, 0 to 2^31 - 1."""
    length = len(key)
    value = (_SEED ^ length) & _WORD
    tail = length & ~3
    for start in range(0, tail, 4):
        block = int.from_bytes(key[start : start + 4], "little") * _M & _WORD
        block = (block ^ (block >> _R)) * _M & _WORD
        value = (value * _M & _WORD) ^ block
    if length > tail:
        value = (value ^ int.from_bytes(key[tail:], "little")) * _M & _WORD
    value = (value ^ (value >> 13)) * _M & _WORD
    value ^= value >> 15
    return value & 0x7FFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """Partition of a key on a topic with `partitions` partitions (at least 1)."""
    return murmur2(key) % partitions
