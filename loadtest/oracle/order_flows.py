"""What must come of orders and vehicles: plain Python, one event at a time, sharing no code with the operators.

`DispatchModel` takes the steps of orders as they are in the clean topic; `TrackingModel` takes bound steps and
positions in the order in which `merged` brings those of one partition.
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from loadtest.oracle.events import Event, OrderEvent, OrderKey
from loadtest.oracle.folds import STOPPED_KMH_BELOW, haversine_km, whole_mm

ENDED: Final = {"DELIVERED", "CANCELLED"}
MINUTE_MS: Final = 60_000
TRIP_GAP_MS: Final = 300_000
RUN_MS: Final = 300_000
POSITION_MS_MAX: Final = 600_000
NEAR_KM_MAX: Final = 0.2
ROAD_FACTOR: Final = 1.3
FOLLOWED_MAX: Final = 200

Row = dict[str, Any]


class Step(NamedTuple):
    """A step of an order, of the clean topic or bound to a vehicle; times in milliseconds since the epoch."""

    timestamp_ms: int
    event_id: str
    key: str
    sequence: int
    event_time_ms: int
    order_id: str
    kind: str
    vehicle_id: str | None
    latitude: float | None
    longitude: float | None
    promised_time: int | None

    @property
    def order_key(self) -> OrderKey:
        """Order of the events of one key."""
        return self.event_time_ms, self.sequence, self.event_id


class Position(NamedTuple):
    """A clean position of a vehicle."""

    timestamp_ms: int
    event_id: str
    key: str
    sequence: int
    event_time_ms: int
    latitude: float
    longitude: float

    @property
    def order_key(self) -> OrderKey:
        """Order of the events of one key."""
        return self.event_time_ms, self.sequence, self.event_id


AnyRecord = Step | Position


def step_of(event: OrderEvent) -> Step:
    """A step as it is in the clean topic."""
    return Step(
        event.timestamp_ms, event.event_id, event.order_id, event.sequence, event.event_time_ms, event.order_id,
        event.kind, event.vehicle_id, event.destination_latitude, event.destination_longitude, event.promised_time,
    )  # fmt: skip


def position_of(event: Event) -> Position:
    """A position as it is in the clean topic."""
    place = (event.latitude, event.longitude)
    return Position(event.timestamp_ms, event.event_id, event.device_id, event.sequence, event.event_time_ms, *place)


class Due(NamedTuple):
    """An event of a log, by when it is due there, with the watermark before the record that made it due."""

    due: float
    event: AnyRecord
    watermark_before: float


def due_events(log: Iterable[AnyRecord], lateness_ms: int) -> Iterator[Due]:
    """Unique events of a partition's log that are not late, in the order in which they become due.

    What is held when the log ends is due then: the partition is idle.
    """
    watermark, held, last = -math.inf, list[tuple[OrderKey, AnyRecord]](), dict[str, OrderKey]()
    seen: set[tuple[str, int]] = set()
    for event in log:
        before = watermark
        watermark = max(watermark, min(event.event_time_ms, event.timestamp_ms) - lateness_ms)
        while held and held[0][0][0] <= watermark:
            key, ripe = heapq.heappop(held)
            last[ripe.key] = key
            yield Due(max(ripe.event_time_ms, before), ripe, before)
        identity = (event.event_id, event.event_time_ms)
        if identity in seen:
            continue
        seen.add(identity)
        if event.event_time_ms > watermark:
            heapq.heappush(held, (event.order_key, event))
        elif event.key not in last or event.order_key >= last[event.key]:
            last[event.key] = event.order_key
            yield Due(max(event.event_time_ms, before), event, before)
    while held:
        _, ripe = heapq.heappop(held)
        yield Due(max(ripe.event_time_ms, watermark), ripe, watermark)


def merged(logs: Sequence[Iterable[AnyRecord]], lateness_ms: Sequence[int]) -> list[AnyRecord]:
    """Events of the logs of one partition of each input, in the order in which they are merged; no idle time."""
    found = [
        (each.due, *each.event.order_key, number, each.event)
        for number, (log, late_ms) in enumerate(zip(logs, lateness_ms, strict=True))
        for each in due_events(log, late_ms)
    ]
    return [each[-1] for each in sorted(found, key=lambda one: one[:-1])]


@dataclass(slots=True)
class _Known:
    """What is known of an order."""

    vehicle_id: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    promised_time: int | None = None
    status: str = ""
    is_overdue: bool = False
    was_delivered: bool = False


@dataclass(slots=True)
class DispatchModel:
    """Feed it the steps of orders in the order of the clean topic, each with the watermark before it."""

    bound: list[Row] = field(default_factory=list)
    overdue: list[Row] = field(default_factory=list)
    orders: dict[str, _Known] = field(default_factory=dict)

    def add(self, step: Step, watermark_before: float) -> None:
        """Take the next step."""
        order = self.orders.setdefault(step.order_id, _Known())
        self._pass_promise(step.order_id, order, watermark_before)
        before = order.vehicle_id
        order.vehicle_id = step.vehicle_id or before
        if step.latitude is not None and step.longitude is not None:
            order.latitude, order.longitude = step.latitude, step.longitude
        if step.promised_time is not None and step.promised_time != order.promised_time:
            order.promised_time, order.is_overdue = step.promised_time, False
        order.status = step.kind
        if step.kind == "DELIVERED":
            promised = order.promised_time
            if promised is not None and step.event_time_ms > promised and not order.was_delivered:
                order.is_overdue = True
                self._overdue(step.order_id, order, "DELIVERED_LATE", step.event_time_ms)
            order.was_delivered = True
        if before is not None and before != order.vehicle_id:
            self._bind(step, order, "RELEASED", before, before)
        self._bind(step, order, step.kind, order.vehicle_id, order.vehicle_id or f"order:{step.order_id}")

    def end(self, watermark: float) -> None:
        """The log ends with this watermark, which passes the promises that are left."""
        for order_id, order in self.orders.items():
            self._pass_promise(order_id, order, watermark)

    def _pass_promise(self, order_id: str, order: _Known, watermark: float) -> None:
        is_open = order.status not in ENDED and not order.is_overdue
        if order.promised_time is not None and is_open and order.promised_time <= watermark:
            order.is_overdue = True
            self._overdue(order_id, order, "PROMISE_PASSED", None)

    def _bind(self, step: Step, order: _Known, kind: str, vehicle: str | None, to: str) -> None:
        self.bound.append(
            {
                "bound_to": to,
                "order_id": step.order_id,
                "sequence": step.sequence,
                "event_time": step.event_time_ms,
                "kind": kind,
                "vehicle_id": vehicle,
                "destination_latitude": order.latitude,
                "destination_longitude": order.longitude,
                "promised_time": order.promised_time,
            }
        )

    def _overdue(self, order_id: str, order: _Known, reason: str, delivered: int | None) -> None:
        promised = order.promised_time
        self.overdue.append(
            {
                "order_id": order_id,
                "reason": reason,
                "promised_time": promised,
                "status": order.status,
                "vehicle_id": order.vehicle_id,
                "delivered_time": delivered,
                "late_by_ms": None if delivered is None or promised is None else delivered - promised,
            }
        )


@dataclass(slots=True)
class _Vehicle:
    """Where a vehicle is, how far it came on its trip, and what it carries."""

    position: Position | None = None
    recent: list[Position] = field(default_factory=list)
    """Those that may verify a delivery, in their order."""
    way_mm: int = 0
    run: int = 0
    run_began: tuple[int, int] = (0, 0)
    """Time and way of the run's first position."""
    since: tuple[int, int] = (0, 0)
    """Time and way from which the recent speed counts."""
    orders: dict[str, Step] = field(default_factory=dict)

    def move(self, to: Position) -> None:
        """Take the next position."""
        was, run = self.position, to.event_time_ms // RUN_MS
        self.position = to
        # A step may be merged minutes after its time: for so long it still finds the position of its time.
        self.recent = [one for one in self.recent if one.event_time_ms >= to.event_time_ms - 2 * POSITION_MS_MAX] + [to]
        if was is None or to.event_time_ms - was.event_time_ms > TRIP_GAP_MS:
            self.way_mm, self.run = 0, run
            self.run_began = self.since = (to.event_time_ms, 0)
            return
        self.way_mm += whole_mm(haversine_km(was.latitude, was.longitude, to.latitude, to.longitude))
        if run != self.run:
            self.since, self.run = self.run_began, run
            self.run_began = (to.event_time_ms, self.way_mm)

    def speed_kmh(self) -> float | None:
        """Speed over the recent positions."""
        if self.position is None:
            return None
        elapsed_ms = self.position.event_time_ms - self.since[0]
        if elapsed_ms < MINUTE_MS:
            return None
        speed = (self.way_mm - self.since[1]) / elapsed_ms * 3.6
        return None if speed < STOPPED_KMH_BELOW else speed


@dataclass(slots=True)
class TrackingModel:
    """Feed it the merged events of a partition, in their order."""

    tracking: list[Row] = field(default_factory=list)
    verified: list[Row] = field(default_factory=list)
    vehicles: dict[str, _Vehicle] = field(default_factory=dict)

    def add(self, event: AnyRecord) -> None:
        """Take the next event."""
        if isinstance(event, Position):
            vehicle = self.vehicles.setdefault(event.key, _Vehicle())
            last = vehicle.position
            vehicle.move(event)
            if last is None or last.event_time_ms // MINUTE_MS != event.event_time_ms // MINUTE_MS:
                for step in vehicle.orders.values():
                    self._track(step, vehicle, event.event_time_ms)
            return
        if event.kind == "DELIVERED":
            self._verify(event)
        carrier = None if event.vehicle_id is None else self.vehicles.setdefault(event.vehicle_id, _Vehicle())
        if carrier is not None:
            self._carry(event, carrier)
        if event.kind != "RELEASED":
            self._track(event, carrier, event.event_time_ms)

    def _carry(self, event: Step, vehicle: _Vehicle) -> None:
        vehicle.orders.pop(event.order_id, None)
        if event.kind == "RELEASED":
            return
        if event.kind not in ENDED:
            if len(vehicle.orders) >= FOLLOWED_MAX:
                vehicle.orders.pop(next(iter(vehicle.orders)))
            vehicle.orders[event.order_id] = event

    def _track(self, step: Step, vehicle: _Vehicle | None, time_ms: int) -> None:
        position, as_of = None if vehicle is None else vehicle.position, time_ms
        if position is not None:
            as_of = max(time_ms, position.event_time_ms)
            if as_of - position.event_time_ms > POSITION_MS_MAX:
                position = None
        speed = None if vehicle is None or position is None else vehicle.speed_kmh()
        distance = _distance_km(position, step)
        has_ended, promised = step.kind in ENDED, step.promised_time
        arrival = None
        if distance is not None and speed is not None and not has_ended:
            arrival = as_of + distance * ROAD_FACTOR / speed * 3_600_000
        self.tracking.append(
            {
                "order_id": step.order_id,
                "vehicle_id": step.vehicle_id,
                "status": step.kind,
                "event_time": as_of,
                "position_time": None if position is None else position.event_time_ms,
                "latitude": None if position is None else position.latitude,
                "longitude": None if position is None else position.longitude,
                "distance_km": distance,
                "speed_kmh": speed,
                "expected_arrival": arrival,
                "promised_time": promised,
                "to_promise_min": None if promised is None else (promised - as_of) / 60_000,
                "risk": _risk(step, time_ms if has_ended else as_of, arrival),
            }
        )

    def _verify(self, step: Step) -> None:
        vehicle = self.vehicles.get(step.vehicle_id or "")
        before = [
            one
            for one in (() if vehicle is None else vehicle.recent)
            if 0 <= step.event_time_ms - one.event_time_ms <= POSITION_MS_MAX
        ]
        position = before[-1] if before else None
        distance = _distance_km(position, step)
        cause = (
            "NO_VEHICLE" if step.vehicle_id is None
            else "NO_DESTINATION" if step.latitude is None or step.longitude is None
            else "NO_POSITION" if distance is None
            else "NEAR" if distance <= NEAR_KM_MAX
            else "FAR"
        )  # fmt: skip
        self.verified.append(
            {
                "order_id": step.order_id,
                "vehicle_id": step.vehicle_id,
                "delivered_time": step.event_time_ms,
                "is_verified": {"NEAR": "YES", "FAR": "NO"}.get(cause, "UNKNOWN"),
                "because": cause,
                "distance_m": None if distance is None else distance * 1_000,
                "position_time": None if position is None else position.event_time_ms,
                "position_age_ms": None if position is None else step.event_time_ms - position.event_time_ms,
            }
        )


def _distance_km(position: Position | None, step: Step) -> float | None:
    if position is None or step.latitude is None or step.longitude is None:
        return None
    return whole_mm(haversine_km(position.latitude, position.longitude, step.latitude, step.longitude)) / 1e6


def _risk(step: Step, time_ms: int, arrival: float | None) -> str:
    if step.promised_time is None or step.kind == "CANCELLED":
        return "UNKNOWN"
    if time_ms > step.promised_time:
        return "LATE"
    if step.kind == "DELIVERED":
        return "ON_TIME"
    if arrival is None:
        return "UNKNOWN"
    return "AT_RISK" if round(arrival) > step.promised_time else "ON_TIME"


TOLERANCES: Final = {
    "distance_km": 2e-6,
    "speed_kmh": 1e-3,
    "expected_arrival": 5.0,
    "to_promise_min": 1e-9,
    "distance_m": 2e-3,
}
"""By how much two maths libraries may differ, beside a millionth of the time that is left."""


def differing(expected: Row, observed: Row) -> list[str]:
    """Names of the fields in which an observed row, times in milliseconds, is not the expected one."""
    found = []
    for name, value in expected.items():
        other = observed[name]
        if name not in TOLERANCES or value is None or other is None:
            differs = other != value
        else:
            left_ms = value - expected["event_time"] if name == "expected_arrival" else 0.0
            differs = abs(other - value) > TOLERANCES[name] + left_ms * 1e-6
        if differs:
            found.append(name)
    return found
