"""GPS positions of vehicles: every vehicle reports at every tick, unless the layout says otherwise."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loadtest.fleet.encode import times, uuid_texts
from loadtest.fleet.layout import Layout, zipf
from loadtest.fleet.outages import Outages
from loadtest.fleet.real_tracks import RealTracks
from loadtest.fleet.tracks import Floats, Paths, TrackBlock, Tracks
from loadtest.fleet.traffic import PARKED_TICKS, FleetShape, PathsOf

PREFIX: Final = "truck-"
ENDLESS: Final = np.iinfo(np.int8).max
FOLLOWED_TICKS: Final = 2
"""What a late event needs after it."""
PARKED_MS: Final = (300_000, 1_200_000)
"""How long a vehicle is parked."""
HALF_TURN: Final = 180.0


@dataclass(frozen=True, slots=True)
class PositionColumns:
    """One block of positions, row by row; NaN in a nullable column stands for null."""

    keys: NDArray[np.object_]
    event_id: pa.StringArray
    device_id: pa.StringArray
    sequence: NDArray[np.int64]
    event_time_ms: NDArray[np.int64]
    latitude: Floats
    longitude: Floats
    speed_kmh: Floats
    heading_deg: Floats
    altitude_m: Floats | None
    """None where no record is written with version 2."""
    no_number: float = np.nan

    def batch(self, version: int) -> pa.RecordBatch:
        """The columns as the fields of that version of `GpsPosition`."""
        fields = {
            "event_id": self.event_id,
            "device_id": self.device_id,
            "sequence": pa.array(self.sequence),
            "event_time": times(self.event_time_ms),
            "latitude": pa.array(self.latitude),
            "longitude": pa.array(self.longitude),
            "speed_kmh": pa.array(self.speed_kmh, from_pandas=True),
            "heading_deg": pa.array(self.heading_deg, from_pandas=True),
        }
        if version > 1:
            fields["altitude_m"] = pa.array(self.altitude_m, from_pandas=True)
        return pa.record_batch(fields)


class Positions:
    """Where the vehicles of one seed are, tick after tick."""

    events_per_tick: Final = 1.0
    """Number of events of a vehicle in a tick."""
    versions: Final = 2
    """Number of versions of the schema that events can be written with."""

    def __init__(self, seed: int, shape: FleetShape) -> None:
        self._shape = shape
        prefix = PREFIX if shape.device_prefix is None else shape.device_prefix
        names = [f"{prefix}{number:06d}" for number in range(shape.device_first, shape.device_first + shape.devices)]
        self._names = pa.array(names)
        self._keys = np.array([name.encode() for name in names], dtype=object)
        self.layout: Layout = zipf(np.random.default_rng([seed, 9]), shape.devices, shape.zipf)
        self._is_even = self.layout.is_even
        self._parking = _parking(seed, shape)
        paths = RealTracks if shape.paths is PathsOf.REAL else Tracks
        self._paths: Paths = paths(np.random.default_rng([seed, 1]), shape.devices, shape.tick_ms)
        self._last: TrackBlock | None = None

    def to_follow(self, tick_first: int, ticks: int) -> NDArray[np.int8]:
        """A vehicle never ends: there is always an event after one."""
        if self._parking is not None:
            return self._to_follow_with_stops(self._parking, tick_first, ticks)
        if self._is_even:
            return np.full((ticks, self.layout.columns), ENDLESS, dtype=np.int8)
        return np.where(self.layout.active(tick_first, ticks), np.int8(ENDLESS), np.int8(-1))

    def _to_follow_with_stops(self, parking: Outages, tick_first: int, ticks: int) -> NDArray[np.int8]:
        """Find what may follow each report: nothing where the device is silent in one of the next two ticks."""
        asked = ticks + FOLLOWED_TICKS
        device = self.layout.device
        parked = parking.back(tick_first, asked).take(device, axis=1) >= 0
        tick = np.arange(tick_first, tick_first + asked)[:, None]
        active = self.layout.active(tick_first, asked) & (~parked | ((tick + device) % PARKED_TICKS == 0))
        is_followed = active[1 : ticks + 1] & active[2 : ticks + 2]
        found: NDArray[np.int8] = np.where(
            active[:ticks], np.where(is_followed, np.int8(ENDLESS), np.int8(0)), np.int8(-1)
        ).astype(np.int8)
        return found

    def columns(
        self, rng: np.random.Generator, tick_first: int, ticks: int, cells: NDArray[np.intp], time_ms: NDArray[np.int64]
    ) -> PositionColumns:
        """Positions of the vehicles at each of the ticks; `cells` are all there are."""
        layout, devices = self.layout, self._shape.devices
        tick = cells // layout.columns
        column = cells - tick * layout.columns
        device = column if self._is_even else layout.device.take(column)
        track = self._paths.block(tick_first, ticks)
        latitude, longitude, speed, heading = (
            values.ravel() for values in (track.latitude, track.longitude, track.speed_kmh, track.heading_deg)
        )
        altitude = self._paths.altitude_m(tick_first, ticks).ravel() if self._shape.version_2 else None
        if not self._is_even or self._parking is not None:
            at = tick * devices + device
            latitude, longitude = self._on_the_way(track, column, at)
            speed, heading = speed.take(at), heading.take(at)
            altitude = None if altitude is None else altitude.take(at)
        speed[rng.random(cells.size) < self._shape.speed_unknown] = np.nan
        return PositionColumns(
            keys=self._keys.take(device),
            event_id=uuid_texts(rng, cells.size),
            device_id=self._names.take(pa.array(device)),
            sequence=tick_first + 1 + tick if self._is_even else layout.sequence(tick_first + tick, column),
            event_time_ms=time_ms.copy(),
            latitude=latitude,
            longitude=longitude,
            speed_kmh=speed,
            heading_deg=heading,
            altitude_m=altitude,
        )

    def _on_the_way(self, track: TrackBlock, column: NDArray[np.intp], at: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Positions of vehicles that report several times a tick: on the leg from the last tick's to this tick's."""
        left = 1.0 - (self.layout.turn + 1) / self.layout.turns
        early = np.flatnonzero(left.take(column) > 0.0)
        left, before = left.take(column.take(early)), at.take(early)
        last, self._last = self._last or track, track
        found = []
        for was, now in ((last.latitude, track.latitude), (last.longitude, track.longitude)):
            position = now.ravel().take(at)
            reached = np.concatenate([was[-1] if last is not track else now[0], now.ravel()])
            leg = position.take(early) - reached.take(before)
            # Half a turn and more is not around the world, but across the date line.
            leg[np.abs(leg) > HALF_TURN] = 0.0
            position[early] = np.round(position.take(early) - leg * left, 6)
            found.append(position)
        return found[0], found[1]


def _parking(seed: int, shape: FleetShape) -> Outages | None:
    """When vehicles are parked: as outages are, of another seed; None where none ever is."""
    if not shape.parked:
        return None
    shortest, longest = (max(2, round(length_ms / shape.tick_ms)) for length_ms in PARKED_MS)
    return Outages(seed + 1, shape.devices, shape.parked, shortest, longest)
