"""Which keys are compared: all, some by name, or a share of them by hash; and which of them in one go."""

import zlib
from dataclasses import dataclass
from typing import Final

_HASHES: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Chosen:
    """Keys that are compared in one go. The same keys are chosen in each run."""

    keys: frozenset[bytes] = frozenset()
    """Keys to compare; empty: all keys."""
    sample: float = 1.0
    """Share of the keys, by hash."""
    slice: int = 0
    slices: int = 1
    """Number of slices that a partition is compared in, one after the other, so that each fits into memory."""

    def has(self, key: bytes | None) -> bool:
        """Whether a record with this key is compared."""
        name = key or b""
        if self.keys:
            return key in self.keys
        digest = zlib.crc32(name)
        if self.sample < 1.0 and zlib.crc32(b"sample" + name) >= self.sample * _HASHES:
            return False
        return self.slices == 1 or digest % self.slices == self.slice

    @property
    def is_all(self) -> bool:
        """Whether no key is left out."""
        return not self.keys and self.sample >= 1.0
