"""Public rows of followed orders, of vehicles with what they carry, and of verified deliveries."""

from typing import Final

import numpy as np
import pyarrow as pa

from logistics.folds.geo import haversine_mm
from logistics.folds.order_state import KINDS
from logistics.operators.arrow import numbers, symbols, texts, times
from logistics.operators.dispatch import DELIVERED, ENDED
from logistics.operators.recent_speed import speeds_kmh
from streams.batch.columns import Bools, Float64, Int64, Objects
from streams.batch.rows import Rows

RISKS: Final = ("ON_TIME", "AT_RISK", "LATE", "UNKNOWN")
_ON_TIME, _AT_RISK, _LATE, _UNKNOWN = range(len(RISKS))
DETOUR: Final = 1.3
"""Roads are so much longer than the great circle: assumed."""
VERDICTS: Final = ("YES", "NO", "UNKNOWN")
CAUSES: Final = ("NEAR", "FAR", "NO_VEHICLE", "NO_DESTINATION", "NO_POSITION")
NEAR_MM_MAX: Final = 200_000
"""Distance to the destination up to which a vehicle is there."""
_MINUTE_MS: Final = 60_000
_MS_PER_HOUR: Final = 3_600_000

_OF_ORDER: Final = [
    ("vehicle_id", "O"),
    ("event_time", "<i8"),
    ("status", "<i1"),
    ("destination_latitude", "<f8"),
    ("destination_longitude", "<f8"),
    ("promised_known", "?"),
    ("promised_time", "<i8"),
]
STEP: Final = np.dtype([*_OF_ORDER, ("key", "<i8"), ("position", "<i8")])
"""What a row is about, and where what is known of its vehicle stands."""
TRACKED: Final = np.dtype(
    [
        *_OF_ORDER,
        ("step_time", "<i8"),  # of the order's step; event_time is that of a newer position
        ("position_known", "?"),
        ("position_time", "<i8"),
        ("latitude", "<f8"),
        ("longitude", "<f8"),
        ("speed_kmh", "<f8"),
    ]
)


def tracked_rows(keys: Objects, rows: Rows) -> pa.RecordBatch:
    """Rows of `logistics.OrderTracking`."""
    known, promised = rows["position_known"], rows["promised_known"]
    time = rows["event_time"]
    distance_mm, located = _distances(rows, known)
    has_ended = np.isin(rows["status"], sorted(ENDED))
    arrival, arrives = _arrivals(time, distance_mm, rows["speed_kmh"], located & ~has_ended)
    risk = _risks(rows, arrival, arrives, has_ended=has_ended)
    return pa.RecordBatch.from_pydict(
        {
            "order_id": texts(keys),
            "vehicle_id": texts(rows["vehicle_id"]),
            "status": symbols(KINDS, rows["status"]),
            "event_time": times(time),
            "position_time": times(rows["position_time"], known),
            "latitude": numbers(np.where(known, rows["latitude"], np.nan)),
            "longitude": numbers(np.where(known, rows["longitude"], np.nan)),
            "distance_km": pa.array(distance_mm / 1e6, mask=~located),
            "speed_kmh": numbers(np.where(known, rows["speed_kmh"], np.nan)),
            "expected_arrival": times(arrival, arrives),
            "promised_time": times(rows["promised_time"], promised),
            "to_promise_min": pa.array((rows["promised_time"] - time) / _MINUTE_MS, mask=~promised),
            "risk": symbols(RISKS, risk),
        }
    )


def _distances(rows: Rows, known: Bools) -> tuple[Int64, Bools]:
    """Millimetres to the destination, and where both ends are known."""
    to_latitude, to_longitude = rows["destination_latitude"], rows["destination_longitude"]
    located = known & ~np.isnan(to_latitude) & ~np.isnan(to_longitude)
    ends = (rows["latitude"], rows["longitude"], to_latitude, to_longitude)
    return haversine_mm(*(np.where(located, each, 0.0) for each in ends)), located


def _arrivals(time: Int64, distance_mm: Int64, speed_kmh: Float64, located: Bools) -> tuple[Int64, Bools]:
    """When the destination is reached at this speed, and where that is known."""
    moves = located & ~np.isnan(speed_kmh)
    hours = distance_mm * (DETOUR / 1e6) / np.where(moves, speed_kmh, 1.0)
    return time + np.rint(np.where(moves, hours, 0.0) * _MS_PER_HOUR).astype(np.int64), moves


def _risks(rows: Rows, arrival: Int64, arrives: Bools, *, has_ended: Bools) -> Int64:
    promised, promise = rows["promised_known"], rows["promised_time"]
    time = np.where(has_ended, rows["step_time"], rows["event_time"])
    risk = np.full(len(rows), _UNKNOWN)
    risk[promised & arrives] = _ON_TIME
    risk[promised & arrives & (arrival > promise)] = _AT_RISK
    risk[promised & has_ended] = _ON_TIME
    risk[promised & (time > promise)] = _LATE
    risk[has_ended & (rows["status"] != DELIVERED)] = _UNKNOWN
    return risk


def vehicle_rows(keys: Objects, rows: Rows) -> pa.RecordBatch:
    """Rows of `logistics.VehicleOrders`."""
    known = rows["known"]
    return pa.RecordBatch.from_pydict(
        {
            "vehicle_id": texts(keys),
            "open_orders": pa.array(rows["open_orders"].astype(np.int64)),
            "position_time": times(rows["time"], known),
            "latitude": numbers(np.where(known, rows["latitude"], np.nan)),
            "longitude": numbers(np.where(known, rows["longitude"], np.nan)),
            "speed_kmh": numbers(speeds_kmh(rows)),
        }
    )


def verified_rows(_keys: Objects, rows: Rows) -> pa.RecordBatch:
    """Rows of `logistics.VerifiedDelivery`, of deliveries joined with the newest position of their vehicles."""
    matched = np.ascontiguousarray(rows["matched"])
    vehicle = rows["orders.vehicle_id"]
    latitude, longitude = rows["orders.destination_latitude"], rows["orders.destination_longitude"]
    has_vehicle = vehicle != None  # noqa: E711 - elementwise
    has_destination = ~np.isnan(latitude) & ~np.isnan(longitude)
    located = matched & has_destination
    ends = (rows["positions.latitude"], rows["positions.longitude"], latitude, longitude)
    distance_mm = haversine_mm(*(np.where(located, each, 0.0) for each in ends))
    near = distance_mm <= NEAR_MM_MAX
    cause = np.select([~has_vehicle, ~has_destination, ~matched, near], [2, 3, 4, 0], default=1)
    verdict = np.where(cause > 1, VERDICTS.index("UNKNOWN"), cause)
    position_time = np.where(matched, rows["positions.event_time"], 0)
    age_ms = np.ascontiguousarray(rows["event_time"] - position_time)
    return pa.RecordBatch.from_pydict(
        {
            "order_id": texts(rows["orders.order_id"]).fill_null(""),  # every order has an id
            "vehicle_id": texts(vehicle),
            "delivered_time": times(rows["event_time"]),
            "is_verified": symbols(VERDICTS, verdict),
            "because": symbols(CAUSES, cause),
            "distance_m": pa.array(distance_mm / 1e3, mask=~located),
            "position_time": times(position_time, matched),
            "position_age_ms": pa.array(age_ms, mask=~matched),
        }
    )
