"""Which outputs of an app's flows the fleet page shows: positions of vehicles, and what is known about them.

An app declares it as a value beside its flows; the fields of the topics have the names of the logistics app unless it
says otherwise:

    fleet = FleetMap(positions=Positions("gps.positions.v1.clean"), vehicles=Vehicles("vehicles.state.v1"))
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self

_NOT_FIELDS: Final = frozenset({"topic", "ended", "at_risk", "late", "verified"})


@dataclass(frozen=True, slots=True)
class Feed:
    """A topic that the page reads. Every other attribute is the name of a field of its rows; None: there is none."""

    topic: str

    def columns(self) -> Mapping[str, str]:
        """Names of the row fields, by their meaning for the page."""
        named: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in named.items() if name not in _NOT_FIELDS and value is not None}

    def with_prefix(self, prefix: str) -> Self:
        """The same feed of a topic whose name begins with `prefix`."""
        return replace(self, topic=prefix + self.topic)


@dataclass(frozen=True, slots=True)
class Positions(Feed):
    """Events with a place, in order of each vehicle. Degrees, km/h over ground, degrees clockwise from north."""

    vehicle: str = "device_id"
    time: str = "event_time"
    latitude: str = "latitude"
    longitude: str = "longitude"
    speed_kmh: str | None = "speed_kmh"
    heading_deg: str | None = "heading_deg"


@dataclass(frozen=True, slots=True)
class Vehicles(Feed):
    """A table with a row for each vehicle. `stopped_since`: null while it moves."""

    vehicle: str = "device_id"
    time: str = "last_event_time"
    latitude: str = "latitude"
    longitude: str = "longitude"
    odometer_km: str | None = "odometer_km"
    stopped_since: str | None = "stopped_since"
    speed_mean_kmh: str | None = "speed_mean_kmh"
    speed_max_kmh: str | None = "speed_max_kmh"
    events: str | None = "events"


@dataclass(frozen=True, slots=True)
class Minutes(Feed):
    """Windows by vehicle; rows of one window add up."""

    vehicle: str = "device_id"
    start: str = "window_start"
    distance_km: str = "distance_km"
    speed_max_kmh: str | None = "speed_max_kmh"


@dataclass(frozen=True, slots=True)
class Trips(Feed):
    """Sessions by vehicle that have ended."""

    vehicle: str = "device_id"
    start: str = "trip_start"
    end: str = "trip_end"
    distance_km: str = "distance_km"
    moving_ms: str | None = "moving_ms"
    stopped_ms: str | None = "stopped_ms"
    speed_mean_kmh: str | None = "speed_mean_kmh"


@dataclass(frozen=True, slots=True)
class Orders(Feed):
    """A table with a row for each order, with the vehicle that carries it and the risk of a broken promise."""

    order: str = "order_id"
    vehicle: str = "vehicle_id"
    time: str = "event_time"
    status: str = "status"
    risk: str = "risk"
    promised_time: str | None = "promised_time"
    expected_arrival: str | None = "expected_arrival"
    distance_km: str | None = "distance_km"
    ended: tuple[str, ...] = ("DELIVERED", "CANCELLED")
    """Values of `status` of an order that has ended."""
    at_risk: tuple[str, ...] = ("AT_RISK",)
    """Values of `risk` that mean that a promise may be broken."""
    late: tuple[str, ...] = ("LATE",)
    """Values of `risk` that mean that a promise is broken."""


@dataclass(frozen=True, slots=True)
class Deliveries(Feed):
    """Deliveries, and whether the vehicle was at the destination."""

    order: str = "order_id"
    vehicle: str = "vehicle_id"
    time: str = "delivered_time"
    verdict: str = "is_verified"
    cause: str | None = "because"


@dataclass(frozen=True, slots=True)
class LatePromises(Feed):
    """Promises that were not kept."""

    order: str = "order_id"
    vehicle: str = "vehicle_id"
    time: str = "promised_time"
    reason: str = "reason"
    late_by_ms: str | None = "late_by_ms"


@dataclass(frozen=True, slots=True)
class FleetMap:
    """What the fleet page of an app shows. All but the positions may be missing."""

    positions: Positions
    vehicles: Vehicles | None = None
    minutes: Minutes | None = None
    trips: Trips | None = None
    orders: Orders | None = None
    deliveries: Deliveries | None = None
    late_promises: LatePromises | None = None
    silent_after_s: float = 600.0
    """A vehicle without data for this long is shown as silent."""

    def __post_init__(self) -> None:
        if self.silent_after_s <= 0:
            raise ValueError("silent_after_s is above 0")
        topics = [feed.topic for _, feed in self.feeds()]
        if len(set(topics)) < len(topics):
            raise ValueError("two feeds of the fleet map are of the same topic")

    def feeds(self) -> Iterator[tuple[str, Feed]]:
        """The feeds that there are, each with its name."""
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Feed):
                yield one.name, value

    @property
    def topics(self) -> frozenset[str]:
        """The topics that the page reads."""
        return frozenset(feed.topic for _, feed in self.feeds())

    def with_prefix(self, prefix: str) -> "FleetMap":
        """The same map of topics whose names begin with `prefix`."""
        changed: dict[str, Any] = {name: feed.with_prefix(prefix) for name, feed in self.feeds()}
        return replace(self, **changed)
