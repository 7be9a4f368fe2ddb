"""State of an order: the step it has reached, when each step was, who carries it, and what contradicted."""

from typing import Any, Final

import numpy as np
import pyarrow as pa

from logistics.reference import OrderFold
from streams.batch.columns import Bools, Int64, Objects
from streams.batch.rows import Rows
from streams.limits import WHOLE_NUMBER_MAX
from streams.operators.fold.aggregate import Segments

KINDS: Final = ("CREATED", "ASSIGNED", "PICKED_UP", "DELIVERED", "CANCELLED")
"""Steps, in the order of `logistics.OrderKind` and of an order's life; cancelled instead of delivered."""
_ASSIGNED: Final = KINDS.index("ASSIGNED")
_DELIVERED: Final = KINDS.index("DELIVERED")
_CANCELLED: Final = KINDS.index("CANCELLED")

_DTYPE: Final = np.dtype(
    [
        ("events", "<i8"),
        ("status", "<i4"),
        ("farthest", "<i4"),  # highest step so far, counted from 1
        ("steps_seen", "<i4"),  # bit of each kind
        ("step_at", "<i8", (len(KINDS),)),
        ("promised_known", "?"),
        ("promised_time", "<i8"),
        ("last_event_time", "<i8"),
        ("contradictions", "<i8"),
        ("vehicle_id", "O"),
        ("depot_id", "O"),
    ]
)


class OrderState:
    """Fold of an order's events: of every value the newest that is known.

    Reads the numeric fields kind and promised_time, and the text fields vehicle_id and depot_id.
    Nothing is dropped because it contradicts what came before; it is folded like the rest, and counted: a step behind
    a farther one, anything but a repetition after a cancellation, a cancellation after delivery, another vehicle
    without a new assignment.
    """

    reference = OrderFold
    """The second opinion on it, by which `streams reconcile` goes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout of a row."""
        return _DTYPE

    def fold(self, state: Rows, segments: Segments) -> Rows:
        """Rows after the events of each segment."""
        event_time, start, end = segments.event_time, segments.start, segments.end
        kind = segments.number("kind").astype(np.int64)
        promised = segments.number("promised_time")
        rows = state.copy()
        rows["events"] += end - start + 1
        rows["status"] = kind[end]
        rows["last_event_time"] = event_time[end]
        for step in range(len(KINDS)):
            newest = _last_row(kind == step, start)
            seen = newest >= 0
            rows["steps_seen"] |= np.where(seen, 1 << step, 0)
            rows["step_at"][:, step] = np.where(seen, event_time[newest], state["step_at"][:, step])
        newest = _last_row(np.abs(promised) <= WHOLE_NUMBER_MAX, start)  # not those that are null
        seen = newest >= 0
        rows["promised_known"] |= seen
        known_time = np.nan_to_num(promised[newest]).astype(np.int64)
        rows["promised_time"] = np.where(seen, known_time, state["promised_time"])
        for name in ("vehicle_id", "depot_id"):
            text = segments.text(name)
            newest = _last_row(text != None, start)  # noqa: E711 - elementwise
            rows[name] = np.where(newest >= 0, text[newest], state[name])
        backwards, farthest = _backwards(state["farthest"], kind, segments)
        contradicts = backwards | _other_vehicle(state["vehicle_id"], kind, segments)
        rows["farthest"] = farthest
        rows["contradictions"] += np.add.reduceat(contradicts.astype(np.int64), start)
        return rows

    def table(self, keys: Objects, state: Rows) -> pa.RecordBatch:
        """Rows of `logistics.OrderState`."""
        time = pa.timestamp("ms")
        seen = state["steps_seen"]
        columns: dict[str, pa.Array] = {
            "order_id": pa.array(keys, pa.binary()).cast(pa.string()),
            "status": pa.array([KINDS[step] for step in state["status"].tolist()]),
            "vehicle_id": pa.array(state["vehicle_id"], pa.binary()).cast(pa.string()),
            "depot_id": pa.array(state["depot_id"], pa.binary()).cast(pa.string()),
        }
        for step, name in enumerate(KINDS):
            at = np.ascontiguousarray(state["step_at"][:, step])
            columns[f"{name.lower()}_at"] = pa.array(at, mask=seen & (1 << step) == 0).cast(time)
        columns["promised_time"] = pa.array(state["promised_time"], mask=~state["promised_known"]).cast(time)
        columns["events"] = pa.array(state["events"])
        columns["last_event_time"] = pa.array(state["last_event_time"]).cast(time)
        return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _last_row(wanted: Bools, start: Int64) -> Int64:
    """Last wanted row of each segment; -1 when there is none."""
    rows: Int64 = np.maximum.reduceat(np.where(wanted, np.arange(len(wanted)), -1), start)
    return rows


def _owner(segments: Segments) -> Int64:
    return np.repeat(np.arange(len(segments)), segments.end - segments.start + 1)


def _backwards(before: Int64, kind: Int64, segments: Segments) -> tuple[Bools, Int64]:
    """Which steps come behind a farther one, and the farthest step of each segment, counted from 1."""
    owner = _owner(segments)
    width = len(KINDS) + 1
    reached = np.maximum(kind + 1, before[owner]) + owner * width
    running = np.maximum.accumulate(reached)
    earlier = np.empty_like(running)
    earlier[1:] = running[:-1] - owner[1:] * width
    earlier[segments.start] = before
    behind = kind + 1 < earlier
    cancelled_late = (kind == _CANCELLED) & (earlier == _DELIVERED + 1)
    return behind | cancelled_late, running[segments.end] - owner[segments.end] * width


def _other_vehicle(before: Objects, kind: Int64, segments: Segments) -> Bools:
    """Which events name another vehicle than the one known before them, and are no assignment."""
    vehicle = segments.text("vehicle_id")
    named: Bools = vehicle != None  # noqa: E711 - elementwise
    row = np.arange(len(vehicle))
    last_named = np.maximum.accumulate(np.where(named, row, -1))
    earlier = np.empty_like(last_named)
    earlier[1:] = last_named[:-1]
    earlier[0] = -1
    owner = _owner(segments)
    inside = earlier >= segments.start[owner]
    known = np.where(inside, vehicle[earlier], before[owner])
    other: Bools = named & (known != None) & (known != vehicle) & (kind != _ASSIGNED)  # noqa: E711 - elementwise
    return other
