"""CPU time of the decoder alone, in microseconds an event, by how the events were written: `python -m loadtest.decode`.

The flow is `gps`. Compare figures of one run only: the machine is shared.
"""

import io
import json
import math
import time
from collections.abc import Callable
from typing import Any, Final

import fastavro
import numpy as np

from logistics.flows.gps import GPS
from streams.avro.decode import Decoder
from streams.avro.framing import SCHEMA_ID_HEADER
from streams.avro.native import Native, choose
from streams.avro.resolve import Plan, build_plan
from streams.batch.records import Records
from streams.batch.rejects import Reject
from streams.limits import BATCH_RECORDS_MAX
from streams.schemas.catalog import Catalog

ROUNDS: Final = 30
TIME_MS: Final = 1_760_000_000_000
NESTED: Final = {
    "vendor": {"type": "record", "name": "Vendor", "fields": [{"name": "name", "type": "string"}]},
    "satellites": {"type": "array", "items": "int"},
    "extras": {"type": "map", "values": "string"},
    "raw": "bytes",
    "reading": ["null", "string", "long"],
}
NESTED_VALUES: Final = {
    "vendor": {"name": "Acme"},
    "satellites": [3, 7, 11, 19],
    "extras": {"firmware": "2.1"},
    "raw": b"\x00\xff\x10",
    "reading": 17,
}


def event(number: int) -> dict[str, Any]:
    """Return the event with this number, as a position."""
    return {
        "event_id": f"{number:08x}-0000-4000-8000-{number:012x}",
        "device_id": f"truck-{number % 500:06d}",
        "sequence": number,
        "event_time": TIME_MS + number,
        "latitude": 48.0 + number % 1000 / 1000,
        "longitude": 11.0 + number % 1000 / 1000,
        "speed_kmh": None if number % 7 == 0 else float(number % 120),
        "heading_deg": float(number % 360),
        "altitude_m": 512.0,
        **NESTED_VALUES,
    }


def encoded(schema: dict[str, Any], count: int) -> list[bytes]:
    """Return so many events, encoded in Avro and without Confluent's frame."""
    plain = fastavro.parse_schema(json.loads(json.dumps(schema).replace('"logicalType": "timestamp-millis"', '"x": 1')))
    bodies = []
    for number in range(count):
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, plain, event(number))
        bodies.append(stream.getvalue())
    return bodies


def records(bodies: list[bytes], ids: Callable[[int], int], *, in_header: Callable[[int], bool]) -> Records:
    """A micro-batch; each record with its schema id in the prefix or in a header."""
    count = len(bodies)
    frames = [b"\0" + ids(row).to_bytes(4, "big") for row in range(count)]
    headers: list[list[tuple[str, bytes | None]] | None] = [
        [(SCHEMA_ID_HEADER, frame)] if in_header(row) else None for row, frame in enumerate(frames)
    ]
    return Records(
        np.zeros(count, np.int64),
        np.arange(count),
        np.full(count, TIME_MS + count),
        [f"truck-{row % 500:06d}".encode() for row in range(count)],
        [body if in_header(row) else frames[row] + body for row, body in enumerate(bodies)],
        headers if any(headers) else None,
    )


def main() -> None:
    """Measure every way of writing, and print the best round of each."""
    first, second = Catalog.load().versions(GPS.subject)
    nested = json.loads(second.text)
    nested["fields"] += [{"name": name, "type": kind} for name, kind in NESTED.items()]
    moved = {**second.parsed, "fields": list(reversed(second.parsed["fields"]))}
    writers = {1: first.parsed, 2: second.parsed, 3: moved, 4: nested}
    bodies = {number: encoded(schema, BATCH_RECORDS_MAX) for number, schema in writers.items()}
    known: dict[int | str, Plan | Reject] = {
        number: build_plan(number, json.dumps(schema), second.text) for number, schema in writers.items()
    }
    mixed = [bodies[1 + row % 2][row] for row in range(BATCH_RECORDS_MAX)]
    batches = {
        "the reader's own schema": records(bodies[2], lambda _: 2, in_header=lambda _: False),
        "the version before": records(bodies[1], lambda _: 1, in_header=lambda _: False),
        "fields in another order": records(bodies[3], lambda _: 3, in_header=lambda _: False),
        "two versions mixed": records(mixed, lambda row: 1 + row % 2, in_header=lambda _: False),
        "ids in headers": records(bodies[2], lambda _: 2, in_header=lambda _: True),
        "prefix and header mixed": records(bodies[2], lambda _: 2, in_header=lambda row: row % 2 == 0),
        "nested types beside": records(bodies[4], lambda _: 4, in_header=lambda _: False),
    }
    batches["one record in 100 malformed"] = records(
        [body[:-1] if row % 100 == 50 else body for row, body in enumerate(bodies[2])],
        lambda _: 2,
        in_header=lambda _: False,
    )
    native = choose("auto")
    print(f"native: records are decoded {native.reason}")
    for name, batch in batches.items():
        best = _best(batch, known, [None, native.native] if native.native else [None])
        ratio = f"   native {best[1]:7.3f}, {best[0] / best[1]:.2f} times as fast" if len(best) > 1 else ""
        print(f"{name:<28} {best[0]:7.3f} µs/event{ratio}")


def _best(batch: Records, known: dict[int | str, Plan | Reject], choices: list[Native | None]) -> list[float]:
    """CPU time of each decoder, in µs an event: the least of all rounds, which they take in turn."""
    decoders = [Decoder(GPS, record_bytes_max=1 << 20, skew_ms_max=60_000, native=native) for native in choices]
    best = [math.inf] * len(decoders)
    for _ in range(ROUNDS):
        for place, decoder in enumerate(decoders):
            start = time.thread_time()
            decoded = decoder.decode(batch, known)
            best[place] = min(best[place], time.thread_time() - start)
            assert len(decoded.events) + len(decoded.rejects) == len(batch)  # noqa: S101
    return [spent / len(batch) * 1e6 for spent in best]


if __name__ == "__main__":
    main()
