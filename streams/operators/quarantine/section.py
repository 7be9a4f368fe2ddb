"""The section of the journal that holds changed device breakers: keys, and breakers; no bytes where one is gone."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from streams.state.codec import cuts, pack_pairs, unpack_pairs
from streams.state.journal import reading

SECTION: Final = "quarantine"


def pack_breakers(rows: Sequence[tuple[bytes, bytes]], *, bytes_max: int) -> list[bytes]:
    """The section in pieces of at most `bytes_max`."""
    sizes = np.array([len(key) + len(row) + 8 for key, row in rows], dtype=np.int64)
    return [pack_pairs(rows[cut]) for cut in cuts(sizes, bytes_max)]


def unpack_breakers(data: memoryview) -> list[tuple[bytes, bytes]]:
    """Inverse of `pack_breakers` for one piece.

    Raises:
        JournalCorrupted: the bytes are not such a section.

    """
    with reading():
        return unpack_pairs(data)
