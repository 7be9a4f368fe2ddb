"""Send the steps of orders to the vehicles that carry them, and notice promises that pass.

Of each order is kept who carries it, where to and by when: steps that do not say so go by what earlier ones have said.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa

from logistics.folds.order_state import KINDS
from logistics.operators.arrow import numbers, symbols, texts, times
from streams.batch.columns import Objects, objects
from streams.batch.events import Events
from streams.batch.refs import byte_objects
from streams.batch.rows import RowLayout, Rows, empty_rows
from streams.limits import WHOLE_NUMBER_MAX
from streams.operators.base import Operator, OperatorContext
from streams.operators.changes import ChangelogRows, Changes, RowRecords
from streams.operators.keyed import ChangedKeys
from streams.operators.output import Output
from streams.operators.spec import KeyedState, OperatorSpec, OutputTopic
from streams.operators.timed import TimedRows
from streams.operators.trace import NEVER, WatermarkTrace

BOUND_KINDS: Final = (*KINDS, "RELEASED")
RELEASED: Final = BOUND_KINDS.index("RELEASED")
DELIVERED: Final = KINDS.index("DELIVERED")
ENDED: Final = frozenset({DELIVERED, KINDS.index("CANCELLED")})
"""Steps after which an order is not under way any more."""
REASONS: Final = ("PROMISE_PASSED", "DELIVERED_LATE")
_PASSED, _DELIVERED_LATE = range(len(REASONS))
UNASSIGNED: Final = b"order:"
"""With the id of an order: the key of its steps while no vehicle is known."""
WITHOUT_VEHICLE: Final = "without_vehicle"
"""What steps are counted as that reach no vehicle; they are passed on as the others."""

_ORDER: Final = np.dtype(
    [
        ("status", "<i1"),
        ("latitude", "<f8"),  # of the destination; NaN while it is not known
        ("longitude", "<f8"),
        ("promised_known", "?"),
        ("promised_time", "<i8"),
        ("is_overdue", "?"),  # this promise was not kept, and that was said
        ("was_delivered", "?"),
        ("due", "<i8"),  # watermark at which the promise passes; NEVER: none can
        ("last_event_time", "<i8"),
        ("vehicle_id", "O"),
    ]
)
_BOUND: Final = np.dtype(
    [
        ("event_id", "O"),
        ("sequence", "<i8"),
        ("event_time", "<i8"),
        ("order_id", "O"),
        ("kind", "<i1"),
        ("vehicle_id", "O"),
        ("latitude", "<f8"),
        ("longitude", "<f8"),
        ("promised_known", "?"),
        ("promised_time", "<i8"),
    ]
)
_OVERDUE: Final = np.dtype(
    [
        ("reason", "<i1"),
        ("promised_time", "<i8"),
        ("status", "<i1"),
        ("vehicle_id", "O"),
        ("delivered", "?"),
        ("delivered_time", "<i8"),
    ]
)


def _empty_order() -> Rows:
    row = empty_rows(_ORDER, 1)
    row["latitude"] = row["longitude"] = np.nan
    row["due"] = NEVER
    return row


@dataclass(frozen=True)
class Dispatch(OperatorSpec):
    """Declaration: steps of orders go to `bound`, keyed by vehicle; broken promises to `overdue`; orders to `table`.

    Reads the numeric fields kind, destination_latitude, destination_longitude and promised_time, and the text field
    vehicle_id, of events keyed by order. A step of an order without a known vehicle is keyed by `order:` and the id of
    the order. An order that gets another vehicle is released by the one before, by a row of its own.
    """

    bound: str
    overdue: str
    table: str

    @property
    def name(self) -> str:
        """Name of the operator: `dispatch`."""
        return "dispatch"

    def build(self, context: OperatorContext) -> "DispatchOperator":
        """An operator that knows no order."""
        return DispatchOperator(self, context)

    @cached_property
    def keyed(self) -> Sequence[KeyedState]:
        """A row for each order."""
        return (KeyedState(self.table, self.name, _empty_order(), RowLayout.of(_ORDER), order_rows),)

    @property
    def outputs(self) -> Sequence[OutputTopic]:
        """Bound steps, broken promises, and the table of orders."""
        unknown = empty_rows(_BOUND, 1)
        unknown["event_id"] = unknown["order_id"] = b"-"
        unknown["latitude"] = unknown["longitude"] = np.nan
        overdue = {"reason": REASONS, "status": KINDS}
        return (
            OutputTopic(self.bound, bound_rows, unknown, symbols={"kind": BOUND_KINDS}),
            OutputTopic(self.overdue, overdue_rows, empty_rows(_OVERDUE, 1), symbols=overdue),
            OutputTopic(self.table, order_rows, _empty_order(), is_compacted=True, symbols={"status": KINDS}),
        )


class DispatchOperator(Operator):
    """Binds orders to vehicles in one partition."""

    stage = "dispatch"

    def __init__(self, spec: Dispatch, context: OperatorContext) -> None:
        self._spec, self._keys = spec, context.keys
        (state,) = spec.keyed
        waiting = context.space(f"{spec.name}.due")
        self._rows = context.keys.attach(
            TimedRows(state.empty, context.space(state.part), waiting, context.home, due="due")
        )
        self._digest = state.digest
        self._bound: list[tuple[Any, ...]] = []
        self._bound_keys: list[bytes] = []
        self._overdue: list[tuple[Any, ...]] = []
        self._overdue_keys: list[bytes] = []

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Bind the steps, note broken promises, pass all on."""
        dropped = {}
        if len(events):
            events = self._keys.located(events)
            without = self._bind(events, trace)
            dropped = {WITHOUT_VEHICLE: without} if without else {}
        self._pass_promises(trace.end)
        return Output(events, trace, dropped=dropped)

    def _bind(self, events: Events, trace: WatermarkTrace) -> int:
        """Returns how many steps are of orders without a known vehicle."""
        order = np.argsort(events.slot, kind="stable")
        slots = events.slot[order]
        first = np.flatnonzero(np.append(True, slots[1:] != slots[:-1]))
        before = self._rows.of(slots[first])
        columns = zip(
            np.repeat(np.arange(len(first)), np.diff(np.append(first, len(slots)))).tolist(),
            byte_objects(events.key.take(order)).tolist(),
            byte_objects(events.event_id.take(order)).tolist(),
            events.sequence[order].tolist(),
            events.event_time[order].tolist(),
            trace.prior[order].tolist(),
            events.number("kind")[order].astype(np.int64).tolist(),
            events.text("vehicle_id")[order].tolist(),
            events.number("destination_latitude")[order].tolist(),
            events.number("destination_longitude")[order].tolist(),
            events.number("promised_time")[order].tolist(),
            strict=True,
        )
        after = before.copy()
        without, current, row = 0, -1, after[0]
        for owner, key, event_id, sequence, time, prior, kind, vehicle, latitude, longitude, promised in columns:
            if owner != current:
                current, row = owner, after[owner]
            if row["due"] <= prior:
                self._promise_passes(key, row)
            carried_by = row["vehicle_id"]
            if vehicle:
                row["vehicle_id"] = vehicle
            if not (math.isnan(latitude) or math.isnan(longitude)):
                row["latitude"], row["longitude"] = latitude, longitude
            if abs(promised) <= WHOLE_NUMBER_MAX and not (row["promised_known"] and row["promised_time"] == promised):
                row["promised_known"], row["promised_time"], row["is_overdue"] = True, int(promised), False
            row["status"], row["last_event_time"] = kind, time
            cannot_pass = kind in ENDED or row["is_overdue"] or not row["promised_known"]
            row["due"] = NEVER if cannot_pass else row["promised_time"]
            if kind == DELIVERED:
                self._deliver(key, row, time)
            if carried_by is not None and carried_by != row["vehicle_id"]:
                self._tell(carried_by, _released_id(event_id), sequence, time, key, RELEASED, carried_by, row)
            known = row["vehicle_id"]
            self._tell(known or UNASSIGNED + key, event_id, sequence, time, key, kind, known, row)
            without += known is None
        self._rows.put(slots[first], after, before)
        self._rows.due_min = min(self._rows.due_min, int(after["due"].min()))
        self._keys.touch(slots[first])
        return without

    def _tell(
        self, to: bytes, event_id: bytes, sequence: int, time: int, order: bytes, kind: int, vehicle: bytes | None,
        row: Any,
    ) -> None:  # fmt: skip
        self._bound_keys.append(to)
        place = (row["latitude"], row["longitude"], row["promised_known"], row["promised_time"])
        self._bound.append((event_id, sequence, time, order, kind, vehicle, *place))

    def _deliver(self, key: bytes, row: Any, time: int) -> None:
        if row["promised_known"] and time > row["promised_time"] and not row["was_delivered"]:
            row["is_overdue"] = True
            self._note_overdue(key, _DELIVERED_LATE, row, time)
        row["was_delivered"] = True

    def _promise_passes(self, key: bytes, row: Any) -> None:
        row["is_overdue"], row["due"] = True, NEVER
        self._note_overdue(key, _PASSED, row, None)

    def _note_overdue(self, key: bytes, reason: int, row: Any, delivered: int | None) -> None:
        self._overdue_keys.append(key)
        delivery = (delivered is not None, delivered or 0)
        self._overdue.append((reason, row["promised_time"], row["status"], row["vehicle_id"], *delivery))

    def _pass_promises(self, watermark: int) -> None:
        """Note promises that the watermark has passed, of orders in memory and in the store.

        Of the latter a bounded number in each cycle. What is noted does not depend on when that is.
        """
        rows = self._rows
        rows.load_waiting(watermark, self._keys)
        if rows.due_min > watermark:
            return
        known = rows.rows[: len(self._keys)]
        slots = np.flatnonzero(known["due"] <= watermark)
        for key, slot in zip(self._keys.keys_at(slots).tolist(), slots.tolist(), strict=True):
            self._promise_passes(key, known[slot])
        rows.due_min = int(known["due"].min(initial=NEVER))
        self._keys.touch(slots)

    def next_timer(self) -> int:
        """Watermark at which the next promise passes."""
        return self._rows.next_timer()

    def is_overdue(self, watermark: int) -> bool:
        """Whether some promises are left for the next cycle."""
        return self._rows.waits_at <= watermark

    # --- the commit cycle -------------------------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._rows.has_loaded and not self._bound and not self._overdue

    def changes(self, changed: ChangedKeys) -> Changes:
        """Bound steps and broken promises for their topics; the orders of changed keys for store and table."""
        found, spec = Changes(), self._spec
        rows = self._rows.of(changed.slots)
        self._rows.write(changed, rows, found.store)
        self._rows.delete_loaded(found.store)
        if len(changed):
            found.changelogs = [ChangelogRows(spec.table, changed.keys, rows, order_rows, self._digest)]
        noted = (
            (spec.bound, self._bound_keys, self._bound, _BOUND, bound_rows),
            (spec.overdue, self._overdue_keys, self._overdue, _OVERDUE, overdue_rows),
        )
        found.rows = [
            RowRecords(topic, objects(keys), np.array(each, dtype=dtype), columns)
            for topic, keys, each, dtype, columns in noted
            if keys
        ]
        self._bound, self._bound_keys, self._overdue, self._overdue_keys = [], [], [], []
        return found

    def rows_restored(self) -> None:
        """Find the promises of orders in the store: the watermark may pass them without an event."""
        self._rows.find_open()

    @property
    def cycle_bytes(self) -> int:
        """Rows that are to be written."""
        return (len(self._bound) + len(self._overdue)) * _ROW_BYTES


_ROW_BYTES: Final = 500
"""Rough memory of a row that waits to be written."""


def _released_id(event_id: bytes) -> bytes:
    """Id of the release that an event brings about: the same for the same event, and at most 128 bytes long."""
    return b"released-" + hashlib.blake2b(event_id, digest_size=16).hexdigest().encode()


def bound_rows(keys: Objects, rows: Rows) -> pa.RecordBatch:
    """Rows of `logistics.BoundOrder`."""
    return pa.RecordBatch.from_pydict(
        {
            "event_id": texts(rows["event_id"]),
            "bound_to": texts(keys),
            "sequence": pa.array(np.ascontiguousarray(rows["sequence"])),
            "event_time": times(rows["event_time"]),
            "order_id": texts(rows["order_id"]),
            "kind": symbols(BOUND_KINDS, rows["kind"]),
            "vehicle_id": texts(rows["vehicle_id"]),
            "destination_latitude": numbers(rows["latitude"]),
            "destination_longitude": numbers(rows["longitude"]),
            "promised_time": times(rows["promised_time"], rows["promised_known"]),
        }
    )


def order_rows(keys: Objects, rows: Rows) -> pa.RecordBatch:
    """Rows of `logistics.OrderDispatch`."""
    return pa.RecordBatch.from_pydict(
        {
            "order_id": texts(keys),
            "status": symbols(KINDS, rows["status"]),
            "vehicle_id": texts(rows["vehicle_id"]),
            "destination_latitude": numbers(rows["latitude"]),
            "destination_longitude": numbers(rows["longitude"]),
            "promised_time": times(rows["promised_time"], rows["promised_known"]),
            "is_overdue": pa.array(np.ascontiguousarray(rows["is_overdue"])),
            "last_event_time": times(rows["last_event_time"]),
        }
    )


def overdue_rows(keys: Objects, rows: Rows) -> pa.RecordBatch:
    """Rows of `logistics.OverdueOrder`."""
    delivered = np.ascontiguousarray(rows["delivered"])
    late_by = np.ascontiguousarray(rows["delivered_time"] - rows["promised_time"])
    return pa.RecordBatch.from_pydict(
        {
            "order_id": texts(keys),
            "reason": symbols(REASONS, rows["reason"]),
            "promised_time": times(rows["promised_time"]),
            "status": symbols(KINDS, rows["status"]),
            "vehicle_id": texts(rows["vehicle_id"]),
            "delivered_time": times(rows["delivered_time"], delivered),
            "late_by_ms": pa.array(late_by, mask=~delivered),
        }
    )
