"""Steps of orders by vehicle, at a steady rate, as the flow `dispatch` writes them; deterministic in their seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from loadtest.fleet.encode import encode, numbered_texts, times, uuid_texts
from loadtest.fleet.positions import PREFIX
from loadtest.fleet.traffic import TrafficBatch

KINDS: Final = ("ASSIGNED", "PICKED_UP", "DELIVERED")
STRANGERS: Final = 0.02
"""Share of the steps that name a vehicle which never reports."""
COPIES: Final = 0.05
DELAY_MS_MAX: Final = 3_000
"""Between the time of a step and its arrival: less than the lateness, so that none is late."""
_CHUNK: Final = 50_000
_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class StepShape:
    """Shape of the traffic of steps: how many vehicles, over which time, in which schema."""

    vehicles: int
    start_ms: int
    span_ms: int
    schema: str
    schema_id: int
    delay_ms_max: int = DELAY_MS_MAX
    """Between the time of a step and its arrival."""


def steps(seed: int, shape: StepShape, records: int) -> Iterator[TrafficBatch]:
    """So many records in the order of their arrival; some are copies of others."""
    done = 0
    while done < records:
        count = min(_CHUNK, records - done)
        yield _chunk(np.random.default_rng([seed, 21, done]), shape, records, done, count)
        done += count


def _chunk(rng: np.random.Generator, shape: StepShape, records: int, done: int, count: int) -> TrafficBatch:
    arrival = shape.start_ms + shape.delay_ms_max + (done + np.arange(count)) * shape.span_ms // records
    event_time = arrival - rng.integers(0, shape.delay_ms_max, count)
    strange = rng.random(count) < STRANGERS
    vehicle = rng.integers(0, shape.vehicles, count) + np.where(strange, shape.vehicles, 0)
    order = rng.integers(0, max(1, records // 4), count)
    names = numbered_texts(PREFIX, vehicle, _DIGITS)
    nothing = pa.nulls(count, pa.float64())
    values = encode(
        pa.record_batch(
            {
                "event_id": uuid_texts(rng, count),
                "bound_to": names,
                "sequence": pa.array(done + np.arange(count)),
                "event_time": times(event_time),
                "order_id": numbered_texts("order-", order, 9),
                "kind": pa.array(np.array(KINDS)[rng.integers(0, len(KINDS), count)]),
                "vehicle_id": names,
                "destination_latitude": nothing,
                "destination_longitude": nothing,
                "promised_time": pa.nulls(count, pa.timestamp("ms")),
            }
        ),
        shape.schema,
        shape.schema_id,
    )
    # A copy stands in the place of a step of its own, some places after the step that it repeats.
    of, is_copy = np.arange(count), rng.random(count) < COPIES
    is_copy[0] = False
    original = np.maximum.accumulate(np.where(is_copy, 0, of))
    copies = np.flatnonzero(is_copy)
    of[copies] = original[np.maximum(copies - rng.integers(1, 200, len(copies)), 0)]
    keys = [name.encode() for name in names.take(pa.array(of)).to_pylist()]
    return TrafficBatch(keys, values.take(pa.array(of)).to_pylist(), arrival.tolist(), np.zeros(count, dtype=np.int8))
