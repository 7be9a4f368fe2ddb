"""Steps of orders: `devices` orders are under way at any time, and when one has ended, the next takes its place.

An order has a place (a column of the grid) for `TICKS` ticks and takes a step in each of the first of them. What an
order is like depends on its number alone, never on how the ticks are cut into blocks.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loadtest.fleet.encode import numbered_texts, times, uuid_texts
from loadtest.fleet.layout import Layout, even
from loadtest.fleet.traffic import FleetShape

PREFIX: Final = "order-"
TICKS: Final = 6
STEPS: Final = ("CREATED", "ASSIGNED", "PICKED_UP", "DELIVERED", "CANCELLED")
LETTERS: Final = "CAPDX"
LIVES: Final[dict[str, float]] = {
    "CAPD": 0.60,
    "CaPD": 0.08,
    "CX": 0.07,
    "CAX": 0.06,
    "CAPX": 0.03,
    "CAAPD": 0.07,
    "CCAPD": 0.03,
    "CXAPD": 0.03,
    "CADPDX": 0.02,
    "CDPA": 0.01,
}
"""Shares of the orders by their steps, a letter each (X: cancelled). The lower-case letter is a step of the same
millisecond as the one before it; some orders repeat a step, some contradict themselves."""
SAYS: Final = np.array(
    [
        [0.0, 0.9, 1.0, 0.8],
        [1.0, 0.3, 0.0, 0.2],
        [0.7, 0.5, 0.0, 0.0],
        [0.5, 0.0, 0.6, 0.0],
        [0.0, 0.1, 0.0, 0.0],
    ]
)
"""Share of the events of each step (row) that name a vehicle, a depot, a destination and a promised time (columns)."""
VEHICLES: Final = 1_000
DEPOTS: Final = 40
NUMBER_DIGITS: Final = 10

CODES: Final = np.full((len(LIVES), TICKS), -1, dtype=np.int8)
"""Step of each life at each tick, an index into `STEPS`; -1 once it has ended."""
for _row, _life in enumerate(LIVES):
    CODES[_row, : len(_life)] = [LETTERS.index(letter) for letter in _life.upper()]
_LENGTHS: Final = np.array([len(life) for life in LIVES], dtype=np.int8)
_AT_ONCE: Final = np.array([[letter.islower() for letter in life.ljust(TICKS)] for life in LIVES])
ASSIGNED_SO_FAR: Final = np.cumsum(np.equal(CODES, STEPS.index("ASSIGNED")), axis=1)
"""How often each life was assigned to a vehicle up to each tick."""
Traits = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class OrderColumns:
    """One block of steps, row by row; NaN in `latitude` or `longitude` (of the destination) stands for null."""

    keys: NDArray[np.object_]
    event_id: pa.StringArray
    order_id: pa.StringArray
    sequence: NDArray[np.int64]
    event_time_ms: NDArray[np.int64]
    kind: pa.StringArray
    vehicle_id: pa.StringArray
    depot_id: pa.StringArray
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    promised_time: pa.TimestampArray
    no_number: float = np.inf

    def batch(self, _version: int) -> pa.RecordBatch:
        """The columns as the fields of `OrderEvent`; there is one version."""
        return pa.record_batch(
            {
                "event_id": self.event_id,
                "order_id": self.order_id,
                "sequence": pa.array(self.sequence),
                "event_time": times(self.event_time_ms),
                "kind": self.kind,
                "vehicle_id": self.vehicle_id,
                "depot_id": self.depot_id,
                "destination_latitude": pa.array(self.latitude, from_pandas=True),
                "destination_longitude": pa.array(self.longitude, from_pandas=True),
                "promised_time": self.promised_time,
            }
        )


class Orders:
    """The orders of one seed, tick after tick."""

    events_per_tick: Final = sum(len(life) * share for life, share in LIVES.items()) / TICKS
    """Mean number of events of an order under way in a tick."""
    versions: Final = 1
    """Number of versions of the schema that events can be written with."""

    def __init__(self, seed: int, shape: FleetShape) -> None:
        if shape.zipf:
            raise ValueError("zipf is about vehicles: an order takes its few steps, and no more")
        self.layout: Layout = even(shape.devices)
        self._seed = seed
        self._places = shape.devices
        self._place_first = shape.device_first
        self._places_all = shape.devices_all or shape.device_first + shape.devices
        self._tick_ms = shape.tick_ms
        self._prefix = PREFIX if shape.device_prefix is None else shape.device_prefix
        self._vehicle_ids = _VEHICLE_IDS
        self._age = np.random.default_rng([seed, 3]).integers(0, TICKS, shape.devices)
        """Ticks of each place's first order that were over before the beginning."""
        self._generations: dict[int, Traits] = {}

    def to_follow(self, tick_first: int, ticks: int) -> NDArray[np.int8]:
        """Steps that the order still takes after the one of each cell; -1 once it has taken its last one."""
        age = np.arange(tick_first, tick_first + ticks)[:, None] + self._age
        number = age // TICKS
        life = self._orders(tick_first, ticks)["life"][number - tick_first // TICKS, np.arange(self._places)]
        left: NDArray[np.int8] = (_LENGTHS.take(life) - 1 - (age - number * TICKS)).astype(np.int8)
        return np.maximum(left, np.int8(-1))

    def columns(
        self, rng: np.random.Generator, tick_first: int, ticks: int, cells: NDArray[np.intp], time_ms: NDArray[np.int64]
    ) -> OrderColumns:
        """Return the steps in `cells` of the grid, as columns."""
        tick = cells // self._places
        place = cells - tick * self._places
        age = tick_first + tick + self._age.take(place)
        number = age // TICKS
        step = age - number * TICKS
        which = (number - tick_first // TICKS) * self._places + place
        order = {name: values.ravel().take(which) for name, values in self._orders(tick_first, ticks).items()}
        at = order["life"] * TICKS + step
        code = CODES.ravel().take(at)
        vehicle, depot, destination, promise = (rng.random((cells.size, 4)) < SAYS.take(code, axis=0)).T
        # A vehicle that an order is assigned to again is another one; promises move with every event that makes one.
        assigned = (order["vehicle"] + ASSIGNED_SO_FAR.ravel().take(at)) % len(self._vehicle_ids)
        order_id = numbered_texts(self._prefix, number * self._places_all + self._place_first + place, NUMBER_DIGITS)
        return OrderColumns(
            keys=order_id.cast(pa.binary()).to_numpy(zero_copy_only=False),
            event_id=uuid_texts(rng, cells.size),
            order_id=order_id,
            sequence=step + 1,
            event_time_ms=time_ms - self._tick_ms * _AT_ONCE.ravel().take(at),
            kind=pa.array(STEPS).take(pa.array(code)),
            vehicle_id=self._vehicle_ids.take(pa.array(assigned, mask=~vehicle)),
            depot_id=_DEPOT_IDS.take(pa.array(order["depot"], mask=~depot)),
            latitude=np.where(destination, order["latitude"], np.nan),
            longitude=np.where(destination, order["longitude"], np.nan),
            promised_time=times(self._promises(order, time_ms), known=promise),
        )

    def _promises(self, order: Traits, time_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """What is promised by steps at `time_ms`."""
        found: NDArray[np.int64] = time_ms + order["promised_ms"]
        return found

    def _orders(self, tick_first: int, ticks: int) -> Traits:
        """What the orders of some ticks are like; shapes (orders of a place, places), from `tick_first // TICKS` on."""
        last = (tick_first + ticks - 1 + TICKS - 1) // TICKS
        numbers = range(tick_first // TICKS, last + 1)
        # The orders of a block are asked for twice, and its last ones live on in the next.
        self._generations = {number: self._generations.get(number) or self._generation(number) for number in numbers}
        generations = self._generations.values()
        return {name: np.stack([each[name] for each in generations]) for name in next(iter(generations))}

    def _generation(self, number: int) -> Traits:
        """What the orders that are the `number`th of their places are like."""
        rng = np.random.default_rng([self._seed, 4, number])
        return {
            "life": rng.choice(len(LIVES), self._places, p=list(LIVES.values())),
            "vehicle": rng.integers(0, VEHICLES, self._places),
            "depot": rng.integers(0, DEPOTS, self._places),
            "latitude": rng.uniform(46.0, 54.0, self._places).round(6),
            "longitude": rng.uniform(6.0, 15.0, self._places).round(6),
            "promised_ms": rng.integers(1, 48, self._places) * 900_000,
        }


_VEHICLE_IDS: Final = numbered_texts("truck-", np.arange(VEHICLES), 6)
_DEPOT_IDS: Final = numbered_texts("depot-", np.arange(DEPOTS), 2)
