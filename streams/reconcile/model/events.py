"""Records and events as the model sees them, and the reasons for which a record is rejected."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

ID_BYTES_MAX: Final = 128
KEY_BYTES_MAX: Final = 1_024
WHOLE_NUMBER_MAX: Final = 2**53
TIMESTAMP_MS_MIN: Final = 1_000_000_000_000
"""A record timestamp before it (2001-09-09) is no time."""

OrderKey = tuple[int, int, str]
Identity = tuple[str, int]


class Judged(Protocol):
    """What the rules need of an event, whatever its fields are."""

    @property
    def offset(self) -> int:
        """Offset of its record in the source."""

    @property
    def timestamp_ms(self) -> int:
        """Timestamp of the record, not of the event."""

    @property
    def key(self) -> bytes | None:
        """Key of the record."""

    @property
    def raw(self) -> bytes:
        """The framed value as Kafka holds it."""

    @property
    def event_time_ms(self) -> int:
        """Time of the event."""

    @property
    def identity(self) -> Identity:
        """What a retransmission shares with its original."""

    @property
    def order_key(self) -> OrderKey:
        """Order of the events of one key; total, because identities are unique."""

    @property
    def entity(self) -> str:
        """What the event is about; the record's key must say the same."""


class Record(NamedTuple):
    """A record as Kafka holds it; a missing value is empty bytes."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes


class Event(NamedTuple):
    """A decoded event of any flow. Times are milliseconds since the epoch."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    raw: bytes
    event_id: str
    entity: str
    event_time_ms: int
    sequence: int
    numbers: tuple[float | None, ...]
    """Numeric fields that folds read; a whole number beyond `WHOLE_NUMBER_MAX` is an infinity."""
    texts: tuple[str | None, ...]
    """Text fields that folds read."""

    @property
    def identity(self) -> Identity:
        """What a retransmission shares with its original."""
        return self.event_id, self.event_time_ms

    @property
    def order_key(self) -> OrderKey:
        """Order of the events of one key; total, because identities are unique."""
        return self.event_time_ms, self.sequence, self.event_id


class Reject(NamedTuple):
    """A record that cannot be processed, and why."""

    offset: int
    key: bytes | None
    raw: bytes
    reason: str
    timestamp_ms: int = 0


class Late(NamedTuple):
    """An event of the late topic: its reason and how many milliseconds it came after the limit of that reason."""

    event: Any
    reason: str
    by_ms: int


def is_time(timestamp_ms: int, *, now_ms: int | None, skew_ms_max: int) -> bool:
    """Whether a record's timestamp can be the time at which it was sent; without a clock, any is taken for one."""
    return now_ms is None or TIMESTAMP_MS_MIN <= timestamp_ms <= now_ms + skew_ms_max


def judged_by(timestamp_ms: int, *, now_ms: int | None, skew_ms_max: int) -> int:
    """What an event is judged by: the timestamp of its record, or the clock where that is no time."""
    if now_ms is None or is_time(timestamp_ms, now_ms=now_ms, skew_ms_max=skew_ms_max):
        return timestamp_ms
    return now_ms


def classify_undecodable(raw: bytes, decode_reason: str, *, record_bytes_max: int) -> str:
    """Reason for a record that does not decode: size is judged before content."""
    return "too_large" if len(raw) > record_bytes_max else decode_reason


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of the source's schema are what, and which values they may have."""

    event_id: str
    entity: str
    time: str
    sequence: str
    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] | None = None
    """Closed range of a numeric field."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, in the order of `Event`."""
        return (self.event_id, self.entity, self.time, self.sequence, *self.numbers, *self.texts)

    def is_invalid(self, event: Event) -> bool:
        """Whether a value is none that the flow takes."""
        ranges = self.ranges or {}
        return (
            not 0 < len(event.event_id.encode()) <= ID_BYTES_MAX
            or not 0 < len(event.entity.encode()) <= KEY_BYTES_MAX
            or event.event_time_ms < 0
            or any(number is not None and not math.isfinite(number) for number in event.numbers)
            or any(
                number is not None and name in ranges and not ranges[name][0] <= number <= ranges[name][1]
                for name, number in zip(self.numbers, event.numbers, strict=True)
            )
            or any(text is not None and len(text.encode()) > ID_BYTES_MAX for text in event.texts)
        )
