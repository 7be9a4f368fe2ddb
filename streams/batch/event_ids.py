"""Identity of an event, (event_id, event_time), as three 64-bit words.

A UUID in canonical text form (lower case, with dashes) is its own 16 bytes; any other id is the 16-byte BLAKE2b digest
of its UTF-8 bytes (a collision needs about 2^64 ids). The third word is `event_time * 2 + (0 for a UUID, 1 for a
digest) + 1`, so that the two kinds never meet and zero never occurs (an empty slot of the id set).
"""

import hashlib
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from streams.batch.columns import Bools, Int64, Objects, UInt64

UUID_TEXT_BYTES: Final = 36
EVENT_TIME_MAX: Final = 1 << 60
"""Event times above are refused before they come here (36 million years from now)."""

_DASHES = np.array([8, 13, 18, 23])
_HEX = np.array([i for i in range(UUID_TEXT_BYTES) if i not in {8, 13, 18, 23}])
_NIBBLE = np.full(256, 255, dtype=np.uint8)
_NIBBLE[[ord(c) for c in "0123456789abcdef"]] = np.arange(16, dtype=np.uint8)


def id_words(data: NDArray[np.uint8], offsets: Int64, ids: Objects) -> tuple[UInt64, UInt64, Bools]:
    """Words of ids held in an Arrow string column.

    `data` and `offsets` (n + 1) are the column's buffers, `ids` (n) the same ids as bytes objects. Returns `hi`, `lo`
    and which of them are digests, each of shape (n,).
    """
    count = len(ids)
    hi = np.empty(count, dtype=np.uint64)
    lo = np.empty(count, dtype=np.uint64)
    digest = np.ones(count, dtype=np.bool_)
    candidates = (np.diff(offsets) == UUID_TEXT_BYTES).nonzero()[0]
    if len(candidates) == count:
        text = data[offsets[0] : offsets[-1]].reshape(count, UUID_TEXT_BYTES)
    else:
        text = data[offsets[:-1][candidates][:, None] + np.arange(UUID_TEXT_BYTES)]
    nibbles = _NIBBLE[text[:, _HEX]]
    canonical = (nibbles < 16).all(axis=1) & (text[:, _DASHES] == ord("-")).all(axis=1)
    if not canonical.all():
        nibbles, candidates = nibbles[canonical], candidates[canonical]
    words = np.ascontiguousarray((nibbles[:, 0::2] << 4) | nibbles[:, 1::2]).view(">u8")
    if len(candidates):
        hi[candidates], lo[candidates], digest[candidates] = words[:, 0], words[:, 1], False
    for row in digest.nonzero()[0].tolist():
        hashed = hashlib.blake2b(ids[row], digest_size=16).digest()
        hi[row], lo[row] = int.from_bytes(hashed[:8], "big"), int.from_bytes(hashed[8:], "big")
    return hi, lo, digest


def time_word(event_time: Int64, digest: Bools) -> UInt64:
    """Third word of the identity."""
    return (event_time.astype(np.uint64) << np.uint64(1)) + digest.astype(np.uint64) + np.uint64(1)


def event_time_of(word: UInt64) -> Int64:
    """Return the event time that is part of an identity's third word."""
    return ((word - np.uint64(1)) >> np.uint64(1)).astype(np.int64)


class AddIds(Protocol):
    """Inserts identities into an id set, as `streams.operators.dedup.id_set` describes it: natively."""

    def __call__(
        self,
        table_hi: UInt64,
        table_lo: UInt64,
        table_word: UInt64,
        seed: int,
        hi: UInt64,
        lo: UInt64,
        word: UInt64,
    ) -> Bools:
        """Insert rows in order; says of each whether it was new. The tables have room for twice as many.

        Raises:
            ValueError: the tables differ in length, or are full; or the columns do.

        """


def mix(hi: UInt64, lo: UInt64, word: UInt64, seed: int = 0) -> UInt64:
    """64-bit hash of identities (multiply-xorshift, after Steele et al.'s SplitMix64); the top bits are good ones."""
    value = (hi ^ np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
    value ^= value >> np.uint64(32)
    value = (value ^ lo) * np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(29)
    value = (value ^ word) * np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(32)
    value *= np.uint64(0x9E3779B97F4A7C15)
    return value
