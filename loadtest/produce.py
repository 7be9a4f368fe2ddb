"""CPU time of giving records to a producer, both ways, in microseconds a record: `python -m loadtest.produce`.

The same batch of 20,000 events is given one by one and in one native call, in turn, in one process. What is measured is
the thread that gives them: librdkafka's own threads do the same work either way, against a broker that it simulates.
Figures of a shared machine are to be compared within a run.
"""

import statistics
import time
from typing import Any, Final

from confluent_kafka import Producer

from loadtest.operators import micro_batches
from streams.errors import UsageError
from streams.kafka.native_client import NativeProducer, native_clients
from streams.settings import Settings
from streams.sinks.base import TopicRecords
from streams.sinks.kafka.produce import Gives, GivesBatch, GivesEach

ROUNDS: Final = 30
_TOPIC: Final = "out"
MOCK_CONFIG: Final[dict[str, Any]] = {
    "test.mock.num.brokers": 1,
    "queue.buffering.max.messages": 1_000_000,
    "batch.num.messages": 20_000,
    "batch.size": 1_000_000,
    "linger.ms": 10,
    "compression.type": "lz4",
    "log_level": 0,
}


def measured(ways: dict[str, Gives], records: TopicRecords, flush: Any) -> dict[str, list[float]]:
    """Microseconds a record of each round, by way; the ways take turns."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, give in ways.items():
            start_s = time.thread_time()
            taken, error = give(records, 0)
            found[name].append((time.thread_time() - start_s) / len(records) * 1e6)
            if taken != len(records) or flush(60):
                raise RuntimeError(f"{taken} of {len(records)} records were taken: {error}")
    return found


def native_producer() -> tuple[Producer, NativeProducer]:
    """A producer whose broker librdkafka simulates, and what gives it records natively.

    Raises:
        UsageError: there is no native library, or it cannot be used.

    """
    clients = native_clients("on")
    if clients is None:
        raise UsageError("the native library cannot take and give records")
    producer, native = clients.producer(Settings(), MOCK_CONFIG)
    if native is None:
        raise UsageError("the handle of the client is not certain")
    return producer, native


def main() -> None:
    """Measure producing and print the results."""
    producer, native = native_producer()
    batch = micro_batches()[0]
    records = TopicRecords(_TOPIC, batch.key, batch.value, batch.timestamp_ms.tolist())
    ways: dict[str, Gives] = {"one by one": GivesEach(producer), "a batch": GivesBatch(native)}
    for name, rounds in measured(ways, records, producer.flush).items():
        print(f"{name:>10}: best {min(rounds):.3f}, median {statistics.median(rounds):.3f} µs a record")


if __name__ == "__main__":
    main()
