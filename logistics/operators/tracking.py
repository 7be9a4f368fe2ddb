"""Follow orders on the vehicles that carry them: where an order is, when it will arrive, whether its promise holds."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np

from logistics.folds.order_state import KINDS
from logistics.operators.dispatch import ENDED, RELEASED
from logistics.operators.recent_speed import ROAD, Positions, driven, speeds_kmh
from logistics.operators.tracking_rows import RISKS, STEP, TRACKED, tracked_rows, vehicle_rows
from streams.batch.columns import Bools, Int64, Objects, objects
from streams.batch.events import Events
from streams.batch.refs import byte_objects
from streams.batch.rows import RowLayout, Rows, empty_rows
from streams.limits import WHOLE_NUMBER_MAX
from streams.operators.base import Operator, OperatorContext
from streams.operators.changes import ChangelogRows, Changes, RowRecords
from streams.operators.keyed import ChangedKeys, StoredRows
from streams.operators.merge.section import INPUT
from streams.operators.output import Output
from streams.operators.spec import KeyedState, OperatorSpec, OutputTopic
from streams.operators.trace import WatermarkTrace
from streams.state.codec import pack_pairs, unpack_pairs

ORDERS: Final = "orders"
POSITIONS: Final = "positions"
"""Names of the merged inputs, the orders first."""
_POSITION: Final = 1
OPEN_ORDERS_MAX: Final = 200
"""Orders of one vehicle that are followed at a time: beyond them the one that it has carried for longest is left."""
LEFT: Final = "orders_not_followed"
MINUTE_MS: Final = 60_000
_VEHICLE: Final = np.dtype([*ROAD, ("open_orders", "<i4"), ("orders", "O")])
_ROW_BYTES: Final = 400
_FIELDS: Final = struct.Struct("<bdd?q")


class Order(NamedTuple):
    """What is known of an order that a vehicle carries."""

    status: int
    latitude: float
    """Latitude of the order's destination; NaN: not known."""
    longitude: float
    is_promised: bool
    promised_time: int


@dataclass(frozen=True)
class OrderTracking(OperatorSpec):
    """Declaration: rows of followed orders go to `topic`, what vehicles carry to the table `vehicles`.

    Gets merged `orders`, bound to vehicles (numeric fields kind, destination_latitude, destination_longitude and
    promised_time, text fields order_id and vehicle_id), and `positions` (latitude and longitude). A row is written for
    each step of an order, and for each open order of a vehicle with the first position of each minute of event time. A
    position counts for `within_ms`; a trip ends when a vehicle has sent none for `gap_ms`.
    """

    topic: str
    vehicles: str
    within_ms: int = 600_000
    gap_ms: int = 300_000

    @property
    def name(self) -> str:
        """Name of the operator: `tracking`."""
        return "tracking"

    def build(self, context: OperatorContext) -> "OrderTrackingOperator":
        """An operator that knows no vehicle."""
        return OrderTrackingOperator(self, context)

    @cached_property
    def keyed(self) -> Sequence[KeyedState]:
        """A row for each vehicle."""
        empty = empty_rows(_VEHICLE, 1)
        return (KeyedState(self.vehicles, self.name, empty, RowLayout.of(_VEHICLE), vehicle_rows),)

    @property
    def outputs(self) -> Sequence[OutputTopic]:
        """Followed orders, and the table of vehicles."""
        symbols = {"status": KINDS, "risk": RISKS}
        return (
            OutputTopic(self.topic, tracked_rows, empty_rows(TRACKED, 1), symbols=symbols),
            OutputTopic(self.vehicles, vehicle_rows, empty_rows(_VEHICLE, 1), is_compacted=True),
        )

    @property
    def bounds(self) -> dict[str, int]:
        """How long a position counts, and what ends a trip."""
        return {f"{self.name}.within_ms": self.within_ms, f"{self.name}.gap_ms": self.gap_ms}


class OrderTrackingOperator(Operator):
    """Follows the orders of the vehicles of one partition."""

    stage = "tracking"

    def __init__(self, spec: OrderTracking, context: OperatorContext) -> None:
        self._spec, self._keys = spec, context.keys
        (state,) = spec.keyed
        self._rows = context.keys.attach(StoredRows(state.empty, context.space(state.part)))
        self._digest = state.digest
        self._tracked: list[tuple[Objects, Rows]] = []
        self._waiting_rows = 0

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Follow the orders, and pass all events on."""
        if not len(events):
            return Output(events, trace)
        events = self._keys.located(events)
        batch = _Batch.of(events)
        before = self._rows.of(batch.slot)
        road = batch.driven(before, self._spec.gap_ms)
        after = batch.newest(before, road)
        walk = _Walk(before, after, road)
        for place in batch.of_interest(before).tolist():
            walk.take(batch, place)
        walk.end()
        self._note(walk)
        has_vehicle = batch.has_vehicle
        slots = batch.slot[has_vehicle]
        self._rows.put(slots, after[has_vehicle], before[has_vehicle])
        self._keys.touch(slots)
        return Output(events, trace, dropped={LEFT: walk.left} if walk.left else {})

    def _note(self, walk: "_Walk") -> None:
        if walk.steps:
            rows = np.array(walk.steps, dtype=STEP)
            self._tracked.append((objects(walk.keys), walk.joined(rows, self._spec.within_ms)))
            self._waiting_rows += len(rows)

    # --- the commit cycle -------------------------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Whether no rows wait to be written."""
        return not self._tracked

    def changes(self, changed: ChangedKeys) -> Changes:
        """Followed orders for the topic; the vehicles of changed keys for store and table."""
        spec = self._spec
        found = Changes(rows=[RowRecords(spec.topic, keys, rows, tracked_rows) for keys, rows in self._tracked])
        self._tracked, self._waiting_rows = [], 0
        if len(changed):
            rows = self._rows.of(changed.slots)
            self._rows.write(changed, rows, found.store)
            found.changelogs = [ChangelogRows(spec.vehicles, changed.keys, rows, vehicle_rows, self._digest)]
        return found

    @property
    def cycle_bytes(self) -> int:
        """Rows that are to be written."""
        return self._waiting_rows * _ROW_BYTES


@dataclass(frozen=True, slots=True)
class _Batch:
    """Merged events sorted by key, each key's in their order."""

    events: Events
    key: Objects
    slot: Int64
    """Slot of each key."""
    start: Int64
    """First event of each key."""
    owner: Int64
    """Key of each event, by its number in `slot`."""
    is_position: Bools
    positions: Positions | None
    position_owner: Int64
    """Key of each run of positions of one key."""
    newest_position: Int64
    """For each event: the number of the newest position up to it; -1: that position came before the batch."""

    @staticmethod
    def of(events: Events) -> "_Batch":
        events = events.take(np.argsort(events.slot, kind="stable"))
        start = np.flatnonzero(np.append(True, events.slot[1:] != events.slot[:-1]))
        owner = np.repeat(np.arange(len(start)), np.diff(np.append(start, len(events))))
        is_position = events.number(INPUT) == _POSITION
        at = np.flatnonzero(is_position)
        newest = np.cumsum(is_position) - 1
        positions, position_owner = None, np.empty(0, dtype=np.int64)
        if len(at):
            newest[at[np.maximum(newest, 0)] < start[owner]] = -1
            own = owner[at]
            first = np.flatnonzero(np.append(True, own[1:] != own[:-1]))
            latitude, longitude = (events.number(f"{POSITIONS}.{name}")[at] for name in ("latitude", "longitude"))
            positions = Positions(events.event_time[at], latitude, longitude, first)
            position_owner = own[first]
        keys = byte_objects(events.key.take(start))
        return _Batch(
            events, keys, events.slot[start], start, owner, is_position, positions, position_owner, newest
        )  # fmt: skip

    @property
    def has_vehicle(self) -> Bools:
        """Which keys are vehicles; the others stand for orders without one."""
        named: Bools = self.events.text(f"{ORDERS}.vehicle_id") != None  # noqa: E711 - elementwise
        found = np.zeros(len(self.slot), dtype=np.bool_)
        found[self.owner[self.is_position | named]] = True
        return found

    def driven(self, before: Rows, gap_ms: int) -> Rows:
        """What is known of its vehicle after each position."""
        if self.positions is None:
            return before[:0]
        return driven(before[self.position_owner], self.positions, gap_ms)

    def newest(self, before: Rows, road: Rows) -> Rows:
        """Rows of the keys with their newest positions."""
        after = before.copy()
        if self.positions is not None:
            last = np.append(self.positions.start[1:], len(road)) - 1
            for name, _ in ROAD:
                after[name][self.position_owner] = road[name][last]
        return after

    def of_interest(self, before: Rows) -> Int64:
        """Steps of orders, and the first positions of a minute of vehicles that may have open orders."""
        carries = before["open_orders"] > 0
        carries[self.owner[~self.is_position]] = True
        wanted = ~self.is_position
        if self.positions is not None:
            minute = self.positions.time // MINUTE_MS
            state = before[self.position_owner]
            last = np.where(state["known"], state["time"] // MINUTE_MS, -1)
            is_first = minute != self.positions.before(minute, last)
            wanted[self.is_position] = is_first & carries[self.owner[self.is_position]]
        return np.flatnonzero(wanted)


class _Walk:
    """Goes through the events of interest of a batch and notes which rows are due."""

    def __init__(self, before: Rows, after: Rows, road: Rows) -> None:
        self._before, self._after, self._road = before, after, road
        self._key = -1
        self._orders: dict[bytes, Order] = {}
        self.left = 0
        """Orders that are not followed any more, for there were too many."""
        self.keys: list[bytes] = []
        self.steps: list[tuple[Any, ...]] = []

    def take(self, batch: _Batch, place: int) -> None:
        """Take the event at `place`."""
        events, key = batch.events, int(batch.owner[place])
        if key != self._key:
            self.end()
            self._key, self._orders = key, dict(_unpacked(self._before["orders"][key]))
        time, newest = int(events.event_time[place]), int(batch.newest_position[place])
        if batch.is_position[place]:
            vehicle = batch.key[key]
            for order_id, order in self._orders.items():
                self._note(order_id, order, vehicle, time, newest)
            return
        vehicle_id = events.text(f"{ORDERS}.vehicle_id")[place]
        kind, order_id = int(events.number(f"{ORDERS}.kind")[place]), events.text(f"{ORDERS}.order_id")[place]
        promised = float(events.number(f"{ORDERS}.promised_time")[place])
        is_promised = abs(promised) <= WHOLE_NUMBER_MAX
        order = Order(
            kind,
            float(events.number(f"{ORDERS}.destination_latitude")[place]),
            float(events.number(f"{ORDERS}.destination_longitude")[place]),
            is_promised,
            int(promised) if is_promised else 0,
        )
        self._orders.pop(order_id, None)
        if kind == RELEASED:
            return
        if vehicle_id is not None and kind not in ENDED:
            if len(self._orders) >= OPEN_ORDERS_MAX:
                self._orders.pop(next(iter(self._orders)))
                self.left += 1
            self._orders[order_id] = order
        self._note(order_id, order, vehicle_id, time, newest)

    def end(self) -> None:
        """Finish the key after its last event."""
        if self._key >= 0:
            self._after["orders"][self._key] = _packed(self._orders)
            self._after["open_orders"][self._key] = len(self._orders)

    def _note(self, order_id: bytes, order: Order, vehicle: bytes | None, time: int, newest: int) -> None:
        self.keys.append(order_id)
        self.steps.append((vehicle, time, *order, self._key if vehicle is not None else -1, newest))

    def joined(self, steps: Rows, within_ms: int) -> Rows:
        """The noted rows with the newest position of their vehicles."""
        rows = empty_rows(TRACKED, len(steps))
        for name in STEP.names or ():
            if name in (TRACKED.names or ()):
                rows[name] = steps[name]
        state = self._before[np.maximum(steps["key"], 0)]
        is_here = steps["position"] >= 0
        if len(self._road):
            state[is_here] = self._road[steps["position"][is_here]]
        known = state["known"] & (steps["key"] >= 0)
        rows["step_time"] = steps["event_time"]
        rows["event_time"] = np.where(known, np.maximum(steps["event_time"], state["time"]), steps["event_time"])
        known &= rows["event_time"] - state["time"] <= within_ms
        rows["position_known"] = known
        rows["position_time"] = np.where(known, state["time"], 0)
        for name in ("latitude", "longitude"):
            rows[name] = np.where(known, state[name], np.nan)
        rows["speed_kmh"] = np.where(known, speeds_kmh(state), np.nan)
        return rows


def _packed(orders: dict[bytes, Order]) -> bytes | None:
    return pack_pairs([(order_id, _FIELDS.pack(*order)) for order_id, order in orders.items()]) if orders else None


def _unpacked(packed: bytes | None) -> Iterator[tuple[bytes, Order]]:
    for order_id, fields in unpack_pairs(memoryview(packed)) if packed else ():
        yield order_id, Order(*_FIELDS.unpack(fields))
