"""What the tables of gps and orders must hold: a second opinion on their folds, for `streams reconcile` and the oracle.

Plain Python, one event at a time; it shares no code with the folds that workers run. Events have the fields of the
source as attributes, and `event_time_ms`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

EARTH_RADIUS_KM: Final = 6371.0088
STOPPED_KMH_BELOW: Final = 3.0


def haversine_km(latitude_1: float, longitude_1: float, latitude_2: float, longitude_2: float) -> float:
    """Great-circle distance in kilometres between two points in degrees."""
    phi_1, phi_2 = math.radians(latitude_1), math.radians(latitude_2)
    half_dphi = math.radians(latitude_2 - latitude_1) / 2
    half_dlambda = math.radians(longitude_2 - longitude_1) / 2
    a = math.sin(half_dphi) ** 2 + math.cos(phi_1) * math.cos(phi_2) * math.sin(half_dlambda) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(min(1.0, math.sqrt(a)))


def whole_mm(km: float) -> int:
    """Kilometres as whole millimetres."""
    return round(km * 1000 * 1000)


@dataclass(slots=True)
class VehicleFold:
    """One vehicle's row, folded from its clean events in order. Sums are integers: no grouping can change them."""

    slack: ClassVar[Mapping[str, tuple[float, float]]] = {"odometer_km": (2e-6, 1e-9)}
    """Two maths libraries may differ in the last bit of each leg."""
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
    leg_km: float = 0.0
    """From the position before the last one to the last one."""

    def add(self, event: Any) -> None:
        """Fold the next clean event of the device."""
        if self.events:
            self.leg_km = haversine_km(self.latitude, self.longitude, event.latitude, event.longitude)
            self.odometer_mm += whole_mm(self.leg_km)
        else:
            self.first_event_time = event.event_time_ms
        self.events += 1
        self.last_event_time = event.event_time_ms
        self.last_sequence = event.sequence
        self.latitude, self.longitude = event.latitude, event.longitude
        speed = event.speed_kmh
        if speed is None or speed < 0:  # negative: unknown
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


@dataclass(slots=True)
class OrderFold:
    """One order's row, folded from its clean events in order; what contradicts what was before counts all the same."""

    slack: ClassVar[Mapping[str, tuple[float, float]]] = {}
    order_id: str
    status: str = ""
    vehicle_id: str | None = None
    depot_id: str | None = None
    promised_time: int | None = None
    events: int = 0
    last_event_time: int = 0
    step_time: dict[str, int] = field(default_factory=dict)
    """Event time of the last event of each kind."""

    def add(self, event: Any) -> None:
        """Fold the next clean event of the order."""
        self.status = event.kind
        self.step_time[event.kind] = self.last_event_time = event.event_time_ms
        self.events += 1
        if event.vehicle_id is not None:
            self.vehicle_id = event.vehicle_id
        if event.depot_id is not None:
            self.depot_id = event.depot_id
        if event.promised_time is not None:
            self.promised_time = event.promised_time

    def row(self) -> dict[str, Any]:
        """The `OrderState` row, times in milliseconds."""
        return {
            "order_id": self.order_id,
            "status": self.status,
            "vehicle_id": self.vehicle_id,
            "depot_id": self.depot_id,
            "created_at": self.step_time.get("CREATED"),
            "assigned_at": self.step_time.get("ASSIGNED"),
            "picked_up_at": self.step_time.get("PICKED_UP"),
            "delivered_at": self.step_time.get("DELIVERED"),
            "cancelled_at": self.step_time.get("CANCELLED"),
            "promised_time": self.promised_time,
            "events": self.events,
            "last_event_time": self.last_event_time,
        }
