"""Journal codec: the changes of dedup and reorder state in one commit cycle of one partition, packed into few records.

A record holds columns, little-endian, behind a fixed header. A cycle that would exceed the size of a record is split
into parts; they are written in one transaction, so they are seen together or not at all.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from streams.operators.columns import Events, Headers, Int64, Objects, UInt64, object_rows, objects

_MAGIC: Final = b"SJ2\0"
_HEADER: Final = struct.Struct("<4sHHqqqqIIIHHI")
_ID_BYTES: Final = 24


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
class JournalEntry:
    """Changes of one cycle (or of one part of it)."""

    cycle: int
    offset_next: int
    watermark: int
    event_time_max: int
    """Newest event time among the ids: when it is behind the horizon, the entry is no longer needed."""
    ids: Ids
    held: Events
    """Events that came in this cycle and were still held at its end."""
    due: DueRows
    breakers: "Sequence[tuple[bytes, bytes]]" = ()
    """Keys and packed device breakers that changed; no bytes where one is gone."""
    part: int = 0
    parts: int = 1


def pack(entry: JournalEntry, *, record_bytes_max: int) -> list[bytes]:
    """Records of a cycle, each at most about `record_bytes_max` (a single held event may be larger)."""
    pieces = list(_split(entry, record_bytes_max))
    return [_pack_one(replace(piece, part=i, parts=len(pieces))) for i, piece in enumerate(pieces)]


def unpack(data: bytes) -> JournalEntry:
    """Inverse of packing one record.

    Raises:
        JournalCorrupted: the bytes are not a journal record of this version.

    """
    try:
        return _unpack(memoryview(data))
    except (struct.error, ValueError, IndexError) as error:
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


def _pack_one(entry: JournalEntry) -> bytes:
    held, due, ids = entry.held, entry.due, entry.ids
    header = _HEADER.pack(
        _MAGIC, entry.part, entry.parts, entry.cycle, entry.offset_next, entry.watermark, entry.event_time_max,
        len(ids), len(held), len(due), held.payload.shape[0], held.texts.shape[0],
        len(entry.breakers),
    )  # fmt: skip
    parts = [header, ids.hi.tobytes(), ids.lo.tobytes(), ids.word.tobytes()]
    if len(held):
        parts += [
            column.tobytes()
            for column in (
                held.timestamp_ms, held.event_time, held.sequence, held.id_hi, held.id_lo, held.id_word, held.payload
            )
        ]  # fmt: skip
        headers = [b""] * len(held) if held.headers is None else [pack_headers(one) for one in held.headers]
        marked = [_with_null_marks(row).tolist() for row in held.texts]
        for texts in (held.event_id.tolist(), held.key.tolist(), held.value.tolist(), headers, *marked):
            parts += _pack_texts(texts)
    if len(due):
        parts += [due.event_time.tobytes(), due.sequence.tobytes()]
        parts += [*_pack_texts(due.key.tolist()), *_pack_texts(due.event_id.tolist())]
    if entry.breakers:
        keys, rows = zip(*entry.breakers, strict=True)
        parts += [*_pack_texts(list(keys)), *_pack_texts(list(rows))]
    return b"".join(parts)


def _unpack(data: memoryview) -> JournalEntry:
    magic, part, parts, cycle, offset_next, watermark, newest, *counts = _HEADER.unpack_from(data)
    ids_n, held_n, due_n, fields, text_fields, breakers_n = counts
    if magic != _MAGIC:
        raise JournalCorrupted("another format")
    at = _HEADER.size

    def numbers(dtype: str, count: int) -> Any:
        nonlocal at
        column = np.frombuffer(data, dtype=dtype, count=count, offset=at)
        at += column.nbytes
        return column

    def texts(count: int) -> Objects:
        nonlocal at
        ends = np.cumsum(numbers("<u4", count), dtype=np.int64).tolist()
        blob = bytes(data[at : at + (ends[-1] if count else 0)])
        at += len(blob)
        if count and len(blob) != ends[-1]:
            raise JournalCorrupted("cut off")
        starts = [0, *ends[:-1]]
        return objects([blob[a:b] for a, b in zip(starts, ends, strict=True)] if count else [])

    ids = Ids(numbers("<u8", ids_n), numbers("<u8", ids_n), numbers("<u8", ids_n))
    held = empty_events(fields, text_fields)
    if held_n:
        timestamp, event_time, sequence = numbers("<i8", held_n), numbers("<i8", held_n), numbers("<i8", held_n)
        hi, lo, word = numbers("<u8", held_n), numbers("<u8", held_n), numbers("<u8", held_n)
        payload = numbers("<f8", held_n * fields).reshape(fields, held_n)
        event_id, key, value, packed = texts(held_n), texts(held_n), texts(held_n), texts(held_n)
        rows = object_rows([_without_null_marks(texts(held_n)) for _ in range(text_fields)], held_n)
        unset = np.full(held_n, -1, dtype=np.int64)
        headers = objects([unpack_headers(one) for one in packed]) if any(packed) else None
        held = Events(
            unset, timestamp, event_time, sequence, event_id, hi, lo, word, key, value, headers, payload, rows, unset
        )
    due = DueRows(objects([]), np.empty(0, np.int64), np.empty(0, np.int64), objects([]))
    if due_n:
        due_time, due_sequence = numbers("<i8", due_n), numbers("<i8", due_n)
        due = DueRows(texts(due_n), due_time, due_sequence, texts(due_n))
    breakers = list(zip(texts(breakers_n), texts(breakers_n), strict=True))
    return JournalEntry(cycle, offset_next, watermark, newest, ids, held, due, breakers, part, parts)


def empty_events(payload_fields: int, text_fields: int) -> Events:
    """Columns of no events."""
    number, word, nothing = np.empty(0, np.int64), np.empty(0, np.uint64), objects([])
    payload, texts = np.empty((payload_fields, 0)), object_rows([nothing] * text_fields, 0)
    return Events(
        number, number, number, number, nothing, word, word, word, nothing, nothing, None, payload, texts, number
    )


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
