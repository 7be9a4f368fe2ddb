"""Orders under way, which of them are at risk, and what happened lately to promises and deliveries. Pure."""

import heapq
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from streams.fleet.bounds import ORDERS_MAX, PAST_MAX
from streams.fleet.vehicles import AT_RISK, LATE, NEVER
from streams.flow.fleet_map import Orders

_VOID_MIN: Final = 1_000
"""Promises of orders that have ended are thrown away once there are so many more of them than orders."""


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
    """Orders by id and by vehicle. One that has ended is forgotten; one whose promise has passed is late.

    A row says what was true when it was written: of an order of which nothing more is heard, only time tells that its
    promise is broken (`pass_time`).
    """

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
        self._promises: list[tuple[int, str]] = []
        """A heap of promises that have not passed; those of orders that have ended, or changed, are left in it."""
        self._awaited: dict[str, int] = {}
        """By order: its promise in the heap."""
        self._late_word = declared.late[0] if declared and declared.late else ""
        self.now_ms = NEVER
        """How late it is, as far as was told."""
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
            if row.risk in self._bits or self.is_late(row):
                self._risky.add(row.order)
            self._await(row)
            if row.vehicle is not None:
                self._of_vehicle.setdefault(row.vehicle, set()).add(row.order)
                touched.add(row.vehicle)
        return touched

    def pass_time(self, now_ms: int) -> set[str]:
        """Note how late it is; returns the vehicles with an order whose promise has passed since it was told last."""
        self.now_ms = now_ms
        touched: set[str] = set()
        while self._promises and self._promises[0][0] < now_ms:
            promised, order = heapq.heappop(self._promises)
            if self._awaited.get(order) == promised:
                del self._awaited[order]
            row = self._rows.get(order)
            if row is not None and row.promised_time == promised:
                self._risky.add(order)
                if row.vehicle is not None:
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
            row = self._rows[one]
            bits |= LATE if self.is_late(row) else self._bits.get(row.risk, 0)
        return bits

    def is_late(self, row: OrderRow) -> bool:
        """Whether its promise is broken: its row says so, or the time has passed since the row was written."""
        has_passed = row.promised_time is not None and row.promised_time < self.now_ms
        return has_passed or self._bits.get(row.risk) == LATE

    def risk_of(self, row: OrderRow) -> str:
        """Its risk in the words of its table."""
        return self._late_word if self._late_word and self.is_late(row) else row.risk

    def risky(self, rows_max: int) -> list[OrderRow]:
        """Orders at risk: those whose promise is not broken yet first, then by the time that was promised."""
        rows = (self._rows[one] for one in self._risky)
        return sorted(rows, key=lambda row: (self.is_late(row), _by_promise(row)))[:rows_max]

    def _await(self, row: OrderRow) -> None:
        """Have `pass_time` look at an order when its promise passes."""
        promised = row.promised_time
        if promised is None or promised < self.now_ms or self._awaited.get(row.order) == promised:
            return
        self._awaited[row.order] = promised
        heapq.heappush(self._promises, (promised, row.order))
        if len(self._promises) > 2 * len(self._rows) + _VOID_MIN:
            self._awaited = {
                one: at
                for one, at in self._awaited.items()
                if one in self._rows and self._rows[one].promised_time == at
            }
            self._promises = [(at, one) for one, at in self._awaited.items()]
            heapq.heapify(self._promises)

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
