"""Sections of the journal that reorder writes: events that are still held, and the last released event of each key.

Held events name their fields, so that they are read by name whatever a later version declares.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streams.batch.columns import TIME_MIN, Bools, Int64, Objects, object_rows, objects
from streams.batch.events import Events, Fields
from streams.batch.refs import byte_sizes
from streams.state.codec import (
    SIZE,
    ColumnReader,
    cuts,
    pack_column,
    pack_headers,
    pack_texts,
    text_sizes,
    unpack_headers,
    with_null_marks,
    without_null_marks,
)
from streams.state.journal import reading

HELD: Final = "reorder.held"
LAST_RELEASED: Final = "reorder.last"
FORGOTTEN: Final = "reorder.forgotten"


@dataclass(frozen=True, slots=True)
class DueRows:
    """Last released event of keys: one row a key."""

    key: Objects
    event_time: Int64
    sequence: Int64
    event_id: Objects

    def __len__(self) -> int:
        return len(self.event_time)

    def take(self, rows: Bools) -> "DueRows":
        """Return only the rows at the positions `rows`."""
        return DueRows(self.key[rows], self.event_time[rows], self.sequence[rows], self.event_id[rows])


def pack_held(held: Events, *, bytes_max: int) -> list[bytes]:
    """Held events in pieces of at most about `bytes_max`; a single event may be larger."""
    return [_pack_held(held.take(cut)) for cut in cuts(_sizes(held), bytes_max)]


def _sizes(held: Events) -> Int64:
    sizes = byte_sizes(held.key) + byte_sizes(held.value) + byte_sizes(held.event_id)
    sizes += 8 * (6 + held.payload.shape[0]) + 16
    sizes += text_sizes(*(with_null_marks(row) for row in held.texts)) + 4 * len(held.texts)
    if held.headers is not None:
        sizes += np.array([len(pack_headers(one)) for one in held.headers], dtype=np.int64)
    return sizes


def _pack_held(held: Events) -> bytes:
    fields = held.fields
    names = json.dumps({"events": len(held), "payload": fields.payload, "texts": fields.texts}).encode()
    columns = (held.timestamp_ms, held.event_time, held.sequence, held.id_hi, held.id_lo, held.id_word, held.payload)
    parts = [SIZE.pack(len(names)), names, *(column.tobytes() for column in columns)]
    headers = [b""] * len(held) if held.headers is None else [pack_headers(one) for one in held.headers]
    marked = [with_null_marks(row).tolist() for row in held.texts]
    for column in (held.event_id, held.key, held.value):
        parts += pack_column(column)
    for texts in (headers, *marked):
        parts += pack_texts(texts)
    return b"".join(parts)


def unpack_held(data: memoryview, fields: Fields) -> Events:
    """Held events with the columns of `fields`, whatever fields they were written with: null where they lack one.

    Raises:
        JournalCorrupted: the bytes are not such a section.

    """
    with reading():
        return _unpack_held(ColumnReader(data), fields)


def _unpack_held(columns: ColumnReader, fields: Fields) -> Events:
    names = json.loads(columns.blob(columns.size()))
    count, payload_names, text_names = int(names["events"]), list(names["payload"]), list(names["texts"])
    timestamp, event_time, sequence = (columns.numbers("<i8", count) for _ in range(3))
    hi, lo, word = (columns.numbers("<u8", count) for _ in range(3))
    written = columns.numbers("<f8", count * len(payload_names)).reshape(len(payload_names), count)
    event_id, key, value, packed = (columns.texts(count) for _ in range(4))
    marked = {name: without_null_marks(columns.texts(count)) for name in text_names}
    if payload_names == list(fields.payload):
        payload = written
    else:
        payload = np.full((len(fields.payload), count), np.nan)
        for row, name in enumerate(fields.payload):
            if name in payload_names:
                payload[row] = written[payload_names.index(name)]
    nothing = objects([None] * count)
    unset = np.full(count, -1, dtype=np.int64)
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
        headers=objects([unpack_headers(one) for one in packed]) if any(packed) else None,
        payload=payload,
        texts=object_rows([marked.get(name, nothing) for name in fields.texts], count),
        slot=unset,
        fields=fields,
    )


@dataclass(frozen=True, slots=True)
class HeldOutline:
    """What a section of held events tells without being unpacked."""

    count: int
    event_time_max: int
    value_bytes: int
    has_headers: bool


def held_outline(data: memoryview) -> HeldOutline:
    """Pass over every column of a section, as `unpack_held` reads them. Only headers may still be unreadable.

    Raises:
        JournalCorrupted: the bytes are not such a section.

    """
    with reading():
        columns = ColumnReader(data)
        names = json.loads(columns.blob(columns.size()))
        count = int(names["events"])
        _, event_time, _ = (columns.numbers("<i8", count) for _ in range(3))
        for _ in range(3 + len(names["payload"])):
            columns.numbers("<u8", count)
        _, _, value_bytes, header_bytes = (columns.skip_texts(count) for _ in range(4))
        for _ in names["texts"]:
            columns.skip_texts(count)
        return HeldOutline(count, int(event_time.max(initial=TIME_MIN)), value_bytes, header_bytes > 0)


def pack_due(due: DueRows, *, bytes_max: int) -> list[bytes]:
    """Last released events in pieces of at most about `bytes_max`."""
    sizes = text_sizes(due.key, due.event_id) + 24
    return [b"".join(_pack_due(due, cut)) for cut in cuts(sizes, bytes_max)]


def _pack_due(due: DueRows, cut: slice) -> Iterator[bytes]:
    keys = due.key[cut].tolist()
    yield SIZE.pack(len(keys))
    yield due.event_time[cut].tobytes()
    yield due.sequence[cut].tobytes()
    yield from pack_texts(keys)
    yield from pack_texts(due.event_id[cut].tolist())


def unpack_due(data: memoryview) -> DueRows:
    """Inverse of `pack_due` for one piece.

    Raises:
        JournalCorrupted: the bytes are not such a section.

    """
    with reading():
        columns = ColumnReader(data)
        count = columns.size()
        event_time, sequence = columns.numbers("<i8", count), columns.numbers("<i8", count)
        return DueRows(columns.texts(count), event_time, sequence, columns.texts(count))


def count_of_due(data: memoryview) -> int:
    """How many last released events a piece has.

    Raises:
        JournalCorrupted: the bytes are not such a section.

    """
    with reading():
        return ColumnReader(data).size()


def pack_keys(keys: Sequence[bytes]) -> bytes:
    """Keys of which nothing is kept any more."""
    return b"".join([SIZE.pack(len(keys)), *pack_texts(list(keys))])


def unpack_keys(data: memoryview) -> list[bytes]:
    """Inverse of `pack_keys`.

    Raises:
        JournalCorrupted: the bytes are not such a section.

    """
    with reading():
        columns = ColumnReader(data)
        found: list[bytes] = columns.texts(columns.size()).tolist()
        return found
