"""Identities as columns, and the section of the journal that holds those of a cycle."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streams.batch.columns import UInt64
from streams.state.codec import ColumnReader
from streams.state.journal import reading

SECTION: Final = "dedup"
_HEAD: Final = struct.Struct("<Iq")  # ids, event time from which on all ids are known
_ID_BYTES: Final = 24


@dataclass(frozen=True, slots=True)
class Ids:
    """Identities as columns."""

    hi: UInt64
    lo: UInt64
    word: UInt64

    def __len__(self) -> int:
        return len(self.word)

    @staticmethod
    def concat(parts: "Sequence[Ids]") -> "Ids":
        """All identities of `parts`."""
        if not parts:
            nothing = np.empty(0, dtype=np.uint64)
            return Ids(nothing, nothing, nothing)
        columns = ([part.hi for part in parts], [part.lo for part in parts], [part.word for part in parts])
        return Ids(*(np.concatenate(column) for column in columns))


def pack_ids(ids: Ids, known_from: int, *, bytes_max: int) -> list[bytes]:
    """The section in pieces of at most `bytes_max`; `known_from` is the event time from which on all ids are known."""
    return list(_pieces(ids, known_from, max(1, (bytes_max - _HEAD.size) // _ID_BYTES)))


def _pieces(ids: Ids, known_from: int, each: int) -> Iterator[bytes]:
    if not len(ids) and known_from:
        yield _HEAD.pack(0, known_from)
    for start in range(0, len(ids), each):
        cut = slice(start, start + each)
        columns = (ids.hi[cut], ids.lo[cut], ids.word[cut])
        yield _HEAD.pack(len(columns[0]), known_from) + b"".join(column.tobytes() for column in columns)


def unpack_ids(data: memoryview) -> tuple[Ids, int]:
    """Inverse of `pack_ids` for one piece.

    Raises:
        JournalCorrupted: the bytes are not such a section.

    """
    with reading():
        columns = ColumnReader(data)
        count, known_from = _HEAD.unpack(columns.blob(_HEAD.size))
        return Ids(*(columns.numbers("<u8", count) for _ in range(3))), known_from
