"""Trips of vehicles: what the rows of each must add up to, and what they do add up to.

Where a trip begins follows from the clean events alone. Which of them went into which of its rows is the engine's own
affair; their sum is not.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from loadtest.oracle.events import Event
from loadtest.oracle.folds import STOPPED_KMH_BELOW, haversine_km, whole_mm
from loadtest.oracle.windows import KM_BETWEEN_LIBRARIES


class Session(Protocol):
    """What a pipeline declares of sessions."""

    @property
    def topic(self) -> str:
        """Topic that the rows of the sessions are written to."""

    @property
    def gap_ms(self) -> int:
        """Longest time between two events of one session, milliseconds."""

    @property
    def grace_ms(self) -> int:
        """How far beyond gap and last event the watermark is when one is over, milliseconds."""


class TripKey(NamedTuple):
    """A trip of one vehicle; its start is in milliseconds since the epoch."""

    topic: str
    entity: str
    start_ms: int


@dataclass(slots=True)
class TripSum:
    """All rows of a trip together."""

    end_ms: int = 0
    """Time of the last position."""
    events: int = 0
    distance_mm: int = 0
    moving_ms: int = 0
    stopped_ms: int = 0
    speed_max_kmh: float | None = None
    slack_mm: int = 0
    """Part of the distance, in mm, that another maths library may round differently."""
    rows: int = 0
    is_over: bool = False
    """All of its rows are there."""

    def differing(self, observed: "TripSum") -> list[str]:
        """What the observed rows add up to otherwise than they must; of one that is not over they may be fewer."""
        less = observed.events < self.events and not self.is_over
        off_mm = observed.distance_mm - self.distance_mm
        found = {
            "trip_end": observed.end_ms != self.end_ms,
            "events": observed.events != self.events,
            "distance_km": abs(off_mm) > self.slack_mm,
            "moving_ms": observed.moving_ms != self.moving_ms,
            "stopped_ms": observed.stopped_ms != self.stopped_ms,
            "speed_max_kmh": observed.speed_max_kmh != self.speed_max_kmh,
        }
        if less:
            found = {
                "trip_end": observed.end_ms > self.end_ms,
                "distance_km": off_mm > self.slack_mm,
                "moving_ms": observed.moving_ms > self.moving_ms,
                "stopped_ms": observed.stopped_ms > self.stopped_ms,
            }
        return [name for name, differs in found.items() if differs]


@dataclass(slots=True)
class _Vehicle:
    """Where a vehicle is, and its newest trip."""

    key: TripKey
    latitude: float
    longitude: float
    is_stopped: bool = False
    close_at: float = math.inf
    """Watermark that closes the trip, if no further position comes."""


@dataclass(slots=True)
class TripModel:
    """Feed it the clean events of a partition, each with the watermark before it became due."""

    sessions: tuple[Session, ...] = ()
    trips: dict[TripKey, TripSum] = field(default_factory=dict)
    _vehicles: dict[tuple[str, str], _Vehicle] = field(default_factory=dict)

    def add(self, event: Event, watermark_before: float) -> None:
        """Take the next clean event."""
        for session in self.sessions:
            self._add(session, event, watermark_before)

    def _add(self, session: Session, event: Event, watermark_before: float) -> None:
        at = event.event_time_ms
        known = self._vehicles.get((session.topic, event.device_id))
        if known is not None and at - self.trips[known.key].end_ms <= session.gap_ms:
            trip = self.trips[known.key]
            leg_km = haversine_km(known.latitude, known.longitude, event.latitude, event.longitude)
            trip.distance_mm += whole_mm(leg_km)
            error_km = KM_BETWEEN_LIBRARIES
            trip.slack_mm += whole_mm(leg_km + error_km) - whole_mm(max(0.0, leg_km - error_km))
            if known.is_stopped:
                trip.stopped_ms += at - trip.end_ms
            else:
                trip.moving_ms += at - trip.end_ms
        else:
            if known is not None:
                self.trips[known.key].is_over = True
            key = TripKey(session.topic, event.device_id, at)
            trip = self.trips[key] = TripSum()
            known = self._vehicles[session.topic, event.device_id] = _Vehicle(key, 0.0, 0.0)
        trip.events, trip.end_ms = trip.events + 1, at
        known.latitude, known.longitude = event.latitude, event.longitude
        known.close_at = max(at + session.gap_ms, watermark_before) + session.grace_ms
        speed = event.speed_kmh
        if speed is not None and speed >= 0:
            known.is_stopped = speed < STOPPED_KMH_BELOW
            trip.speed_max_kmh = speed if trip.speed_max_kmh is None else max(speed, trip.speed_max_kmh)

    def end(self, watermark: float) -> None:
        """The log ends with this watermark: it has closed some of the newest trips."""
        for vehicle in self._vehicles.values():
            self.trips[vehicle.key].is_over |= vehicle.close_at <= watermark


@dataclass(slots=True)
class TripLog:
    """The rows of all trips, as they were read."""

    rows: int = 0
    duplicates: int = 0
    """Rows whose revision was there already; they are not added."""
    sums: dict[TripKey, TripSum] = field(default_factory=dict)
    wrong: dict[TripKey, str] = field(default_factory=dict)
    """Trips with a row that cannot be right by itself, and why."""

    def add(self, topic: str, key: bytes, row: Mapping[str, Any], *, partition: int, partition_due: int) -> None:
        """Take the next row; those of one vehicle come in the order in which they were written."""
        self.rows += 1
        name = TripKey(topic, row["device_id"], row["trip_start"])
        seen = self.sums.setdefault(name, TripSum())
        if row["revision"] < seen.rows:
            self.duplicates += 1
            return
        if row["device_id"].encode() != key or partition != partition_due:
            self.wrong.setdefault(name, f"key {key!r} in partition {partition} instead of {partition_due}")
        if row["revision"] != seen.rows or row["events"] < 1 or row["trip_end"] < row["trip_start"]:
            self.wrong.setdefault(name, f"revision {row['revision']} after {seen.rows} rows: {row}")
        seen.rows += 1
        seen.end_ms = row["trip_end"]
        seen.events += row["events"]
        seen.distance_mm += whole_mm(row["distance_km"])
        seen.moving_ms += row["moving_ms"]
        seen.stopped_ms += row["stopped_ms"]
        speed = row["speed_max_kmh"]
        if speed is not None:
            seen.speed_max_kmh = speed if seen.speed_max_kmh is None else max(speed, seen.speed_max_kmh)


class TripFault(NamedTuple):
    """A trip whose rows are not what they must be."""

    key: TripKey
    why: str


_NOTHING: Final = TripSum()


def compare_trips(expected: Mapping[TripKey, TripSum], observed: TripLog) -> Iterable[TripFault]:
    """Trips whose rows do not add up, are missing, or should not be there."""
    for key in sorted(expected.keys() | observed.sums.keys()):
        due, seen = expected.get(key), observed.sums.get(key, _NOTHING)
        if due is None:
            yield TripFault(key, "a trip that should not be")
        elif key in observed.wrong:
            yield TripFault(key, observed.wrong[key])
        elif (seen.rows or due.is_over) and (differing := due.differing(seen)):
            yield TripFault(key, f"{', '.join(differing)}: expected {due}, observed {seen}")
