"""Reads envelopes: ours, those of Kafka Connect's sinks and of Spring, and tells what is none.

Sources of the names: Kafka Connect's `DeadLetterQueueReporter` (KIP-298, numbers as text), Spring for Apache Kafka's
`DeadLetterPublishingRecoverer` (`KafkaHeaders.DLT_*`, numbers big-endian).
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from itertools import chain
from typing import Any, Final, NamedTuple

from streams.deadletters.envelope import (
    ATTEMPT,
    DLQ_ID,
    FIRST_FAILED_AT,
    GROUP,
    HISTORY,
    ID_CHARACTERS,
    REASON,
    SCHEMA_ID,
    id_of_place,
)

CONNECT: Final = "__connect.errors."
SPRING: Final = "kafka_dlt-"
NO_SCHEMA_ID: Final = -(1 << 40)
_HEX: Final = frozenset(b"0123456789abcdef")
_ATTEMPT_END: Final = 1_000_000
_DIGITS_MAX: Final = 18
"""A number with so many digits, its sign included, fits into 64 bits."""
_PLAIN_HEADERS: Final = 13
"""What the worker adds to a record that had no headers."""
_TOGETHER_MIN: Final = 32
"""Fewer are as cheap one by one."""


class Kind(IntEnum):
    """Who wrote an envelope."""

    STREAMS = 0
    CONNECT = 1
    SPRING = 2
    BROKEN = 3
    """Nobody that we know, or a part of it is missing: it can be looked at and discarded, not replayed."""


class Envelope(NamedTuple):
    """What an envelope says."""

    kind: Kind
    id: bytes
    """24 hexadecimal digits."""
    attempt: int
    reason: str
    source: str
    """Topic to which the record belongs; empty when nothing says so."""
    schema_id: int
    """`NO_SCHEMA_ID` where there is none."""
    first_failed_at: int
    """Milliseconds since the epoch."""


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
    """The envelopes of many records; ours in a third of the time, as long as they come many together."""
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
    """All of them, if all are as the worker writes them, with a history or without; else None."""
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
    """The envelope of the record at this place of a dead-letter topic; never fails."""
    values = dict(headers or ())
    place = f"{topic}-{partition}@{offset}"
    if any(name.startswith(CONNECT) for name in values):
        return _foreign(Kind.CONNECT, values, _connect_reason(values), f"{CONNECT}topic", place, timestamp_ms)
    if any(name.startswith(SPRING) for name in values):
        return _foreign(Kind.SPRING, values, _spring_reason(values), f"{SPRING}original-topic", place, timestamp_ms)
    return _ours(values, place, timestamp_ms)


def _ours(values: Mapping[str, bytes | None], place: str, timestamp_ms: int) -> Envelope:
    """One of ours, if everything is there; else a broken one."""
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


def _foreign(
    kind: Kind, values: Mapping[str, bytes | None], reason: str, topic_header: str, place: str, timestamp_ms: int
) -> Envelope:
    source = _text(values, topic_header)
    letter_id = id_of_place(place).encode()
    return Envelope(kind if source else Kind.BROKEN, letter_id, 1, reason, source, NO_SCHEMA_ID, timestamp_ms)


def _connect_reason(values: Mapping[str, bytes | None]) -> str:
    return _class_name(_text(values, f"{CONNECT}exception.class.name")) or "unknown"


def _spring_reason(values: Mapping[str, bytes | None]) -> str:
    names = ("exception-cause-fqcn", "exception-fqcn", "key-exception-fqcn")
    return next((found for name in names if (found := _class_name(_text(values, SPRING + name)))), "unknown")


def _class_name(qualified: str) -> str:
    return qualified.rpartition(".")[2]


def message_of(headers: Headers | None) -> str:
    """Why, in the words of whoever wrote the envelope; empty when it does not say."""
    values = dict(headers or ())
    names = (
        "__streams.errors.message", f"{CONNECT}exception.message",
        f"{SPRING}exception-message", f"{SPRING}key-exception-message",
    )  # fmt: skip
    return next((found for name in names if (found := _text(values, name))), "")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record was read that became a dead letter, and by whom; what nothing says is None."""

    topic: str | None
    partition: int | None
    offset: int | None
    group: str | None


def origin_of(headers: Headers | None) -> Origin:
    """Where the record came from, by any envelope that we know."""
    values = dict(headers or ())
    if any(name.startswith(SPRING) for name in values):
        return Origin(
            _text(values, f"{SPRING}original-topic") or None,
            _big_endian(values.get(f"{SPRING}original-partition"), 4),
            _big_endian(values.get(f"{SPRING}original-offset"), 8),
            _text(values, f"{SPRING}original-consumer-group") or None,
        )
    if any(name.startswith(CONNECT) for name in values):
        return Origin(
            _text(values, f"{CONNECT}topic") or None,
            _integer(values, f"{CONNECT}partition"),
            _integer(values, f"{CONNECT}offset"),
            _text(values, f"{CONNECT}connector.name") or None,
        )
    return Origin(
        _text(values, "__streams.errors.topic") or None,
        _integer(values, "__streams.errors.partition"),
        _integer(values, "__streams.errors.offset"),
        _text(values, GROUP) or None,
    )


def is_envelope_header(name: str) -> bool:
    """Whether a header belongs to an envelope, and so not to the record itself."""
    return name.startswith(("__streams.errors.", "dlq.", CONNECT, SPRING))


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


def _big_endian(value: bytes | None, size: int) -> int | None:
    if value is None or len(value) != size:
        return None
    return int(struct.unpack(">i" if size == 4 else ">q", value)[0])
