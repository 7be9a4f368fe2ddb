"""The state of the fleet page: takes decoded rows of each feed, and answers many threads at a time."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streams.fleet.bounds import (
    HISTORY_MS,
    HISTORY_ROWS_MAX,
    MINUTES_ROWS_MAX,
    RECENT_ROWS_MAX,
    SAMPLE_MS,
    TRIPS_ROWS_MAX,
)
from streams.fleet.columns import (
    are_places,
    numbers,
    packed_degrees,
    packed_headings,
    packed_speeds,
    texts,
    times,
)
from streams.fleet.order_book import OrderBook, OrderRow
from streams.fleet.ring import RowRing
from streams.fleet.vehicles import NEVER, STOPPED, VehicleRows
from streams.flow.fleet_map import FleetMap

PAST: Final = np.dtype(
    [
        ("time", "<i8"),
        ("vehicle", "<u4"),
        ("latitude", "<i4"),
        ("longitude", "<i4"),
        ("speed", "<u2"),
        ("heading", "<u2"),
    ]
)
"""A position of the past, packed as in `columns`."""
RECENT: Final = np.dtype([("offset", "<i8"), ("time", "<i8"), ("vehicle", "<u4"), ("partition", "<i4")])
"""Where an event stands in the log."""
MINUTE: Final = np.dtype([("start", "<i8"), ("vehicle", "<u4"), ("distance_km", "<f4"), ("speed_max_kmh", "<f4")])
TRIP: Final = np.dtype(
    [
        ("start", "<i8"),
        ("end", "<i8"),
        ("vehicle", "<u4"),
        ("distance_km", "<f4"),
        ("moving_ms", "<f8"),
        ("stopped_ms", "<f8"),
        ("speed_mean_kmh", "<f4"),
    ]
)


@dataclass(frozen=True, slots=True)
class FeedRows:
    """Rows of one feed in order of the log: columns by what they mean, places, and keys of deleted rows."""

    columns: Mapping[str, Any]
    """Arrow arrays."""
    partition: NDArray[np.int64]
    offset: NDArray[np.int64]
    deleted: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.offset)


@dataclass(slots=True)
class Reading:
    """Progress of reading, as shown on the page."""

    partitions: int = 0
    behind: int = 0
    """Partitions whose end of the moment of the start has not been reached yet."""
    records: dict[str, int] = field(default_factory=dict)
    rejects: dict[str, int] = field(default_factory=dict)
    """Number of records that could not be read, by topic."""
    problems: dict[str, str] = field(default_factory=dict)
    """By topic (or `Kafka`), what is wrong."""


class Picture:
    """The fleet as far as it is known. Hold `lock` while reading more than one attribute."""

    def __init__(self, declared: FleetMap, *, epoch: int) -> None:
        """`epoch`: tells pictures apart; numbers of vehicles mean something within one only."""
        self.epoch = epoch
        self.declared = declared
        self.lock = threading.RLock()
        self.version = 0
        self.vehicles = VehicleRows()
        self.orders = OrderBook(declared.orders)
        self.history = RowRing(PAST, HISTORY_ROWS_MAX)
        self.recent = RowRing(RECENT, RECENT_ROWS_MAX)
        self.minutes = RowRing(MINUTE, MINUTES_ROWS_MAX)
        self.trips = RowRing(TRIP, TRIPS_ROWS_MAX)
        self.reading = Reading()
        self._kept = np.full(0, NEVER, dtype=np.int64)
        """By vehicle: time of its newest position in the history."""
        self._take = {
            "positions": self._take_positions,
            "vehicles": self._take_vehicles,
            "minutes": self._take_minutes,
            "trips": self._take_trips,
            "orders": self._take_orders,
            "deliveries": self._take_deliveries,
            "late_promises": self._take_late_promises,
        }

    @property
    def sample_ms(self) -> int:
        """How far apart positions in the history are at least: an hour of all vehicles has to fit."""
        return max(SAMPLE_MS, len(self.vehicles) * HISTORY_MS // HISTORY_ROWS_MAX)

    def take(self, feed: str, rows: FeedRows) -> None:
        """Take over rows of a feed of the map, by its name."""
        with self.lock:
            self.version += 1
            self._take[feed](rows)

    def pass_time(self, now_ms: int) -> None:
        """Note how late it is: promises pass though nobody writes a row."""
        with self.lock:
            if touched := self.orders.pass_time(now_ms):
                self.version += 1
                self._flag(touched)

    def _take_positions(self, rows: FeedRows) -> None:
        vehicle = self.vehicles.numbered(texts(rows.columns["vehicle"]))
        latitude, longitude = numbers(rows.columns["latitude"]), numbers(rows.columns["longitude"])
        kept = (vehicle >= 0) & are_places(latitude, longitude)
        vehicle, latitude, longitude = vehicle[kept], latitude[kept], longitude[kept]
        time = times(rows.columns["time"])[kept]
        moved: dict[str, NDArray[Any]] = {"time": time, "latitude": latitude, "longitude": longitude}
        for name in ("speed_kmh", "heading_deg"):
            found = numbers(rows.columns[name])[kept] if name in rows.columns else np.full(len(time), np.nan)
            moved[name] = np.where(found < 0, np.nan, found)
        newest = self.vehicles.newest_of(vehicle)
        newest_columns = {name: values[newest] for name, values in moved.items()}
        self.vehicles.move(vehicle[newest], newest_columns, self.version)
        self.recent.add(
            {"vehicle": vehicle, "time": time, "partition": rows.partition[kept], "offset": rows.offset[kept]}
        )
        self._remember(vehicle, moved)

    def _remember(self, vehicle: NDArray[np.int64], moved: Mapping[str, NDArray[Any]]) -> None:
        """Keep positions for the replay, those of a vehicle at least `sample_ms` apart."""
        if len(self._kept) < len(self.vehicles):
            grown = np.full(max(2 * len(self._kept), len(self.vehicles)), NEVER, dtype=np.int64)
            grown[: len(self._kept)] = self._kept
            self._kept = grown
        time, sample_ms = moved["time"], self.sample_ms
        pairs = np.stack([vehicle, time // sample_ms], axis=1)
        _, first = np.unique(pairs, axis=0, return_index=True)
        first.sort()
        at = first[time[first] - sample_ms >= self._kept[vehicle[first]]]
        np.maximum.at(self._kept, vehicle[at], time[at])
        self.history.add(
            {
                "time": time[at],
                "vehicle": vehicle[at],
                "latitude": packed_degrees(moved["latitude"][at]),
                "longitude": packed_degrees(moved["longitude"][at]),
                "speed": packed_speeds(moved["speed_kmh"][at]),
                "heading": packed_headings(moved["heading_deg"][at]),
            }
        )

    def _take_vehicles(self, rows: FeedRows) -> None:
        every = self.vehicles.numbered(texts(rows.columns["vehicle"]))
        newest = self.vehicles.newest_of(every)
        vehicle = every[newest]
        latitude, longitude = numbers(rows.columns["latitude"])[newest], numbers(rows.columns["longitude"])[newest]
        placed = are_places(latitude, longitude)
        moved = {"time": times(rows.columns["time"])[newest], "latitude": latitude, "longitude": longitude}
        self.vehicles.move(vehicle[placed], {name: each[placed] for name, each in moved.items()}, self.version)
        for name in ("odometer_km", "speed_mean_kmh", "speed_max_kmh"):
            if name in rows.columns:
                self.vehicles.set(vehicle, name, numbers(rows.columns[name])[newest])
        if "events" in rows.columns:
            events = numbers(rows.columns["events"])[newest]
            self.vehicles.set(vehicle, "events", np.nan_to_num(events).astype(np.int64))
        if "stopped_since" in rows.columns:
            since = times(rows.columns["stopped_since"])[newest]
            self.vehicles.set(vehicle, "stopped_since", since)
            state = self.vehicles.rows["state"][vehicle]
            stands = np.where(since != NEVER, state | STOPPED, state & ~np.uint8(STOPPED))
            changed = stands != state
            self.vehicles.set(vehicle, "state", stands)
            self.vehicles.set(vehicle[changed], "version", np.full(int(changed.sum()), self.version))

    def _take_minutes(self, rows: FeedRows) -> None:
        self._add(
            self.minutes, rows, {"start": times, "distance_km": numbers}, {"speed_max_kmh": numbers},
        )  # fmt: skip

    def _take_trips(self, rows: FeedRows) -> None:
        optional = {"moving_ms": numbers, "stopped_ms": numbers, "speed_mean_kmh": numbers}
        self._add(self.trips, rows, {"start": times, "end": times, "distance_km": numbers}, optional)

    def _add(self, ring: RowRing, rows: FeedRows, wanted: Mapping[str, Any], optional: Mapping[str, Any]) -> None:
        vehicle = self.vehicles.numbered(texts(rows.columns["vehicle"]))
        kept = vehicle >= 0
        columns: dict[str, NDArray[Any]] = {"vehicle": vehicle[kept]}
        columns |= {name: convert(rows.columns[name])[kept] for name, convert in wanted.items()}
        for name, convert in optional.items():
            there = name in rows.columns
            columns[name] = convert(rows.columns[name])[kept] if there else np.full(int(kept.sum()), np.nan)
        ring.add(columns)

    def _take_orders(self, rows: FeedRows) -> None:
        found = [OrderRow(**{**row, "status": row["status"] or "", "risk": row["risk"] or ""}) for row in _dicts(rows)]
        self._flag(self.orders.take(found) | self.orders.drop(rows.deleted))

    def _flag(self, vehicles: Iterable[str]) -> None:
        for vehicle in vehicles:
            number = self.vehicles.number_of(vehicle)
            if number is not None:
                self.vehicles.flag(number, self.orders.bits_of(vehicle), self.version)

    def _take_deliveries(self, rows: FeedRows) -> None:
        self.orders.deliveries.extend(_dicts(rows))

    def _take_late_promises(self, rows: FeedRows) -> None:
        self.orders.late_promises.extend(_dicts(rows))


def _dicts(rows: FeedRows) -> list[dict[str, Any]]:
    """Rows as dictionaries; times as milliseconds, None where there is none."""
    columns = {name: _listed(column) for name, column in rows.columns.items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _listed(column: Any) -> list[Any]:
    kind = str(column.type)
    if kind.startswith("timestamp"):
        return [None if value == NEVER else value for value in times(column).tolist()]
    return texts(column)
