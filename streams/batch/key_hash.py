"""The hash of a key by which it is given a partition: murmur2, bit for bit as Java's Kafka client has it.

`murmur2` is the definition, one key at a time; `murmur2_all` gives the same for many keys by vector operations.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.batch.columns import Int64

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_R: Final = 24
_WORD: Final = 0xFFFFFFFF
_POSITIVE: Final = 0x7FFFFFFF
_FEW: Final = 8
"""Fewer keys are hashed faster without vectors, whatever their length."""
_M32: Final = np.uint32(_M)
_R32: Final = np.uint32(_R)


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
    return value & _POSITIVE


def murmur2_all(keys: Sequence[bytes]) -> Int64:
    """`murmur2` of each key, in their order.

    Costs some vector operations for each length of key that many have; few are hashed one at a time.
    """
    if len(keys) < _FEW:
        return np.fromiter(map(murmur2, keys), np.int64, len(keys))
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    found = np.empty(len(keys), dtype=np.int64)
    for length in np.unique(lengths).tolist():
        rows = (lengths == length).nonzero()[0]
        some = [keys[row] for row in rows.tolist()]
        found[rows] = list(map(murmur2, some)) if len(some) < _FEW else _of_one_length(some, length)
    return found


def _of_one_length(keys: list[bytes], length: int) -> NDArray[np.uint32]:
    tail = length & ~3
    padded = length if length == tail else tail + 4
    text = np.zeros((len(keys), padded), dtype=np.uint8)
    text[:, :length] = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), length)
    words = text.view("<u4") if padded else np.empty((len(keys), 0), dtype=np.uint32)
    value = np.full(len(keys), (_SEED ^ length) & _WORD, dtype=np.uint32)
    for column in range(tail // 4):
        block = words[:, column] * _M32
        block = (block ^ (block >> _R32)) * _M32
        value = (value * _M32) ^ block
    if length > tail:
        value = (value ^ words[:, -1]) * _M32
    value = (value ^ (value >> np.uint32(13))) * _M32
    value ^= value >> np.uint32(15)
    return value & np.uint32(_POSITIVE)
