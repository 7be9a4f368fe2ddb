"""Decoded records, one event at a time, and the reasons for which they are rejected."""

import math
from typing import NamedTuple

from streams.reconcile.model.events import (
    ID_BYTES_MAX,
    KEY_BYTES_MAX,
    WHOLE_NUMBER_MAX,
    Late,
    OrderKey,
    Reject,
    classify_undecodable,
    is_time,
    judged_by,
)

__all__ = [
    "AnyEvent",
    "Doubles",
    "Event",
    "Late",
    "OrderEvent",
    "OrderKey",
    "Reject",
    "classify",
    "classify_undecodable",
    "is_time",
    "judged_by",
]

Doubles = tuple[float | None, ...]


class Event(NamedTuple):
    """A decoded position. Times are milliseconds since the epoch, `raw` the framed value as Kafka holds it."""

    offset: int
    timestamp_ms: int
    """Timestamp of the record, not of the event."""
    key: bytes | None
    event_id: str
    device_id: str
    sequence: int
    event_time_ms: int
    latitude: float
    longitude: float
    speed_kmh: float | None
    raw: bytes
    heading_deg: float | None = None

    @property
    def identity(self) -> tuple[str, int]:
        """What a retransmission shares with its original."""
        return self.event_id, self.event_time_ms

    @property
    def order_key(self) -> OrderKey:
        """Order of the events of one device or order; total, because identities are unique."""
        return self.event_time_ms, self.sequence, self.event_id

    @property
    def entity(self) -> str:
        """What the event is about; the record's key must say the same."""
        return self.device_id

    @property
    def place(self) -> Doubles:
        """Latitude and longitude in degrees."""
        return self.latitude, self.longitude

    @property
    def doubles(self) -> Doubles:
        """All fields of type double."""
        return self.latitude, self.longitude, self.speed_kmh, self.heading_deg

    @property
    def longs(self) -> tuple[int | None, ...]:
        """Every long that is folded as a double is."""
        return ()


class OrderEvent(NamedTuple):
    """A decoded step of an order, as `Event` is of a vehicle."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    event_id: str
    order_id: str
    sequence: int
    event_time_ms: int
    kind: str
    vehicle_id: str | None
    depot_id: str | None
    destination_latitude: float | None
    destination_longitude: float | None
    promised_time: int | None
    raw: bytes

    @property
    def identity(self) -> tuple[str, int]:
        """What a retransmission shares with its original."""
        return self.event_id, self.event_time_ms

    @property
    def order_key(self) -> OrderKey:
        """Order of the events of one device or order; total, because identities are unique."""
        return self.event_time_ms, self.sequence, self.event_id

    @property
    def entity(self) -> str:
        """What the event is about; the record's key must say the same."""
        return self.order_id

    @property
    def place(self) -> Doubles:
        """Latitude and longitude of the destination in degrees."""
        return self.destination_latitude, self.destination_longitude

    @property
    def doubles(self) -> Doubles:
        """All fields of type double."""
        return self.place

    @property
    def longs(self) -> tuple[int | None, ...]:
        """Every long that is folded as a double is."""
        return (self.promised_time,)


AnyEvent = Event | OrderEvent


def classify(event: AnyEvent, *, skew_ms_max: int, record_bytes_max: int, now_ms: int | None = None) -> str | None:
    """Reason for which a decodable record is rejected, None when it is valid.

    `now_ms` is the time at which the worker reads the record; None: every record has a timestamp that is a time.

    Records that do not decode never become an `Event`: see `classify_undecodable`.
    """
    if len(event.raw) > record_bytes_max:
        return "too_large"
    if _is_invalid(event):
        return "invalid"
    if event.key is None or event.key != event.entity.encode():
        return "key_mismatch"
    if event.event_time_ms > judged_by(event.timestamp_ms, now_ms=now_ms, skew_ms_max=skew_ms_max) + skew_ms_max:
        return "future_timestamp"
    return None


def _is_invalid(event: AnyEvent) -> bool:
    latitude, longitude = event.place
    return (
        not 0 < len(event.event_id.encode()) <= ID_BYTES_MAX
        or not 0 < len(event.entity.encode()) <= KEY_BYTES_MAX
        or not all(map(math.isfinite, [value for value in event.doubles if value is not None]))
        or not (latitude is None or -90.0 <= latitude <= 90.0)
        or not (longitude is None or -180.0 <= longitude <= 180.0)
        or event.event_time_ms < 0
        or any(abs(number) > WHOLE_NUMBER_MAX for number in event.longs if number is not None)
    )
