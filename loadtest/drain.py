"""CPU time of the thread that processes and writes, by part and way, in µs an event: `python -m loadtest.drain`.

The micro-batches of `loadtest.operators` pass decoder, operators and committer, in turn in Python, with the native
library over bytes objects, as flows of several inputs have them, and over references. Records are given to a producer
whose broker librdkafka simulates; only the thread that gives them is measured. Nothing is consumed, nothing committed
to a group. `--records 2000` measures what a live stream of 10,000 events/s costs: a micro-batch for each commit cycle.
Figures of a shared machine are to be compared within a run.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
from confluent_kafka import Producer

from loadtest.operators import BATCH_RECORDS, LATENESS_MS, PARTITIONS, READ_MS, SCHEMA_ID, micro_batches
from loadtest.produce import MOCK_CONFIG, native_producer
from logistics.flows.gps import GPS
from streams.avro.decode import Decoder
from streams.avro.native import Native, choose
from streams.avro.resolve import build_plan
from streams.batch.records import Records
from streams.deadletters.letter.audit import Outcome
from streams.engine.commit import Committer
from streams.engine.config import TaskConfig
from streams.engine.encode import RowEncoder
from streams.engine.engine import Engine, MicroBatch
from streams.engine.log import Changelog
from streams.engine.task import PartitionTask
from streams.flow.bounds import Bounds
from streams.kafka.clients import producer as new_producer
from streams.schemas.catalog import Catalog
from streams.settings import Settings
from streams.sinks.base import Committed, TopicRecords
from streams.sinks.kafka.produce import Gives, GivesBatch, GivesEach
from streams.state.memory import MemoryStore

ROUNDS: Final = 3
_BATCHES_EACH_CYCLE: Final = 2
"""Micro-batches in each commit cycle: a worker that lags fills its micro-batches, so few fit into a cycle."""
_MOCK_PARTITIONS: Final = 4
"""Number of partitions that the topics of a simulated broker have."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way for events through the worker: by which decoder, producer and kind of values."""

    name: str
    native: Native | None
    by_reference: bool
    producer: Producer
    gives: Gives


class _Sink:
    """`Transactions` that only gives records to a producer, and takes the time that this takes."""

    def __init__(self, way: Way, spend: Callable[[str, float], None]) -> None:
        self._way, self._spend = way, spend
        self._waiting: list[Callable[[int], None]] = []

    def begin(self) -> None: ...

    def produce(self, records: TopicRecords) -> None:
        if records.partition is not None:
            records = replace(records, partition=records.partition % _MOCK_PARTITIONS)
        start_s = time.thread_time()
        taken, error = self._way.gives(records, 0)
        self._spend("produce", time.thread_time() - start_s)
        if error is not None:
            raise RuntimeError(f"{taken} of {len(records)} records were taken: {error}")
        if records.on_last_delivered is not None and len(records):
            self._waiting.append(records.on_last_delivered)

    def send_offsets(self, positions: dict[int, Committed], membership: object) -> None: ...

    def commit(self) -> None:
        for delivered in self._waiting:
            delivered(0)
        self._waiting.clear()

    def abort(self) -> None: ...

    def reopen(self) -> None: ...

    def close(self) -> None: ...


def ways() -> list[Way]:
    """Every way that there is here."""
    made = new_producer(Settings(), MOCK_CONFIG)
    found = [Way("Python", None, by_reference=False, producer=made, gives=GivesEach(made))]
    native = choose("auto").native
    if native is None:
        return found
    found.append(replace(found[0], name="native, objects", native=native))
    other, gives = native_producer()
    found.append(Way("native, references", native, by_reference=True, producer=other, gives=GivesBatch(gives)))
    return found


def run(way: Way, batches: list[Records], batches_each_cycle: int) -> tuple[dict[str, float], int]:
    """µs an event by part, and how many events were clean."""
    spent: dict[str, float] = {}

    def spend(part: str, seconds: float) -> None:
        spent[part] = spent.get(part, 0.0) + seconds

    @contextmanager
    def stopwatch(part: str) -> Iterator[None]:
        start_s = time.thread_time()
        yield
        spend(part, time.thread_time() - start_s)

    catalog = Catalog.load()
    library = None if way.native is None else way.native.library
    config = TaskConfig(
        replace(GPS, bounds=Bounds(LATENESS_MS, quarantine_rejects=0)),
        stopwatch,
        lambda keys: np.array([int(key[-6:]) % PARTITIONS for key in keys], dtype=np.int64),
        add_ids=None if library is None else library.ids_add,
        key_map=library.KeyMap if library is not None and way.by_reference else None,
    )
    engine = Engine(config, Decoder(GPS, record_bytes_max=1 << 20, skew_ms_max=60_000, native=way.native))
    text = catalog.latest(GPS.subject).text
    engine.learn({SCHEMA_ID: build_plan(SCHEMA_ID, text, text)})
    for partition in range(PARTITIONS):
        engine.install(PartitionTask(config, partition, MemoryStore(), None))
    encoders = [
        RowEncoder(topic, catalog.latest(f"{topic}-value").text, number)
        for number, topic in enumerate(["vehicles.state.v1", "vehicles.minutes.v1"], 1)
    ]
    nobody = cast("Changelog", None)  # asked only when an outcome is unknown
    committer = Committer(config.pipeline, _Sink(way, spend), nobody, encoders, author="a", session="s")
    clean, whole = 0, 0.0
    for number, records in enumerate(batches, 1):
        start_s = time.thread_time()
        effects = engine.process(MicroBatch(records, READ_MS))
        processed_s = time.thread_time()
        committer.write(effects)
        written_s = time.thread_time()
        clean += sum(part.outcomes().get(Outcome.CLEAN, 0) for part in effects.partitions)
        if number % batches_each_cycle == 0 and (end := engine.close_cycle()) is not None:
            committer.commit(end, engine.tasks, READ_MS, lambda: None)
        ended_s = time.thread_time()
        spend("process", processed_s - start_s)
        spend("write", written_s - processed_s)
        spend("cycle end", ended_s - written_s)
        whole += ended_s - start_s
        del effects
        if way.producer.flush(60):
            raise RuntimeError("the simulated broker does not take the records")
    spent["all"] = whole
    events = sum(map(len, batches))
    return {part: seconds / events * 1e6 for part, seconds in spent.items()}, clean


def cut(batches: list[Records], records: int) -> list[Records]:
    """The same records in micro-batches of so many."""
    return [
        one.take(np.arange(at, min(at + records, len(one)))) for one in batches for at in range(0, len(one), records)
    ]


def main() -> None:
    """Measure and print: the median of all rounds, which the ways take in turn."""
    options = argparse.ArgumentParser(description="CPU time of the thread that processes and writes, in µs an event")
    options.add_argument("--records", type=int, default=BATCH_RECORDS, help="Records of a micro-batch.")
    records = options.parse_args().records
    batches, chosen = cut(micro_batches(), records), ways()
    each_cycle = _BATCHES_EACH_CYCLE if records == BATCH_RECORDS else 1
    found: dict[str, list[dict[str, float]]] = {way.name: [] for way in chosen}
    for _ in range(ROUNDS):
        cleans = set()
        for way in chosen:
            given: Any = batches
            if way.by_reference and way.native is not None:
                made = way.native.library.ByteRefs
                given = [replace(one, key=made.of(list(one.key)), value=made.of(list(one.value))) for one in batches]
            spent, clean = run(way, given, each_cycle)
            found[way.name].append(spent)
            cleans.add(clean)
        if len(cleans) > 1:
            raise RuntimeError(f"the ways differ in how many events are clean: {cleans}")
    for name, rounds in found.items():
        medians = {part: statistics.median(one.get(part, 0.0) for one in rounds) for part in rounds[0]}
        print(f"{name:>20}: " + ", ".join(f"{part} {value:.3f}" for part, value in medians.items()), flush=True)


if __name__ == "__main__":
    main()
