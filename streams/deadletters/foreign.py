"""Reads envelopes: ours, those of Kafka Connect's sinks and of Spring, and tells what is none.

Sources of the names: Kafka Connect's `DeadLetterQueueReporter` (KIP-298, numbers as text), Spring for Apache Kafka's
`DeadLetterPublishingRecoverer` (`KafkaHeaders.DLT_*`, numbers big-endian).
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from streams.deadletters.envelope import (
    ATTEMPT,
    DLQ_ID,
    FIRST_FAILED_AT,
    GROUP,
    ID_CHARACTERS,
    REASON,
    SCHEMA_ID,
    id_of_place,
)

CONNECT: Final = "__connect.errors."
SPRING: Final = "kafka_dlt-"
NO_SCHEMA_ID: Final = -(1 << 40)
_HEX: Final = frozenset(b"0123456789abcdef")
_TRAIL: Final = (13, 14)
"""Number of our headers behind a record's own ones: without and with a history."""


class Kind(IntEnum):
    """Who wrote an envelope."""

    STREAMS = 0
    CONNECT = 1
    SPRING = 2
    BROKEN = 3
    """Nobody that we know, or a part of it is missing: it can be looked at and discarded, not replayed."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What an envelope says, in the order in which the index stores it."""

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


def read_envelope(headers: Headers | None, *, topic: str, partition: int, offset: int, timestamp_ms: int) -> Envelope:
    """The envelope of the record at this place of a dead-letter topic; never fails."""
    ours = _ours_in_order(headers) if headers else None
    if ours is not None:
        return ours
    values = dict(headers or ())
    place = f"{topic}-{partition}@{offset}"
    if any(name.startswith(CONNECT) for name in values):
        return _foreign(Kind.CONNECT, values, _connect_reason(values), f"{CONNECT}topic", place, timestamp_ms)
    if any(name.startswith(SPRING) for name in values):
        return _foreign(Kind.SPRING, values, _spring_reason(values), f"{SPRING}original-topic", place, timestamp_ms)
    return _ours_in_any_order(values, place, timestamp_ms)


def _ours_in_order(headers: Headers) -> Envelope | None:
    """As the worker writes it: the same headers at the same places from the end. What runs for every letter."""
    count = len(headers)
    for trail in _TRAIL:
        first = count - trail
        if first < 0 or headers[first + 6][0] != DLQ_ID or headers[first][0] != "__streams.errors.exception":
            continue
        letter_id, reason, attempt = headers[first + 6][1], headers[first + 7][1], headers[first + 8][1]
        source, schema_id, failed_at = headers[first + 3][1], headers[first + 10][1], headers[first + 11][1]
        if headers[first + 8][0] != ATTEMPT or headers[first + 11][0] != FIRST_FAILED_AT:
            return None
        if not (letter_id and reason and attempt and source and failed_at) or len(letter_id) != ID_CHARACTERS:
            return None
        try:
            return Envelope(
                Kind.STREAMS,
                letter_id if _HEX.issuperset(letter_id) else _no_id(),
                int(attempt),
                reason.decode(),
                source.decode(),
                int(schema_id) if schema_id else NO_SCHEMA_ID,
                int(failed_at),
            )
        except ValueError:
            return None
    return None


def _no_id() -> bytes:
    raise ValueError("not an id")


def _ours_in_any_order(values: Mapping[str, bytes | None], place: str, timestamp_ms: int) -> Envelope:
    """One of ours that something has rewritten, if everything is there; else a broken one."""
    letter_id, reason, source = (
        values.get(DLQ_ID) or b"",
        _text(values, REASON),
        _text(values, "__streams.errors.topic"),
    )
    attempt, failed_at = _integer(values, ATTEMPT), _integer(values, FIRST_FAILED_AT)
    schema_id = _integer(values, SCHEMA_ID)
    good_id = len(letter_id) == ID_CHARACTERS and _HEX.issuperset(letter_id)
    if good_id and reason and source and attempt is not None and attempt > 0:
        kind = Kind.STREAMS
    else:
        kind, letter_id = Kind.BROKEN, letter_id if good_id else id_of_place(place).encode()
    return Envelope(
        kind,
        letter_id,
        max(attempt or 1, 1),
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
    if len(text) > 20:
        return None
    try:
        return int(text)
    except ValueError:
        return None


def _big_endian(value: bytes | None, size: int) -> int | None:
    if value is None or len(value) != size:
        return None
    return int(struct.unpack(">i" if size == 4 else ">q", value)[0])
