"""Reference model of one source partition: one event at a time, plain Python, no state but dictionaries and a heap.

It shares no code with the engine (no columnar operators, no stores), so that an error would have to be made twice to
stay unseen. Feed it the records of a partition in log order; its results say which events must be in the clean, late
and dead-letter topics, in which order per device, and what the vehicle table must hold.
"""

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

EARTH_RADIUS_KM: Final = 6371.0088
STOPPED_KMH_BELOW: Final = 3.0
ID_BYTES_MAX: Final = 128

LATE: Final = "late"
BEYOND_HORIZON: Final = "beyond_horizon"

OrderKey = tuple[int, int, str]


class Event(NamedTuple):
    """A decoded source record. Times are milliseconds since the epoch, `raw` the framed value as Kafka holds it."""

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
        """Order of the events of one device; total, because identities are unique."""
        return self.event_time_ms, self.sequence, self.event_id


class Reject(NamedTuple):
    """A record that cannot be processed, and why."""

    offset: int
    key: bytes | None
    raw: bytes
    reason: str


class Late(NamedTuple):
    """An event of the late topic: its reason and how many milliseconds it came behind the limit of that reason."""

    event: Event
    reason: str
    by_ms: int


def classify(event: Event, *, skew_ms_max: int, record_bytes_max: int) -> str | None:
    """Reason for which a decodable record is rejected, None when it is valid.

    Records that do not decode never become an `Event`: see `classify_undecodable`.
    """
    if len(event.raw) > record_bytes_max:
        return "too_large"
    if _is_invalid(event):
        return "invalid"
    if event.key is None or event.key != event.device_id.encode():
        return "key_mismatch"
    if event.event_time_ms > event.timestamp_ms + skew_ms_max:
        return "future_timestamp"
    return None


def _is_invalid(event: Event) -> bool:
    doubles = (event.latitude, event.longitude, event.speed_kmh, event.heading_deg)
    return (
        not 0 < len(event.event_id.encode()) <= ID_BYTES_MAX
        or not event.device_id
        or not all(math.isfinite(value) for value in doubles if value is not None)
        or not -90.0 <= event.latitude <= 90.0
        or not -180.0 <= event.longitude <= 180.0
        or event.event_time_ms < 0
    )


def classify_undecodable(raw: bytes, decode_reason: str, *, record_bytes_max: int) -> str:
    """Reason for a record that does not decode: size is judged before content."""
    return "too_large" if len(raw) > record_bytes_max else decode_reason


def haversine_km(latitude_1: float, longitude_1: float, latitude_2: float, longitude_2: float) -> float:
    """Great-circle distance in kilometres between two points in degrees."""
    phi_1, phi_2 = math.radians(latitude_1), math.radians(latitude_2)
    half_dphi = math.radians(latitude_2 - latitude_1) / 2
    half_dlambda = math.radians(longitude_2 - longitude_1) / 2
    a = math.sin(half_dphi) ** 2 + math.cos(phi_1) * math.cos(phi_2) * math.sin(half_dlambda) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(a)))


@dataclass(slots=True)
class VehicleFold:
    """One vehicle's row, folded from its clean events in order. Sums are integers: no grouping can change them."""

    device_id: str
    events: int = 0
    first_event_time: int = 0
    last_event_time: int = 0
    last_sequence: int = 0
    latitude: float = 0.0
    longitude: float = 0.0
    odometer_mm: int = 0
    speed_hundredths_sum: int = 0
    speeds_known: int = 0
    speed_max_kmh: float | None = None
    stopped_since: int | None = None

    def add(self, event: Event) -> None:
        """Fold the next clean event of the device."""
        if self.events:
            km = haversine_km(self.latitude, self.longitude, event.latitude, event.longitude)
            self.odometer_mm += round(km * 1000 * 1000)
        else:
            self.first_event_time = event.event_time_ms
        self.events += 1
        self.last_event_time = event.event_time_ms
        self.last_sequence = event.sequence
        self.latitude, self.longitude = event.latitude, event.longitude
        speed = event.speed_kmh
        if speed is None:
            return
        self.speeds_known += 1
        self.speed_hundredths_sum += round(speed * 100)
        self.speed_max_kmh = speed if self.speed_max_kmh is None else max(self.speed_max_kmh, speed)
        if speed >= STOPPED_KMH_BELOW:
            self.stopped_since = None
        elif self.stopped_since is None:
            self.stopped_since = event.event_time_ms

    def row(self) -> dict[str, Any]:
        """The `VehicleState` row, times in milliseconds."""
        mean = self.speed_hundredths_sum / (100 * self.speeds_known) if self.speeds_known else None
        return {
            "device_id": self.device_id,
            "events": self.events,
            "first_event_time": self.first_event_time,
            "last_event_time": self.last_event_time,
            "last_sequence": self.last_sequence,
            "latitude": self.latitude,
            "longitude": self.longitude,
            "odometer_km": self.odometer_mm / 1_000_000,
            "speed_mean_kmh": mean,
            "speed_max_kmh": self.speed_max_kmh,
            "stopped_since": self.stopped_since,
        }


def compare_rows(expected: Mapping[str, Any], observed: Mapping[str, Any] | None) -> list[str]:
    """Names of the fields that differ; every field when there is no observed row.

    All fields must be equal but `odometer_km`, where two maths libraries may differ in the last bit of each leg:
    2 mm and a relative 1e-9 are allowed.
    """
    if observed is None:
        return sorted(expected)
    differing = [
        name
        for name in expected.keys() | observed.keys()
        if name != "odometer_km" and expected.get(name, _ABSENT) != observed.get(name, _ABSENT)
    ]
    km = observed.get("odometer_km")
    if not isinstance(km, int | float) or abs(km - expected["odometer_km"]) > 2e-6 + 1e-9 * expected["odometer_km"]:
        differing.append("odometer_km")
    return sorted(differing)


_ABSENT: Final = object()


@dataclass(slots=True)
class PartitionModel:
    """What must become of the records of one source partition, in the order of its log.

    `clean` is in release order; only its order within one device is defined. `idle` is how a partition whose log has
    ended lets go of the events it still holds; with it the results depend on when it is called, as they must.
    """

    lateness_ms: int
    horizon_ms: int
    skew_ms_max: int
    record_bytes_max: int
    watermark: float = -math.inf
    """Event time up to which events are due, milliseconds; minus infinity before the first valid record."""
    clean: list[Event] = field(default_factory=list)
    late: list[Late] = field(default_factory=list)
    duplicates: list[Event] = field(default_factory=list)
    rejected: list[Reject] = field(default_factory=list)
    _seen: set[tuple[str, int]] = field(default_factory=set)
    _held: list[tuple[OrderKey, Event]] = field(default_factory=list)
    _last_due: dict[str, OrderKey] = field(default_factory=dict)
    _fold: dict[str, VehicleFold] = field(default_factory=dict)

    def feed(self, record: Event | Reject) -> None:
        """Judge the next record of the log; a `Reject` is one that did not decode."""
        if isinstance(record, Reject):
            reason = classify_undecodable(record.raw, record.reason, record_bytes_max=self.record_bytes_max)
            self.rejected.append(record._replace(reason=reason))
            return
        reason_or_none = classify(record, skew_ms_max=self.skew_ms_max, record_bytes_max=self.record_bytes_max)
        if reason_or_none is not None:
            self.rejected.append(Reject(record.offset, record.key, record.raw, reason_or_none))
            return
        self.idle(min(record.event_time_ms, record.timestamp_ms) - self.lateness_ms)
        self._judge(record)

    def idle(self, watermark: float) -> None:
        """Move the watermark to `watermark` unless it is there already, and release what is due by it."""
        if watermark <= self.watermark:
            return
        self.watermark = watermark
        while self._held and self._held[0][0][0] <= watermark:
            self._release(heapq.heappop(self._held)[1])

    @property
    def held(self) -> list[Event]:
        """Events that the watermark has not reached, in no particular order."""
        return [event for _, event in self._held]

    @property
    def table(self) -> dict[str, dict[str, Any]]:
        """Row per device: the fold of its clean events so far."""
        return {device_id: fold.row() for device_id, fold in self._fold.items()}

    def _judge(self, event: Event) -> None:
        oldest_ms = self.watermark - self.horizon_ms
        if event.event_time_ms < oldest_ms:
            self.late.append(Late(event, BEYOND_HORIZON, int(oldest_ms - event.event_time_ms)))
            return
        if event.identity in self._seen:
            self.duplicates.append(event)
            return
        self._seen.add(event.identity)
        if event.event_time_ms > self.watermark:
            heapq.heappush(self._held, (event.order_key, event))
            return
        last_due = self._last_due.get(event.device_id)
        if last_due is None or event.order_key >= last_due:
            self._release(event)
        else:
            self.late.append(Late(event, LATE, last_due[0] - event.event_time_ms))

    def _release(self, event: Event) -> None:
        self.clean.append(event)
        self._last_due[event.device_id] = event.order_key
        fold = self._fold.get(event.device_id)
        if fold is None:
            fold = self._fold[event.device_id] = VehicleFold(event.device_id)
        fold.add(event)
