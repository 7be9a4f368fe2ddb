"""Reads envelopes, ours and those of other programs (`dialects.py`), and recognises records without one.

A complete envelope of ours always counts, since the worker writes it after all other headers. Otherwise the first
header that names a topic decides, and the first of repeated headers: a letter that went through several dead-letter
topics belongs to the first of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from itertools import chain
from typing import Any, Final, NamedTuple

from streams.deadletters.letter.dialects import DIALECTS, Dialect
from streams.deadletters.letter.envelope import (
    ATTEMPT,
    DLQ_ID,
    FIRST_FAILED_AT,
    GROUP,
    HISTORY,
    ID_CHARACTERS,
    OURS,
    REASON,
    SCHEMA_ID,
    id_of_place,
)

NO_SCHEMA_ID: Final = -(1 << 40)
_HEX: Final = frozenset(b"0123456789abcdef")
_ATTEMPT_END: Final = 1_000_000
_DIGITS_MAX: Final = 18
"""A number with so many digits, its sign included, fits into 64 bits."""
_PLAIN_HEADERS: Final = 13
"""What the worker adds to a record that had no headers."""
_TOGETHER_MIN: Final = 32
"""For fewer records a loop is as fast."""


_COORDINATES: Final = frozenset(
    {
        *(f"__streams.errors.{name}" for name in ("exception", "topic", "partition", "offset")),
        *(DLQ_ID, REASON, ATTEMPT, SCHEMA_ID, FIRST_FAILED_AT),
        *(n for each in DIALECTS for n in (*each.topic, *each.group, *each.exceptions, *each.numbers)),
    }
)
"""Envelope headers that hold names and numbers."""


class Kind(IntEnum):
    """Who wrote an envelope."""

    STREAMS = 0
    CONNECT = 1
    SPRING = 2
    BROKEN = 3
    """Unknown, or incomplete: it can be shown and discarded, not replayed."""
    SPRING_CLOUD_STREAM = 4
    SMALLRYE = 5


class Envelope(NamedTuple):
    """The contents of an envelope."""

    kind: Kind
    id: bytes
    """Id of the letter: 24 hexadecimal digits."""
    attempt: int
    reason: str
    source: str
    """Topic that the record belongs to; empty when it is not known."""
    schema_id: int
    """Schema id that the envelope names; `NO_SCHEMA_ID` where it names none."""
    first_failed_at: int
    """When the record failed first, in milliseconds since the epoch."""


Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Envelopes:
    """Envelopes in columns."""

    kinds: Sequence[Kind]
    ids: Sequence[bytes]
    attempts: Sequence[int]
    reasons: Sequence[str]
    sources: Sequence[str]
    schema_ids: Sequence[int]
    first_failed_at: Sequence[int]
    messages: Sequence[bytes | None]
    """The message of a plain letter: one of ours, with no headers of the record's own and no history; else None."""
    origins: Sequence[tuple[int, int]]
    """Partition and offset in the source from which a plain letter was read."""


def read_envelopes(
    headers: Sequence[Headers | None],
    *,
    topic: str,
    partitions: Sequence[int],
    offsets: Sequence[int],
    timestamps: Sequence[int],
) -> Envelopes:
    """The envelopes of many records; ours take a third of the time if there are many in a row."""
    usual = _usual(headers)
    if usual is not None:
        return usual
    half = len(headers) // 2
    if half >= _TOGETHER_MIN:
        return _joined(
            [
                read_envelopes(
                    headers[part], topic=topic, partitions=partitions[part], offsets=offsets[part],
                    timestamps=timestamps[part],
                )
                for part in (slice(half), slice(half, None))
            ]
        )  # fmt: skip
    rows = zip(headers, partitions, offsets, timestamps, strict=True)
    found = [
        read_envelope(each, topic=topic, partition=partition, offset=offset, timestamp_ms=timestamp)
        for each, partition, offset, timestamp in rows
    ]
    columns: Any = zip(*found, strict=True) if found else [[]] * len(Envelope._fields)
    kinds, ids, attempts, reasons, sources, schema_ids, failed_at = columns
    nothing, nowhere = [None] * len(found), [(-1, -1)] * len(found)
    return Envelopes(kinds, ids, attempts, reasons, sources, schema_ids, failed_at, nothing, nowhere)


def _joined(parts: Sequence[Envelopes]) -> Envelopes:
    columns: list[Any] = [
        list(chain.from_iterable(getattr(part, each.name) for part in parts)) for each in fields(Envelopes)
    ]
    return Envelopes(*columns)


def _usual(headers: Sequence[Headers | None]) -> Envelopes | None:
    """The envelopes of all records if the worker has written all of them; else None."""
    try:
        ours: Any = [each[:-1] if each[-1][0] == HISTORY else each for each in headers]  # type: ignore[index]
        if not all(each[-7][0] == DLQ_ID and each[-13][0] == "__streams.errors.exception" for each in ours):
            return None
        columns = [[each[-place][1] for each in ours] for place in (7, 5, 6, 10, 3, 2, 12, 9, 8)]
        ids, attempts, reasons, sources, schema_ids, failed_at, messages, partitions, offsets = columns
        joined = b"".join(ids)
        if set(map(len, ids)) != {ID_CHARACTERS} or not _HEX.issuperset(joined):
            return None
        if max(map(len, [*set(attempts), *schema_ids, *failed_at, *partitions, *offsets])) > _DIGITS_MAX:
            return None
        count = len(headers)
        numbers = {text: int(text) for text in set(attempts)}
        texts = {value: value.decode() for value in {*reasons, *sources}}
        if not all(0 < attempt < _ATTEMPT_END for attempt in numbers.values()) or not all(texts):
            return None
        return Envelopes(
            kinds=[Kind.STREAMS] * count,
            ids=ids,
            attempts=[numbers[text] for text in attempts],
            reasons=[texts[value] for value in reasons],
            sources=[texts[value] for value in sources],
            schema_ids=[int(value) if value else NO_SCHEMA_ID for value in schema_ids],
            first_failed_at=list(map(int, failed_at)),
            messages=[
                text if len(each) == _PLAIN_HEADERS and each[-1][0] != HISTORY else None  # type: ignore[index,arg-type]
                for text, each in zip(messages, headers, strict=True)
            ],
            origins=list(zip(map(int, partitions), map(int, offsets), strict=True)),
        )
    except (IndexError, TypeError, ValueError, AttributeError):
        return None


def read_envelope(headers: Headers | None, *, topic: str, partition: int, offset: int, timestamp_ms: int) -> Envelope:
    """The envelope of the record at this place of a dead-letter topic; never raises."""
    place = f"{topic}-{partition}@{offset}"
    ours = _ours(dict(headers or ()), place, timestamp_ms)
    dialect = None if ours.kind is Kind.STREAMS else _dialect(headers)
    if dialect is None:
        return ours
    values = _first(headers)
    source = _first_text(values, dialect.topic)
    reason = next((found for name in dialect.exceptions if (found := _class_name(_text(values, name)))), "unknown")
    kind = Kind[dialect.name] if source else Kind.BROKEN
    return Envelope(kind, id_of_place(place).encode(), 1, reason, source, NO_SCHEMA_ID, timestamp_ms)


def _ours(values: Mapping[str, bytes | None], place: str, timestamp_ms: int) -> Envelope:
    """An envelope of ours, if it is complete; else a broken one."""
    letter_id, reason = values.get(DLQ_ID) or b"", _text(values, REASON)
    source = _text(values, "__streams.errors.topic")
    attempt, failed_at = _integer(values, ATTEMPT), _integer(values, FIRST_FAILED_AT)
    schema_id = _integer(values, SCHEMA_ID)
    good_id = len(letter_id) == ID_CHARACTERS and _HEX.issuperset(letter_id)
    if good_id and reason and source and attempt is not None and 0 < attempt < _ATTEMPT_END:
        kind = Kind.STREAMS
    else:
        kind, letter_id = Kind.BROKEN, letter_id if good_id else id_of_place(place).encode()
    return Envelope(
        kind,
        letter_id,
        min(max(attempt or 1, 1), _ATTEMPT_END - 1),
        reason or "unknown",
        source,
        NO_SCHEMA_ID if schema_id is None else schema_id,
        timestamp_ms if failed_at is None else failed_at,
    )


def _is_ours(headers: Headers | None) -> bool:
    return _ours(dict(headers or ()), "", 0).kind is Kind.STREAMS


def _dialect(headers: Headers | None) -> Dialect | None:
    """The dialect of the first header that names a topic; else a dialect recognised without one."""
    for name, value in headers or ():
        for dialect in DIALECTS:
            if name in dialect.topic and value:
                return dialect
    names = [name for name, _ in headers or ()]
    return next((each for each in DIALECTS if each.mark and any(name.startswith(each.mark) for name in names)), None)


def _dialects_of(headers: Headers | None) -> list[Dialect]:
    """All dialects found in a record's headers."""
    names = {name for name, _ in headers or ()}
    return [
        each
        for each in DIALECTS
        if not names.isdisjoint(each.topic) or (each.mark and any(name.startswith(each.mark) for name in names))
    ]


def _first(headers: Headers | None) -> dict[str, bytes | None]:
    """Headers by name, in their order: the first one of each name."""
    values: dict[str, bytes | None] = {}
    for name, value in headers or ():
        values.setdefault(name, value)
    return values


def _first_text(values: Mapping[str, bytes | None], names: Sequence[str]) -> str:
    """The first non-empty text among the headers in `names`."""
    return next((_text(values, name) for name in values if name in names and values[name]), "")


def _class_name(qualified: str) -> str:
    return qualified.rpartition(".")[2]


def message_of(headers: Headers | None) -> str:
    """The failure message of the envelope; empty when it has none."""
    dialect = None if _is_ours(headers) else _dialect(headers)
    if dialect is None:
        return _text(dict(headers or ()), "__streams.errors.message")
    return _first_text(_first(headers), dialect.messages)


def is_coordinate(name: str) -> bool:
    """Whether an envelope header names a source, reader, time or class, and so quotes nothing of the record."""
    return name in _COORDINATES


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record that became a dead letter was read, and by whom; None for what is not known."""

    topic: str | None
    partition: int | None
    offset: int | None
    group: str | None


def origin_of(headers: Headers | None) -> Origin:
    """Where the record came from, by any known envelope."""
    dialect = None if _is_ours(headers) else _dialect(headers)
    if dialect is not None:
        values = _first(headers)
        return Origin(
            _first_text(values, dialect.topic) or None,
            _first_number(values, dialect.partition, dialect),
            _first_number(values, dialect.offset, dialect),
            _first_text(values, dialect.group) or None,
        )
    values = dict(headers or ())
    return Origin(
        _text(values, "__streams.errors.topic") or None,
        _integer(values, "__streams.errors.partition"),
        _integer(values, "__streams.errors.offset"),
        _text(values, GROUP) or None,
    )


def own_headers_of(headers: Headers | None) -> list[tuple[str, bytes | None]]:
    """The record's own headers: those that belong to none of its envelopes.

    Records rejected by the worker keep all original headers, those of other programs too.
    """
    foreign = () if _is_ours(headers) else tuple(prefix for each in _dialects_of(headers) for prefix in each.prefixes)
    return [(name, value) for name, value in headers or () if not name.startswith((*OURS, *foreign))]


def shown_header(name: str, value: bytes | None) -> str:
    """A header of an envelope as text, binary numbers in digits. Not escaped for any output."""
    if value is None:
        return "-"
    dialect = next((each for each in DIALECTS if name in each.numbers), None)
    number = None if dialect is None else dialect.number(value)
    return value.decode(errors="backslashreplace") if number is None else str(number)


def _first_number(values: Mapping[str, bytes | None], names: Sequence[str], dialect: Dialect) -> int | None:
    found = next((value for name, value in values.items() if name in names), None)
    return None if found is None else dialect.number(found)


def _text(values: Mapping[str, bytes | None], name: str) -> str:
    return (values.get(name) or b"").decode(errors="replace")


def _integer(values: Mapping[str, bytes | None], name: str) -> int | None:
    text = values.get(name) or b""
    if len(text) > _DIGITS_MAX:
        return None
    try:
        return int(text)
    except ValueError:
        return None
