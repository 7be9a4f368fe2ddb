"""Journal codec: the changes of operator state in one commit cycle of one partition, packed into few records.

A record is a fixed header and then sections, each with its name: the positions of the inputs, the identity of the
state (`state.identity`), and what each operator has written about its changes. What an operator's section holds is its
own matter. A cycle that would exceed the size of a record is split into parts; they are written in one transaction, so
they are seen together or not at all.

Formats: `SJ1`, `SJ2` (fields by position, no identity) are refused: restore says what to do.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from streams.batch.columns import TIME_MIN
from streams.state.codec import SIZE

_MAGIC: Final = b"SJ3\0"
_EARLIER_MAGICS: Final = (b"SJ1\0", b"SJ2\0")
_HEADER: Final = struct.Struct("<4sHHqqH")  # magic, part, parts, cycle, newest event time, sections

POSITIONS: Final = "positions"
IDENTITY: Final = "identity"
GROWTH: Final = "growth"
"""Section of the engine, where there is something to say: a packed `growth.state.GrowthState`."""

Sections = Mapping[str, Sequence[bytes]]
"""Pieces of each section, by its name."""


class JournalCorrupted(ValueError):
    """The bytes are not a journal record."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a cycle ended in one input: the offset to consume next, and the watermark there."""

    offset_next: int
    watermark: int
    leader_epoch: int = -1
    """Of the newest record before the offset (never an earlier epoch than that one's); -1: not known."""


BEGINNING: Final = Position(-1, TIME_MIN)
"""Where nothing was read yet."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One cycle, or one part of it as a record holds it."""

    cycle: int
    event_time_max: int
    """Newest event time of what operators have written: once it is old enough, the record is no longer needed."""
    sections: Mapping[str, memoryview] = field(default_factory=dict)
    """What operators have written, by name."""
    positions: Mapping[str, Position] = field(default_factory=dict)
    """By input: the source's topic, names of what is read beside it; in the first part of a cycle."""
    identity: bytes = b""
    """A packed `state.identity.Identity`; in the first part of a cycle."""
    part: int = 0
    parts: int = 1


def pack(entry: JournalEntry, sections: Sections, *, record_bytes_max: int) -> list[bytes]:
    """Records of the cycle of `entry`, each at most about `record_bytes_max` (a single piece may be larger).

    Pieces of a section keep their order; a record holds at most one of each.
    """
    parts = list(_parts(sections, record_bytes_max))
    return [
        _pack_one(
            replace(entry, part=i, parts=len(parts))
            if i == 0
            else replace(entry, part=i, parts=len(parts), positions={}, identity=b""),
            pieces,
        )
        for i, pieces in enumerate(parts)
    ]


def unpack(data: bytes) -> JournalEntry:
    """Inverse of packing one record.

    Raises:
        JournalCorrupted: the bytes are not a journal record of this version.

    """
    with reading():
        return _unpack(memoryview(data))


@contextmanager
def reading() -> Iterator[None]:
    """Turn what a codec raises on bytes that are something else into `JournalCorrupted`."""
    try:
        yield
    except JournalCorrupted:
        raise
    except (struct.error, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise JournalCorrupted(f"not a journal record: {error}") from None


def sections_of(data: bytes) -> dict[str, int]:
    """Bytes of each section of a record, by name.

    Raises:
        JournalCorrupted: the bytes are not a journal record of this version.

    """
    with reading():
        return {name: len(section) for name, section in _sections(memoryview(data))[1].items()}


def _parts(sections: Sections, bytes_max: int) -> Iterator[dict[str, bytes]]:
    part: dict[str, bytes] = {}
    size = 0
    for name, pieces in sections.items():
        for piece in pieces:
            is_full = size + len(piece) > bytes_max >= len(piece)  # one that is too large goes with what is there
            if name in part or (part and is_full):
                yield part
                part, size = {}, 0
            part[name] = piece
            size += len(piece)
    yield part


def _pack_one(entry: JournalEntry, pieces: Mapping[str, bytes]) -> bytes:
    sections: dict[str, bytes] = {}
    if entry.positions:
        places = {name: [one.offset_next, one.watermark, one.leader_epoch] for name, one in entry.positions.items()}
        sections[POSITIONS] = json.dumps(places).encode()
    if entry.identity:
        sections[IDENTITY] = entry.identity
    sections |= pieces
    parts = [_HEADER.pack(_MAGIC, entry.part, entry.parts, entry.cycle, entry.event_time_max, len(sections))]
    for name, section in sections.items():
        text = name.encode()
        parts += [len(text).to_bytes(1, "little"), text, SIZE.pack(len(section)), section]
    return b"".join(parts)


def _sections(data: memoryview) -> tuple[tuple[int, int, int, int], dict[str, memoryview]]:
    """Part, parts, cycle and newest event time; and the sections by name."""
    if bytes(data[: len(_MAGIC)]) in _EARLIER_MAGICS:
        raise JournalCorrupted("written by an earlier version, whose format is no longer read")
    magic, part, parts, cycle, newest, count = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise JournalCorrupted("another format")
    at = _HEADER.size
    found: dict[str, memoryview] = {}
    for _ in range(count):
        size = data[at]
        name = bytes(data[at + 1 : at + 1 + size]).decode()
        at += 1 + size
        (size,) = SIZE.unpack_from(data, at)
        at += SIZE.size
        if at + size > len(data):
            raise JournalCorrupted("cut off")
        found[name] = data[at : at + size]
        at += size
    if at != len(data):
        raise JournalCorrupted("bytes after the last section")
    return (part, parts, cycle, newest), found


def _unpack(data: memoryview) -> JournalEntry:
    (part, parts, cycle, newest), sections = _sections(data)
    positions: dict[str, Position] = {}
    packed = sections.pop(POSITIONS, None)
    if packed is not None:
        found = json.loads(bytes(packed))
        positions = {name: Position(*map(int, numbers)) for name, numbers in found.items()}
    identity = bytes(sections.pop(IDENTITY, b""))
    return JournalEntry(cycle, newest, sections, positions, identity, part, parts)
