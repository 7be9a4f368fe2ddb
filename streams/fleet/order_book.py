"""Orders under way, which of them are at risk, and what happened lately to promises and deliveries. Pure."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from streams.fleet.bounds import ORDERS_MAX, PAST_MAX
from streams.fleet.vehicles import AT_RISK, LATE
from streams.flow.fleet_map import Orders


@dataclass(frozen=True, slots=True)
class OrderRow:
    """What is known of an order under way. Times: milliseconds since the epoch; None: unknown."""

    order: str
    vehicle: str | None
    time: int | None
    status: str
    risk: str
    promised_time: int | None = None
    expected_arrival: int | None = None
    distance_km: float | None = None


class OrderBook:
    """Orders by id and by vehicle. One that has ended is forgotten."""

    def __init__(self, declared: Orders | None, orders_max: int = ORDERS_MAX) -> None:
        self._ended = frozenset(declared.ended if declared else ())
        self._bits = {
            **dict.fromkeys(declared.at_risk if declared else (), AT_RISK),
            **dict.fromkeys(declared.late if declared else (), LATE),
        }
        self._orders_max = orders_max
        self._rows: dict[str, OrderRow] = {}
        self._of_vehicle: dict[str, set[str]] = {}
        self._risky: set[str] = set()
        self.beyond = 0
        """Rows of orders that were left out, since there are as many as are kept."""
        self.deliveries: deque[Mapping[str, Any]] = deque(maxlen=PAST_MAX)
        self.late_promises: deque[Mapping[str, Any]] = deque(maxlen=PAST_MAX)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def at_risk(self) -> int:
        """How many orders are at risk or late."""
        return len(self._risky)

    def take(self, rows: Iterable[OrderRow]) -> set[str]:
        """Take rows over, in order; returns the vehicles whose orders have changed."""
        touched: set[str] = set()
        for row in rows:
            before = self._forget(row.order)
            if before is not None and before.vehicle is not None:
                touched.add(before.vehicle)
            if row.status in self._ended:
                continue
            if len(self._rows) >= self._orders_max:
                self.beyond += 1
                continue
            self._rows[row.order] = row
            if row.risk in self._bits:
                self._risky.add(row.order)
            if row.vehicle is not None:
                self._of_vehicle.setdefault(row.vehicle, set()).add(row.order)
                touched.add(row.vehicle)
        return touched

    def drop(self, orders: Iterable[str]) -> set[str]:
        """Forget orders whose rows were deleted; returns their vehicles."""
        rows = [row for one in orders if (row := self._forget(one)) is not None]
        return {row.vehicle for row in rows if row.vehicle is not None}

    def of_vehicle(self, vehicle: str) -> list[OrderRow]:
        """Orders that a vehicle carries, those promised first before the others."""
        return sorted((self._rows[one] for one in self._of_vehicle.get(vehicle, ())), key=_by_promise)

    def bits_of(self, vehicle: str) -> int:
        """`AT_RISK` and `LATE`, as they are true of the orders of a vehicle."""
        bits = 0
        for one in self._of_vehicle.get(vehicle, ()):
            bits |= self._bits.get(self._rows[one].risk, 0)
        return bits

    def is_late(self, row: OrderRow, now_ms: int) -> bool:
        """Whether its promise is broken: its row says so, or the time has passed since the row was written."""
        has_passed = row.promised_time is not None and row.promised_time < now_ms
        return self._bits.get(row.risk) == LATE or (row.risk in self._bits and has_passed)

    def risky(self, rows_max: int, now_ms: int) -> list[OrderRow]:
        """Orders at risk: those whose promise is not broken yet first, then by the time that was promised."""
        rows = (self._rows[one] for one in self._risky)
        return sorted(rows, key=lambda row: (self.is_late(row, now_ms), _by_promise(row)))[:rows_max]

    def _forget(self, order: str) -> OrderRow | None:
        row = self._rows.pop(order, None)
        if row is None:
            return None
        self._risky.discard(order)
        if row.vehicle is not None:
            others = self._of_vehicle[row.vehicle]
            others.discard(order)
            if not others:
                del self._of_vehicle[row.vehicle]
        return row


def _by_promise(row: OrderRow) -> tuple[bool, int, str]:
    return row.promised_time is None, row.promised_time or 0, row.order
