"""Messages to the browser: a length, a kind, and JSON or positions in columns. Pure.

Every message is a multiple of 8 bytes, little-endian: `u32` bytes that follow the header, `u32` kind, content, zeros.
Positions: `u32` count, `u32` zero, `f64` time of the answer; then by column `f64` times (milliseconds since the epoch),
`u32` numbers of vehicles, `i32` latitudes, `i32` longitudes (1e-7 degrees), `u16` speeds (0.1 km/h), `u16` headings
(0.01 degrees), `u8` states (`vehicles.STOPPED` and so on).
"""

import json
import struct
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streams.fleet.bounds import CHUNK_VEHICLES
from streams.fleet.columns import NOWHERE, packed_degrees, packed_headings, packed_speeds
from streams.fleet.vehicles import NEVER, VehicleRows

JSON: Final = 1
POSITIONS: Final = 2
_HEAD: Final = struct.Struct("<II")
_COUNT: Final = struct.Struct("<IId")
_ALIGN: Final = 8


def framed(kind: int, content: bytes) -> bytes:
    """A message: header, content, padding."""
    padding = -len(content) % _ALIGN
    return _HEAD.pack(len(content) + padding, kind) + content + bytes(padding)


def json_message(value: Any) -> bytes:
    """A message with JSON; padded with spaces, which JSON allows."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    return framed(JSON, text + b" " * (-len(text) % _ALIGN))


def packed_positions(
    now_ms: float,
    time: NDArray[Any],
    vehicle: NDArray[Any],
    latitude: NDArray[np.int32],
    longitude: NDArray[np.int32],
    speed: NDArray[np.uint16],
    heading: NDArray[np.uint16],
    state: NDArray[np.uint8],
) -> bytes:
    """A message with positions."""
    content = b"".join(
        (
            _COUNT.pack(len(vehicle), 0, now_ms),
            time.astype("<f8").tobytes(),
            vehicle.astype("<u4").tobytes(),
            latitude.astype("<i4").tobytes(),
            longitude.astype("<i4").tobytes(),
            speed.astype("<u2").tobytes(),
            heading.astype("<u2").tobytes(),
            state.astype("u1").tobytes(),
        )
    )
    return framed(POSITIONS, content)


def vehicle_messages(
    vehicles: VehicleRows, numbers: NDArray[np.int64], now_ms: float, *, masked: bool
) -> Iterator[bytes]:
    """What is known of vehicles now; `masked`: without places. Those without any position are left out."""
    numbers = numbers[vehicles.rows["time"][numbers] != NEVER]
    for first in range(0, len(numbers), CHUNK_VEHICLES):
        chunk = numbers[first : first + CHUNK_VEHICLES]
        rows = vehicles.rows[chunk]
        nowhere = np.full(len(chunk), NOWHERE, dtype=np.int32)
        yield packed_positions(
            now_ms,
            rows["time"],
            chunk,
            nowhere if masked else packed_degrees(rows["latitude"]),
            nowhere if masked else packed_degrees(rows["longitude"]),
            packed_speeds(rows["speed_kmh"]),
            packed_headings(rows["heading_deg"]),
            rows["state"],
        )


def name_messages(ids: list[str], first: int, *, masked: bool) -> Iterator[bytes]:
    """Ids of vehicles from number `first` on; `masked`: their numbers instead."""
    for start in range(first, len(ids), CHUNK_VEHICLES):
        chunk = ids[start : start + CHUNK_VEHICLES]
        shown = [f"vehicle {start + at + 1}" for at in range(len(chunk))] if masked else chunk
        yield json_message({"names": {"first": start, "ids": shown}})


def past_message(rows: NDArray[np.void], now_ms: float) -> bytes:
    """Positions of the past, in their order."""
    state = np.zeros(len(rows), dtype=np.uint8)
    return packed_positions(
        now_ms, rows["time"], rows["vehicle"], rows["latitude"], rows["longitude"], rows["speed"], rows["heading"],
        state,
    )  # fmt: skip
