"""CPU time of decoder and operators alone, in microseconds an event: `python -m loadtest.operators`.

Micro-batches of 20,000 records of 12 partitions, with copies, disorder and late events, through the engine of the `gps`
flow; a cycle is closed and applied to stores in memory after every second one. Nothing is written to Kafka. Compare
figures of runs that alternate: the machine is shared.
"""

import io
import json
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import fastavro
import numpy as np

from logistics.flows.gps import GPS
from streams.avro.decode import Decoder
from streams.avro.resolve import build_plan
from streams.batch.records import Records
from streams.deadletters.letter.audit import Outcome
from streams.engine.config import TaskConfig
from streams.engine.cycle import Written
from streams.engine.engine import Engine, MicroBatch
from streams.engine.task import PartitionTask
from streams.flow.bounds import Bounds
from streams.schemas.catalog import Catalog
from streams.state.memory import MemoryStore

BATCHES: Final = 8
BATCH_RECORDS: Final = 20_000
PARTITIONS: Final = 12
DEVICES: Final = 3_000
START_MS: Final = 1_760_000_000_000
LATENESS_MS: Final = 5_000
SCHEMA_ID: Final = 7
_BATCHES_EACH_CYCLE: Final = 2
READ_MS: Final = START_MS + 3_600_000


def micro_batches(seed: int = 1) -> list[Records]:
    """The recorded traffic: the same for the same seed."""
    rng = random.Random(seed)
    schema = fastavro.parse_schema(json.loads(Catalog.load().latest(GPS.subject).text))
    head = b"\0" + SCHEMA_ID.to_bytes(4, "big")
    offsets = [0] * PARTITIONS
    sequences = [0] * DEVICES
    recent: list[tuple[int, bytes, bytes]] = []
    batches: list[Records] = []
    now = START_MS
    for _ in range(BATCHES):
        rows: list[tuple[int, int, int, bytes, bytes]] = []
        for _ in range(BATCH_RECORDS):
            now += rng.random() < 0.5
            if recent and rng.random() < 0.05:
                partition, key, value = rng.choice(recent)
            else:
                device = rng.randrange(DEVICES)
                partition, key = device % PARTITIONS, b"truck-%06d" % device
                sequences[device] += 1
                delay = rng.choice(
                    (0, 0, 0, rng.randrange(3_000), rng.randrange(3_000 if rng.random() < 0.9 else 60_000))
                )
                stream = io.BytesIO()
                position = {
                    "event_id": str(uuid.UUID(int=rng.getrandbits(128))),
                    "device_id": key.decode(),
                    "sequence": sequences[device],
                    "event_time": now - delay,
                    "latitude": 48.0 + rng.random(),
                    "longitude": 11.0 + rng.random(),
                    "speed_kmh": rng.random() * 120.0,
                    "heading_deg": 90.0,
                    "altitude_m": None,
                }
                fastavro.schemaless_writer(stream, schema, position)
                value = head + stream.getvalue()
                recent.append((partition, key, value))
                del recent[:-5_000]
            rows.append((partition, offsets[partition], now, key, value))
            offsets[partition] += 1
        partitions, places, times = (np.array(column, dtype=np.int64) for column in list(zip(*rows, strict=True))[:3])
        batches.append(Records(partitions, places, times, [row[3] for row in rows], [row[4] for row in rows]))
    return batches


class Clock:
    """CPU time of this thread, of everything and of the decoder."""

    def __init__(self) -> None:
        self.decode = 0.0

    @contextmanager
    def stopwatch(self, operator: str) -> Iterator[None]:
        """Measure the guarded block, if it is the decoder."""
        start = time.thread_time()
        yield
        if operator == "decode":
            self.decode += time.thread_time() - start


def run(batches: list[Records]) -> tuple[float, float, int]:
    """CPU time of operators and cycles, that of the decoder, in microseconds an event; and clean events."""
    clock = Clock()
    config = TaskConfig(
        replace(GPS, bounds=Bounds(LATENESS_MS, quarantine_rejects=0)),
        clock.stopwatch,
        lambda keys: np.array([int(key[-6:]) % PARTITIONS for key in keys], dtype=np.int64),
    )
    engine = Engine(config, Decoder(GPS, record_bytes_max=1 << 20, skew_ms_max=60_000))
    text = Catalog.load().latest(GPS.subject).text
    engine.learn({SCHEMA_ID: build_plan(SCHEMA_ID, text, text)})
    for partition in range(PARTITIONS):
        engine.install(PartitionTask(config, partition, MemoryStore(), None))
    clean = 0
    journal_next = dict.fromkeys(range(PARTITIONS), 0)
    start = time.thread_time()
    for number, records in enumerate(batches, 1):
        effects = engine.process(MicroBatch(records, READ_MS))
        clean += sum(part.outcomes().get(Outcome.CLEAN, 0) for part in effects.partitions)
        if number % _BATCHES_EACH_CYCLE:
            continue
        end = engine.close_cycle()
        for commit in end.commits if end is not None else ():
            first = journal_next[commit.partition]
            journal_next[commit.partition] = first + len(commit.journal)
            engine.tasks[commit.partition].cycle.applied(commit, Written(first, journal_next[commit.partition], {}))
    spent = time.thread_time() - start
    events = sum(map(len, batches))
    return (spent - clock.decode) / events * 1e6, clock.decode / events * 1e6, clean


def main() -> None:
    """Measure the operators and print the results."""
    batches = micro_batches()
    for _ in range(3):
        operators, decode, clean = run(batches)
        print(f"operators {operators:.4f} us an event, decode {decode:.4f} us, {clean:,} clean events", flush=True)


if __name__ == "__main__":
    main()
