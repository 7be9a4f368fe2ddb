"""Seeded traffic for one simulation: disorder, duplicates, ties, odd ids, tunnels, skew, odd timestamps and poison."""

import io
import json
import random
import uuid
from typing import Any

import fastavro

from loadtest.oracle.model import Event, Reject
from streams.batch.columns import Headers
from streams.kafka.memory import MemoryKafka
from streams.kafka.partitioner import partition_of
from streams.schemas.catalog import Catalog

SCHEMA_ID = 7
START_MS = 1_700_000_000_000
NOW_MS = START_MS + 3_600_000
"""When workers read the records, at the earliest."""
DECADE_MS = 10 * 365 * 86_400_000
NO_TIMES = (-1, 0, 86_400_000, START_MS // 1_000, NOW_MS + DECADE_MS)
"""Record timestamps that are no time: none, of 1970, in seconds, of a clock that is ten years ahead."""
UNREADABLE = "unreadable"
"""Stands for the name of a header that is not UTF-8."""


def gps_schema() -> str:
    return Catalog.load().latest("gps.positions.v1-value").text


_PARSED = fastavro.parse_schema(json.loads(gps_schema()))


def encode(event: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    stream.write(b"\0" + SCHEMA_ID.to_bytes(4, "big"))
    fastavro.schemaless_writer(stream, _PARSED, event)
    return stream.getvalue()


def fill(
    kafka: MemoryKafka, source: str, rng: random.Random, *, events: int, devices: int, lateness_ms: int
) -> dict[int, list[Event | Reject]]:
    """Append records to the source; returns what the model is to be fed, by partition."""
    fed: dict[int, list[Event | Reject]] = {p: [] for p in range(kafka.partitions)}
    sent: list[tuple[bytes, bytes, dict[str, Any]]] = []
    now = START_MS
    sequence = dict.fromkeys(range(devices), 0)
    for _ in range(events):
        now += rng.choice((0, 0, 1, 7, 50))
        if rng.random() < 0.002:
            now += lateness_ms * 20
        kind = rng.random()
        if sent and kind < 0.12:
            key, raw, event = rng.choice(sent[-40:] if rng.random() < 0.7 else sent)
        elif kind < 0.16:
            _poison(kafka, source, rng, now, fed)
            continue
        else:
            key, raw, event = _event(rng, now, sequence, lateness_ms)
            sent.append((key, raw, event))
        timestamp = now + rng.randint(-3, 30)
        if rng.random() < 0.05:
            timestamp = rng.choice(NO_TIMES)
        _append(kafka, source, fed, key, raw, event, timestamp)
    return fed


def _event(
    rng: random.Random, now: int, sequence: dict[int, int], lateness_ms: int
) -> tuple[bytes, bytes, dict[str, Any]]:
    number = rng.randrange(len(sequence))
    sequence[number] += rng.choice((0, 1, 1))
    back = rng.random()
    time = now
    if back < 0.25:
        time -= rng.randint(0, lateness_ms + 1)
    elif back < 0.35:
        time -= rng.randint(0, lateness_ms * 8)
    elif back < 0.37:
        time += rng.randint(0, 2 * lateness_ms)
    elif back < 0.38:
        time -= rng.randint(0, lateness_ms * 200)
    device = f"device-{number}"
    event_id = str(uuid.UUID(int=rng.getrandbits(128))) if rng.random() < 0.7 else f"é{rng.randrange(10**6)}"
    event: dict[str, Any] = {
        "event_id": event_id,
        "device_id": device,
        "sequence": sequence[number],
        "event_time": time - time % rng.choice((1, 1, 25)),
        "latitude": rng.uniform(-90, 90),
        "longitude": rng.uniform(-180, 180),
        "speed_kmh": rng.choice((None, 0.0, 2.999, 3.0, 55.123, 88.888)),
        "heading_deg": None,
        "altitude_m": None,
    }
    if rng.random() < 0.02:
        event[rng.choice(("latitude", "longitude"))] = 500.0
    if rng.random() < 0.01:
        event["speed_kmh"] = float("nan")
    if rng.random() < 0.01:
        event["event_time"] += rng.choice((10_000_000, DECADE_MS))
    return device.encode(), encode(event), event


def _poison(
    kafka: MemoryKafka, source: str, rng: random.Random, now: int, fed: dict[int, list[Event | Reject]]
) -> None:
    key, raw, event = _event(rng, now, {0: 0, 1: 0, 2: 0}, 100)
    timestamp = now if rng.random() < 0.8 else rng.choice(NO_TIMES)
    headers: Headers | None = None
    match rng.randrange(6):
        case 0:
            raw, reason = raw[: rng.randrange(5, len(raw) - 1)], "malformed"
        case 1:
            raw, reason = raw + b"x", "malformed"
        case 2:
            raw, reason = b"\x07" + raw, "not_framed"
        case 3:
            raw, reason = b"\0\0\0\0\x63" + raw[5:], "unknown_schema"
        case 4:
            headers, reason = [("own", b"1"), (UNREADABLE, b"2")], "bad_header"
        case _:
            _append(kafka, source, fed, b"stranger", raw, event, timestamp)
            return
    partition = partition_of(key, kafka.partitions)
    offset = kafka.append(source, partition, key, raw, timestamp, headers)
    fed[partition].append(Reject(offset, key, raw, reason, timestamp))


def _append(
    kafka: MemoryKafka,
    source: str,
    fed: dict[int, list[Event | Reject]],
    key: bytes,
    raw: bytes,
    event: dict[str, Any],
    timestamp: int,
) -> None:
    partition = partition_of(key, kafka.partitions)
    offset = kafka.append(source, partition, key, raw, timestamp)
    fed[partition].append(
        Event(
            offset=offset,
            timestamp_ms=timestamp,
            key=key,
            event_id=event["event_id"],
            device_id=event["device_id"],
            sequence=event["sequence"],
            event_time_ms=event["event_time"],
            latitude=event["latitude"],
            longitude=event["longitude"],
            speed_kmh=event["speed_kmh"],
            raw=raw,
            heading_deg=None,
        )
    )
