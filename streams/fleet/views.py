"""What the fleet page shows as JSON: counts and orders at risk each second, and one vehicle with all about it. Pure."""

import math
from typing import Any

import numpy as np

from streams.fleet.bounds import HISTORY_MS, ORDERS_SHOWN_MAX, PANEL_MINUTES, PANEL_ROWS, TRAIL_POINTS_MAX
from streams.fleet.columns import DEGREE, UNKNOWN
from streams.fleet.order_book import OrderRow
from streams.fleet.picture import Picture
from streams.fleet.vehicles import NEVER, STOPPED


def news(picture: Picture, now_ms: int, *, ids: bool) -> dict[str, Any]:
    """Counts, orders at risk and how reading goes; `ids`: with the ids of vehicles. The lock is held by the caller."""
    picture.pass_time(now_ms)
    rows = picture.vehicles.rows
    placed = rows["time"] != NEVER
    silent = placed & (rows["time"] < now_ms - round(picture.declared.silent_after_s * 1000))
    stopped = placed & ~silent & ((rows["state"] & STOPPED) > 0)
    reading, orders = picture.reading, picture.orders
    return {
        "now": now_ms,
        "vehicles": int(placed.sum()),
        "moving": int((placed & ~silent & ~stopped).sum()),
        "stopped": int(stopped.sum()),
        "silent": int(silent.sum()),
        "beyond": picture.vehicles.beyond,
        "orders": len(orders),
        "orders_beyond": orders.beyond,
        "at_risk": orders.at_risk,
        "risky": [_order(picture, row, ids=ids) for row in orders.risky(ORDERS_SHOWN_MAX)],
        "partitions": reading.partitions,
        "behind": reading.behind,
        "records": sum(reading.records.values()),
        "rejects": sum(reading.rejects.values()),
        "problems": [
            what if what.startswith(where) else f"{where}: {what}" for where, what in sorted(reading.problems.items())
        ],
    }


def _order(picture: Picture, row: OrderRow, *, ids: bool) -> dict[str, Any]:
    number = None if row.vehicle is None else picture.vehicles.number_of(row.vehicle)
    return {
        "order": row.order,
        "vehicle": number,
        "vehicle_id": row.vehicle if ids else None,
        "status": row.status,
        "risk": picture.orders.risk_of(row),
        "late": picture.orders.is_late(row),
        "promised": row.promised_time,
        "expected": row.expected_arrival,
        "distance_km": _number(row.distance_km, 1),
    }


def vehicle(picture: Picture, number: int, *, masked: bool, ids: bool, now_ms: int) -> dict[str, Any] | None:
    """All about one vehicle; None: there is none of this number. `masked`: without places."""
    with picture.lock:
        if not 0 <= number < len(picture.vehicles):
            return None
        picture.pass_time(now_ms)
        row = picture.vehicles.rows[number]
        name = picture.vehicles.ids[number]
        since = max(0, now_ms - HISTORY_MS)
        return {
            "vehicle": number,
            "id": name if ids else f"vehicle {number + 1}",
            "time": _time(row["time"]),
            "latitude": None if masked else _number(row["latitude"], 6),
            "longitude": None if masked else _number(row["longitude"], 6),
            "speed_kmh": _number(row["speed_kmh"], 1),
            "heading_deg": _number(row["heading_deg"], 0),
            "state": int(row["state"]),
            "odometer_km": _number(row["odometer_km"], 1),
            "stopped_since": _time(row["stopped_since"]),
            "speed_mean_kmh": _number(row["speed_mean_kmh"], 1),
            "speed_max_kmh": _number(row["speed_max_kmh"], 1),
            "events": int(row["events"]) or None,
            "minutes": _minutes(picture, number, since),
            "trips": _trips(picture, number),
            "orders": [_order(picture, one, ids=ids) for one in picture.orders.of_vehicle(name)[:PANEL_ROWS]],
            "orders_total": len(picture.orders.of_vehicle(name)),
            "deliveries": _of(picture.orders.deliveries, name),
            "late_promises": _of(picture.orders.late_promises, name),
        }


def _minutes(picture: Picture, number: int, since_ms: int) -> list[dict[str, Any]]:
    """Windows of the last hour, their rows added up."""
    rows = picture.minutes.where("vehicle", number)
    found: dict[int, dict[str, Any]] = {}
    for row in rows[rows["start"] >= since_ms]:
        minute = found.setdefault(int(row["start"]), {"start": int(row["start"]), "km": 0.0, "kmh": None})
        minute["km"] = round(minute["km"] + float(row["distance_km"]), 3)
        if math.isfinite(row["speed_max_kmh"]):
            minute["kmh"] = max(minute["kmh"] or 0.0, round(float(row["speed_max_kmh"]), 1))
    return [found[start] for start in sorted(found)][-PANEL_MINUTES:]


def _trips(picture: Picture, number: int) -> list[dict[str, Any]]:
    return [
        {
            "start": _time(row["start"]),
            "end": _time(row["end"]),
            "km": _number(row["distance_km"], 1),
            "moving_ms": _number(row["moving_ms"], 0),
            "stopped_ms": _number(row["stopped_ms"], 0),
            "kmh": _number(row["speed_mean_kmh"], 1),
        }
        for row in picture.trips.where("vehicle", number)[: -PANEL_ROWS - 1 : -1]
    ]


def _of(rows: Any, name: str) -> list[dict[str, Any]]:
    """The newest of some rows that are a vehicle's, without its id."""
    found = [row for row in reversed(rows) if row["vehicle"] == name][:PANEL_ROWS]
    return [{field: value for field, value in row.items() if field != "vehicle"} for row in found]


def trail(picture: Picture, number: int, since_ms: int) -> list[list[float]]:
    """Where a vehicle was: time, latitude, longitude, speed (-1: unknown), the oldest first."""
    with picture.lock:
        rows = picture.history.where("vehicle", number)
    rows = rows[rows["time"] >= since_ms]
    rows = rows[:: max(1, math.ceil(len(rows) / TRAIL_POINTS_MAX))]
    return [
        [
            int(row["time"]),
            int(row["latitude"]) / DEGREE,
            int(row["longitude"]) / DEGREE,
            -1.0 if row["speed"] == UNKNOWN else int(row["speed"]) / 10,
        ]
        for row in rows
    ]


def _time(value: Any) -> int | None:
    return None if value == NEVER else int(value)


def _number(value: Any, digits: int) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    found = round(float(value), digits)
    return int(found) if digits == 0 else found


def past(picture: Picture, first_ms: int, end_ms: int, rows_max: int) -> tuple["np.ndarray[Any, Any]", int]:
    """Where everybody was at `first_ms`, and all positions until `end_ms`; and the time of the oldest that is known."""
    with picture.lock:
        within = picture.history.between("time", first_ms, end_ms)
        earlier = picture.history.before("time", first_ms)
        oldest = int(picture.history.column("time").min()) if len(picture.history) else first_ms
    _, at = np.unique(earlier["vehicle"][::-1], return_index=True)
    start = earlier[len(earlier) - 1 - at]
    within = within[:: max(1, math.ceil(len(within) / max(1, rows_max - len(start))))]
    return np.concatenate([start, within]), oldest
