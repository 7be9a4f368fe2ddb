"""How fast vehicles get on: the way they made in the last minutes of their trip, stops included.

Positions of a trip are cut into runs: those of the same five minutes of event time. The recent speed is the mean from
the first position of the run before (of this run, where it is the trip's first one) to the newest position.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from logistics.folds.geo import haversine_mm
from logistics.folds.vehicle_state import STOPPED_BELOW_KMH
from streams.batch.columns import Float64, Int64
from streams.batch.rows import Rows, empty_rows

RUN_MS: Final = 300_000
MEASURED_MS_MIN: Final = 60_000
"""A trip that is shorter has no recent speed."""
_KMH_OF_MM_PER_MS: Final = 3.6

ROAD: Final = [
    ("known", "?"),  # a position
    ("time", "<i8"),
    ("latitude", "<f8"),
    ("longitude", "<f8"),
    ("way_mm", "<i8"),  # since the trip began
    ("run", "<i8"),
    ("run_time", "<i8"),  # of the run's first position
    ("run_way_mm", "<i8"),
    ("since_time", "<i8"),  # of the position from which the recent speed counts
    ("since_way_mm", "<i8"),
]
"""Columns of what is kept of a vehicle: its newest position, and those from which its recent speed counts."""
_NAMES: Final = tuple(name for name, _ in ROAD)


@dataclass(frozen=True, slots=True)
class Positions:
    """Positions of several vehicles, sorted by vehicle, each vehicle's in their order; at least one."""

    time: Int64
    latitude: Float64
    longitude: Float64
    start: Int64
    """First row of each vehicle."""

    @property
    def owner(self) -> Int64:
        """Vehicle of each position."""
        lengths = np.diff(np.append(self.start, len(self.time)))
        return np.repeat(np.arange(len(self.start)), lengths)

    def before(self, values: Any, first: Any) -> Any:
        """The value of the position before each one: of a vehicle's first one `first` of that vehicle."""
        found = np.empty_like(values)
        found[1:] = values[:-1]
        found[self.start] = first
        return found


def driven(state: Rows, positions: Positions, gap_ms: int) -> Rows:
    """What is known after each position; `state`: before the first one of each vehicle.

    A trip ends when a vehicle sends no position for longer than `gap_ms`.
    """
    one, owner = positions, positions.owner
    rows = empty_rows(state.dtype, len(one.time))
    rows["known"], rows["time"], rows["latitude"], rows["longitude"] = True, one.time, one.latitude, one.longitude
    rows["run"] = one.time // RUN_MS
    is_known = one.before(rows["known"], state["known"])
    begins = ~is_known | (one.time - one.before(one.time, state["time"]) > gap_ms)
    leg = haversine_mm(
        one.before(one.latitude, state["latitude"]), one.before(one.longitude, state["longitude"]),
        one.latitude, one.longitude,
    )  # fmt: skip
    leg[begins] = 0
    row = np.arange(len(leg))
    total = np.cumsum(leg)
    # The way of a trip counts from where it began, or from the state at the vehicle's first row.
    offset = -total
    offset[one.start] += np.where(begins[one.start], 0, state["way_mm"]) + leg[one.start]
    anchor = begins.copy()
    anchor[one.start] = True
    rows["way_mm"] = total + offset[np.maximum.accumulate(np.where(anchor, row, 0))]
    is_first = begins | (rows["run"] != one.before(rows["run"], state["run"]))
    first = np.maximum.accumulate(np.where(is_first, row, -1))
    goes_on = first < one.start[owner]  # the run began before these positions
    rows["run_time"] = np.where(goes_on, state["run_time"][owner], one.time[first])
    rows["run_way_mm"] = np.where(goes_on, state["run_way_mm"][owner], rows["way_mm"][first])
    for since, of_run, now in (("since_time", "run_time", one.time), ("since_way_mm", "run_way_mm", rows["way_mm"])):
        earlier = one.before(rows[of_run], state[of_run])
        at_first = np.where(begins, now, earlier)
        rows[since] = np.where(goes_on, state[since][owner], at_first[first])
    return rows


def speeds_kmh(rows: Rows) -> Float64:
    """Recent speed at each row; NaN where the vehicle stands, or its trip is too short."""
    elapsed = rows["time"] - rows["since_time"]
    speed: Float64 = (rows["way_mm"] - rows["since_way_mm"]) / np.maximum(elapsed, 1) * _KMH_OF_MM_PER_MS
    speed[~rows["known"] | (elapsed < MEASURED_MS_MIN) | (speed < STOPPED_BELOW_KMH)] = np.nan
    return speed
