"""The newest that is known of each vehicle, in columns by its number. Pure."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streams.fleet.bounds import VEHICLES_MAX

STOPPED: Final = 1
AT_RISK: Final = 2
LATE: Final = 4
"""Bits of `state`: it stands still; an order on it may be late; one is."""
STOPPED_BELOW_KMH: Final = 3.0
NEVER: Final = np.iinfo(np.int64).min
VEHICLE: Final = np.dtype(
    [
        ("time", "<i8"),
        ("latitude", "<f8"),
        ("longitude", "<f8"),
        ("speed_kmh", "<f4"),  # NaN: unknown, as in all of these
        ("heading_deg", "<f4"),
        ("state", "u1"),
        ("odometer_km", "<f8"),
        ("stopped_since", "<i8"),
        ("speed_mean_kmh", "<f4"),
        ("speed_max_kmh", "<f4"),
        ("events", "<i8"),
        ("version", "<i8"),  # of the picture, in which it has changed last
    ]
)
_ROWS_FIRST: Final = 1_024


class VehicleRows:
    """A row for each vehicle. Numbers are given in the order in which vehicles are first heard of, and stay."""

    def __init__(self, vehicles_max: int = VEHICLES_MAX) -> None:
        self.ids: list[str] = []
        self.beyond = 0
        """Rows of vehicles that were left out, since there are as many as are kept."""
        self._numbers: dict[str, int] = {}
        self._vehicles_max = vehicles_max
        self._rows = np.zeros(_ROWS_FIRST, dtype=VEHICLE)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def rows(self) -> NDArray[np.void]:
        """All of them; a view that is valid until the next call of `numbered`."""
        return self._rows[: len(self.ids)]

    def number_of(self, vehicle: str) -> int | None:
        """Number of a vehicle that is known."""
        return self._numbers.get(vehicle)

    def numbered(self, vehicles: Sequence[str | None]) -> NDArray[np.int64]:
        """Numbers of vehicles, new ones included; -1 for none, and for one too many."""
        return np.fromiter((self._number(one) for one in vehicles), dtype=np.int64, count=len(vehicles))

    def _number(self, vehicle: str | None) -> int:
        if vehicle is None:
            return -1
        number = self._numbers.get(vehicle)
        if number is not None:
            return number
        if len(self.ids) >= self._vehicles_max:
            self.beyond += 1
            return -1
        number = self._numbers[vehicle] = len(self.ids)
        self.ids.append(vehicle)
        if number >= len(self._rows):
            grown = np.zeros(min(2 * len(self._rows), self._vehicles_max), dtype=VEHICLE)
            grown[:number] = self._rows
            self._rows = grown
        row = self._rows[number : number + 1]
        row["time"], row["odometer_km"], row["stopped_since"] = NEVER, np.nan, NEVER
        for name in ("latitude", "longitude", "speed_kmh", "heading_deg", "speed_mean_kmh", "speed_max_kmh"):
            row[name] = np.nan
        return number

    def newest_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions in `numbers` of the last row of each vehicle; rows without a vehicle are left out."""
        known = np.flatnonzero(numbers >= 0)
        _, at = np.unique(numbers[known][::-1], return_index=True)
        return known[len(known) - 1 - at]

    def changed_since(self, version: int) -> NDArray[np.int64]:
        """Numbers of vehicles that have changed after a version."""
        return np.flatnonzero(self.rows["version"] > version)

    def move(self, numbers: NDArray[np.int64], columns: dict[str, NDArray[Any]], version: int) -> None:
        """Take over new positions, one row for each vehicle; what is older than what is known is left out."""
        rows = self._rows
        newer = columns["time"] >= rows["time"][numbers]
        at = numbers[newer]
        for name, values in columns.items():
            rows[name][at] = values[newer]
        speed = rows["speed_kmh"][at]
        stands = speed < STOPPED_BELOW_KMH  # False where it is unknown, which changes nothing
        rows["state"][at] = np.where(stands, rows["state"][at] | STOPPED, rows["state"][at])
        moves = speed >= STOPPED_BELOW_KMH
        rows["state"][at] = np.where(moves, rows["state"][at] & ~np.uint8(STOPPED), rows["state"][at])
        rows["version"][at] = version

    def set(self, numbers: NDArray[np.int64], name: str, values: NDArray[Any]) -> None:
        """Set a column."""
        self._rows[name][numbers] = values

    def flag(self, number: int, bits: int, version: int) -> None:
        """Set which of AT_RISK and LATE are true of a vehicle."""
        state = self._rows["state"]
        after = (int(state[number]) & STOPPED) | bits
        if after != state[number]:
            state[number] = after
            self._rows["version"][number] = version
