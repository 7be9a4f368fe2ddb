"""Orders that are bound to vehicles which report: they go where their vehicle will be when it delivers.

The shares below are assumed: no source says how often an order is delivered elsewhere, or too late.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from loadtest.fleet.orders import ASSIGNED_SO_FAR, CODES, STEPS, TICKS, Orders, Traits
from loadtest.fleet.tracks import METRES_PER_DEGREE
from loadtest.fleet.traffic import FleetShape
from loadtest.fleet.whereabouts import Vehicles, Whereabouts

ELSEWHERE: Final = 0.1
"""Share of the orders whose destination is not where the vehicle is when it delivers."""
NEAR_M_MAX: Final = 60.0
"""Others are delivered within this distance of where the vehicle has reported to be."""
AWAY_M: Final = (2_000.0, 6_000.0)
PROMISE_TICKS: Final = (-1.0, 3.0)
"""From the delivery to the promise, in ticks of the orders: a quarter is delivered too late."""
_DELIVERED: Final = STEPS.index("DELIVERED")
_DELIVERY: Final = np.array(
    [_codes.tolist().index(_DELIVERED) if _DELIVERED in _codes else TICKS - 1 for _codes in CODES]
)
"""Tick of an order's life at which it is delivered, or would have been."""


class BoundOrders(Orders):
    """The orders of one seed, on the vehicles of another generator."""

    def __init__(self, seed: int, shape: FleetShape, vehicles: Vehicles) -> None:
        super().__init__(seed, shape)
        self._vehicle_ids = vehicles.ids
        self._start_ms = shape.start_ms
        self._phase_ms = np.random.default_rng([seed, 0]).integers(0, shape.tick_ms, shape.devices)
        self._whereabouts = Whereabouts(vehicles, window_ms=3 * TICKS * shape.tick_ms)

    def _promises(self, order: Traits, time_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same promise by every step that makes one."""
        del time_ms
        return order["promised_time"]

    def _generation(self, number: int) -> Traits:
        """What the orders that are the `number`th of their places are like."""
        rng = np.random.default_rng([self._seed, 11, number])
        places = self._places
        found = super()._generation(number)
        found["vehicle"] = rng.integers(0, len(self._vehicle_ids), places)
        delivery = _DELIVERY[found["life"]]
        tick = number * TICKS - self._age + delivery
        time_ms = self._start_ms + tick * self._tick_ms + self._phase_ms
        carrier = (found["vehicle"] + ASSIGNED_SO_FAR[found["life"], delivery]) % len(self._vehicle_ids)
        latitude, longitude = self._whereabouts.at(carrier, time_ms)
        away_m = np.where(
            rng.random(places) < ELSEWHERE, rng.uniform(*AWAY_M, places), rng.uniform(0, NEAR_M_MAX, places)
        )
        heading = rng.uniform(0.0, 2 * np.pi, places)
        found["latitude"] = (latitude + np.cos(heading) * away_m / METRES_PER_DEGREE).round(6)
        east_degrees = np.sin(heading) * away_m / (METRES_PER_DEGREE * np.cos(np.radians(latitude)))
        found["longitude"] = (longitude + east_degrees).round(6)
        found["promised_time"] = time_ms + (rng.uniform(*PROMISE_TICKS, places) * self._tick_ms).astype(np.int64)
        return found
