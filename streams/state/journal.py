"""Journal codec: the changes of operator state in one commit cycle of one partition, packed into few records.

A record is a fixed header and then sections, each with its name: the positions of the inputs, the identity of the
state (`state.identity`), and the changes of each operator. Sections hold columns, little-endian; held events name their
fields, so that they are read by name. A cycle that would exceed the size of a record is split into parts; they are
written in one transaction, so they are seen together or not at all.

Formats: `SJ1`, `SJ2` (fields by position, no identity) are refused: restore says what to do.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from streams.batch.columns import Headers, Int64, Objects, UInt64, object_rows, objects
from streams.batch.events import Events, Fields

_MAGIC: Final = b"SJ3\0"
_EARLIER_MAGICS: Final = (b"SJ1\0", b"SJ2\0")
_HEADER: Final = struct.Struct("<4sHHqqH")  # magic, part, parts, cycle, newest event time, sections
_SIZE: Final = struct.Struct("<I")
_DEDUP: Final = struct.Struct("<Iq")  # ids, event time from which on all ids are known
_ID_BYTES: Final = 24

POSITIONS: Final = "positions"
IDENTITY: Final = "identity"
DEDUP: Final = "dedup"
HELD_EVENTS: Final = "reorder.held"
LAST_RELEASED: Final = "reorder.last"
QUARANTINE: Final = "quarantine"


class JournalCorrupted(ValueError):
    """The bytes are not a journal record."""


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


@dataclass(frozen=True, slots=True)
class DueRows:
    """Last released event of keys: one row a key."""

    key: Objects
    event_time: Int64
    sequence: Int64
    event_id: Objects

    def __len__(self) -> int:
        return len(self.event_time)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a cycle ended in one input: the offset to consume next, and the watermark there."""

    offset_next: int
    watermark: int
    leader_epoch: int = -1
    """Of the newest record before the offset (never an earlier epoch than that one's); -1: not known."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """Changes of one cycle (or of one part of it)."""

    cycle: int
    event_time_max: int
    """Newest event time among the ids: once it is older than the horizon, the entry is no longer needed."""
    ids: Ids
    held: Events
    """Events that came in this cycle and were still held at its end."""
    due: DueRows
    breakers: Sequence[tuple[bytes, bytes]] = ()
    """Keys and packed device breakers that changed; no bytes where one is gone."""
    positions: Mapping[str, Position] = field(default_factory=dict)
    """By input topic; in the first part of a cycle."""
    identity: bytes = b""
    """A packed `state.identity.Identity`; in the first part of a cycle."""
    ids_known_from: int = 0
    """Event time from which on all ids are known."""
    part: int = 0
    parts: int = 1


def pack(entry: JournalEntry, fields: Fields, *, record_bytes_max: int) -> list[bytes]:
    """Records of a cycle, each at most about `record_bytes_max` (a single held event may be larger)."""
    pieces = list(_split(entry, record_bytes_max))
    return [
        _pack_one(
            replace(piece, part=i, parts=len(pieces))
            if i == 0
            else replace(piece, part=i, parts=len(pieces), positions={}, identity=b""),
            fields,
        )
        for i, piece in enumerate(pieces)
    ]


def unpack(data: bytes, fields: Fields) -> JournalEntry:
    """Inverse of packing one record; held events have the columns of `fields`, null where they were written without.

    Raises:
        JournalCorrupted: the bytes are not a journal record of this version.

    """
    try:
        return _unpack(memoryview(data), fields)
    except (struct.error, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise JournalCorrupted(f"not a journal record: {error}") from None


def sections_of(data: bytes) -> dict[str, int]:
    """Bytes of each section of a record, by name.

    Raises:
        JournalCorrupted: the bytes are not a journal record of this version.

    """
    try:
        return {name: len(section) for name, section in _sections(memoryview(data))[1].items()}
    except (struct.error, ValueError) as error:
        raise JournalCorrupted(f"not a journal record: {error}") from None


def _split(entry: JournalEntry, bytes_max: int) -> Iterator[JournalEntry]:
    ids_each = max(1, bytes_max // _ID_BYTES)
    no_ids, no_held = Ids.concat([]), entry.held.take(slice(0, 0))
    no_due = DueRows(entry.due.key[:0], entry.due.event_time[:0], entry.due.sequence[:0], entry.due.event_id[:0])
    held_sizes = _text_sizes(entry.held.key, entry.held.value, entry.held.event_id)
    held_sizes += 8 * (6 + entry.held.payload.shape[0]) + 16
    held_sizes += _text_sizes(*(_with_null_marks(row) for row in entry.held.texts)) + 4 * len(entry.held.texts)
    if entry.held.headers is not None:
        held_sizes += np.array([len(pack_headers(one)) for one in entry.held.headers], dtype=np.int64)
    due_sizes = _text_sizes(entry.due.key, entry.due.event_id) + 24
    total = len(entry.ids) * _ID_BYTES + int(held_sizes.sum()) + int(due_sizes.sum())
    breaker_sizes = np.array([len(key) + len(row) + 8 for key, row in entry.breakers], dtype=np.int64)
    total += int(breaker_sizes.sum())
    if total <= bytes_max:
        yield entry
        return
    for cut in _cuts(breaker_sizes, bytes_max):
        yield replace(entry, ids=no_ids, held=no_held, due=no_due, breakers=entry.breakers[cut])
    entry = replace(entry, breakers=())
    for start in range(0, len(entry.ids), ids_each):
        cut = slice(start, start + ids_each)
        ids = Ids(entry.ids.hi[cut], entry.ids.lo[cut], entry.ids.word[cut])
        yield replace(entry, ids=ids, held=no_held, due=no_due)
    for cut in _cuts(held_sizes, bytes_max):
        yield replace(entry, ids=no_ids, held=entry.held.take(cut), due=no_due)
    for cut in _cuts(due_sizes, bytes_max):
        due = DueRows(entry.due.key[cut], entry.due.event_time[cut], entry.due.sequence[cut], entry.due.event_id[cut])
        yield replace(entry, ids=no_ids, held=no_held, due=due)


def _text_sizes(*columns: Objects) -> Int64:
    if not columns:
        return np.zeros(1, dtype=np.int64)  # added to others, it fits any number of rows
    sizes: Int64 = np.array([[len(text) for text in column] for column in columns], dtype=np.int64).sum(axis=0)
    return sizes


def _cuts(sizes: Int64, bytes_max: int) -> Iterator[slice]:
    """Rows cut so that the sizes of each piece add up to `bytes_max` at most; a larger row stands alone."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + bytes_max, side="right")))
        yield slice(start, end)
        start = end


def _pack_one(entry: JournalEntry, fields: Fields) -> bytes:
    sections: dict[str, list[bytes]] = {}
    if entry.positions:
        places = {name: [one.offset_next, one.watermark, one.leader_epoch] for name, one in entry.positions.items()}
        sections[POSITIONS] = [json.dumps(places).encode()]
    if entry.identity:
        sections[IDENTITY] = [entry.identity]
    ids = entry.ids
    if len(ids) or entry.ids_known_from:
        head = _DEDUP.pack(len(ids), entry.ids_known_from)
        sections[DEDUP] = [head, ids.hi.tobytes(), ids.lo.tobytes(), ids.word.tobytes()]
    if len(entry.held):
        sections[HELD_EVENTS] = _pack_held(entry.held, fields)
    due = entry.due
    if len(due):
        sections[LAST_RELEASED] = [
            _SIZE.pack(len(due)), due.event_time.tobytes(), due.sequence.tobytes(),
            *_pack_texts(due.key.tolist()), *_pack_texts(due.event_id.tolist()),
        ]  # fmt: skip
    if entry.breakers:
        keys, rows = zip(*entry.breakers, strict=True)
        sections[QUARANTINE] = [_SIZE.pack(len(keys)), *_pack_texts(list(keys)), *_pack_texts(list(rows))]
    parts = [_HEADER.pack(_MAGIC, entry.part, entry.parts, entry.cycle, entry.event_time_max, len(sections))]
    for name, section in sections.items():
        text = name.encode()
        parts += [bytes([len(text)]), text, _SIZE.pack(sum(map(len, section))), *section]
    return b"".join(parts)


def _pack_held(held: Events, fields: Fields) -> list[bytes]:
    names = json.dumps({"events": len(held), "payload": fields.payload, "texts": fields.texts}).encode()
    columns = (held.timestamp_ms, held.event_time, held.sequence, held.id_hi, held.id_lo, held.id_word, held.payload)
    parts = [_SIZE.pack(len(names)), names, *(column.tobytes() for column in columns)]
    headers = [b""] * len(held) if held.headers is None else [pack_headers(one) for one in held.headers]
    marked = [_with_null_marks(row).tolist() for row in held.texts]
    for texts in (held.event_id.tolist(), held.key.tolist(), held.value.tolist(), headers, *marked):
        parts += _pack_texts(texts)
    return parts


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
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        if at + size > len(data):
            raise JournalCorrupted("cut off")
        found[name] = data[at : at + size]
        at += size
    if at != len(data):
        raise JournalCorrupted("bytes after the last section")
    return (part, parts, cycle, newest), found


class _Columns:
    """Reads columns one after the other."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def numbers(self, dtype: str, count: int) -> Any:
        column = np.frombuffer(self._data, dtype=dtype, count=count, offset=self._at)
        self._at += column.nbytes
        return column

    def blob(self, size: int) -> bytes:
        blob = bytes(self._data[self._at : self._at + size])
        if len(blob) != size:
            raise JournalCorrupted("cut off")
        self._at += size
        return blob

    def size(self) -> int:
        return int(self.numbers("<u4", 1)[0])

    def texts(self, count: int) -> Objects:
        ends = np.cumsum(self.numbers("<u4", count), dtype=np.int64).tolist()
        blob = self.blob(ends[-1] if count else 0)
        starts = [0, *ends[:-1]]
        return objects([blob[a:b] for a, b in zip(starts, ends, strict=True)] if count else [])


def _unpack(data: memoryview, fields: Fields) -> JournalEntry:
    (part, parts, cycle, newest), sections = _sections(data)
    positions: dict[str, Position] = {}
    if POSITIONS in sections:
        found = json.loads(bytes(sections[POSITIONS]))
        positions = {name: Position(*map(int, numbers)) for name, numbers in found.items()}
    ids, known_from = Ids.concat([]), 0
    if DEDUP in sections:
        columns = _Columns(sections[DEDUP])
        count, known_from = _DEDUP.unpack(columns.blob(_DEDUP.size))
        ids = Ids(columns.numbers("<u8", count), columns.numbers("<u8", count), columns.numbers("<u8", count))
    held = Events.none(fields)
    if HELD_EVENTS in sections:
        held = _unpack_held(_Columns(sections[HELD_EVENTS]), fields)
    due = no_due_rows()
    if LAST_RELEASED in sections:
        columns = _Columns(sections[LAST_RELEASED])
        count = columns.size()
        due_time, due_sequence = columns.numbers("<i8", count), columns.numbers("<i8", count)
        due = DueRows(columns.texts(count), due_time, due_sequence, columns.texts(count))
    breakers: list[tuple[bytes, bytes]] = []
    if QUARANTINE in sections:
        columns = _Columns(sections[QUARANTINE])
        count = columns.size()
        breakers = list(zip(columns.texts(count), columns.texts(count), strict=True))
    identity = bytes(sections.get(IDENTITY, b""))
    return JournalEntry(cycle, newest, ids, held, due, breakers, positions, identity, known_from, part, parts)


def _unpack_held(columns: _Columns, fields: Fields) -> Events:
    """Held events with the columns of `fields`, whatever fields they were written with."""
    names = json.loads(columns.blob(columns.size()))
    count, payload_names, text_names = int(names["events"]), list(names["payload"]), list(names["texts"])
    timestamp, event_time, sequence = (columns.numbers("<i8", count) for _ in range(3))
    hi, lo, word = (columns.numbers("<u8", count) for _ in range(3))
    written = columns.numbers("<f8", count * len(payload_names)).reshape(len(payload_names), count)
    event_id, key, value, packed = (columns.texts(count) for _ in range(4))
    marked = {name: _without_null_marks(columns.texts(count)) for name in text_names}
    if payload_names == list(fields.payload):
        payload = written
    else:
        payload = np.full((len(fields.payload), count), np.nan)
        for row, name in enumerate(fields.payload):
            if name in payload_names:
                payload[row] = written[payload_names.index(name)]
    nothing = objects([None] * count)
    texts = object_rows([marked.get(name, nothing) for name in fields.texts], count)
    unset = np.full(count, -1, dtype=np.int64)
    headers = objects([unpack_headers(one) for one in packed]) if any(packed) else None
    return Events(
        row=unset,
        timestamp_ms=timestamp,
        event_time=event_time,
        sequence=sequence,
        event_id=event_id,
        id_hi=hi,
        id_lo=lo,
        id_word=word,
        key=key,
        value=value,
        headers=headers,
        payload=payload,
        texts=texts,
        slot=unset,
        fields=fields,
    )


def no_due_rows() -> DueRows:
    """Columns of no rows."""
    return DueRows(objects([]), np.empty(0, np.int64), np.empty(0, np.int64), objects([]))


def pack_headers(headers: Headers | None) -> bytes:
    """Record headers as bytes; no headers are no bytes."""
    if not headers:
        return b""
    parts = [struct.pack("<I", len(headers))]
    for name, value in headers:
        text = name.encode()
        size = -1 if value is None else len(value)
        parts += [struct.pack("<Ii", len(text), size), text, value or b""]
    return b"".join(parts)


def unpack_headers(data: bytes) -> Headers | None:
    """Inverse of `pack_headers`."""
    if not data:
        return None
    headers: Headers = []
    (count,) = struct.unpack_from("<I", data)
    at = 4
    for _ in range(count):
        name_size, size = struct.unpack_from("<Ii", data, at)
        at += 8
        name = data[at : at + name_size].decode()
        at += name_size
        headers.append((name, None if size < 0 else data[at : at + size]))
        at += max(size, 0)
    return headers


def _with_null_marks(texts: Objects) -> Objects:
    """A byte in front of each text; null is none at all."""
    return objects([b"" if text is None else b"\1" + text for text in texts.tolist()])


def _without_null_marks(marked: Objects) -> Objects:
    return objects([text[1:] if text else None for text in marked.tolist()])


def _pack_texts(texts: list[bytes]) -> list[bytes]:
    sizes = np.fromiter(map(len, texts), dtype="<u4", count=len(texts))
    return [sizes.tobytes(), b"".join(texts)]
