"""Traffic into a topic as fast as librdkafka takes it: idempotent, lz4, partitioned as Java clients do."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from confluent_kafka import KafkaError, Message, Producer

from loadtest.fleet.traffic import TrafficBatch
from streams.errors import StreamsError

PRODUCER_CONFIG: Final[Mapping[str, str | int | bool]] = {
    "enable.idempotence": True,
    "compression.type": "lz4",
    "partitioner": "murmur2_random",
    "linger.ms": 20,
    "batch.num.messages": 50_000,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 262_144,
    "message.max.bytes": 4_000_000,
    "topic.metadata.refresh.interval.ms": 10_000,
}
"""`message.max.bytes` leaves room for records that are too large on purpose; they compress to a few bytes."""
FLUSH_S_MAX: Final = 60.0


class Filler:
    """A producer for seeded traffic that counts what the broker refused."""

    def __init__(self, bootstrap: str, config: Mapping[str, str | int | bool] | None = None) -> None:
        self._producer = Producer({**PRODUCER_CONFIG, **(config or {}), "bootstrap.servers": bootstrap})
        self._refused: list[str] = []

    def send(self, topic: str, batch: TrafficBatch) -> None:
        """Queue a batch; blocks while the producer's queue is full. Partitions of equal keys keep the log order."""
        produce = self._producer.produce
        for key, value, timestamp_ms in zip(batch.keys, batch.values, batch.timestamps_ms, strict=True):
            while True:
                try:
                    produce(topic, value, key, timestamp=timestamp_ms, on_delivery=self._delivered)
                    break
                except BufferError:
                    self._producer.poll(0.05)
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until everything is in the log.

        Raises:
            StreamsError: the broker refused records or did not take them in time.

        """
        left = self._producer.flush(FLUSH_S_MAX)
        if left or self._refused:
            detail = f": {self._refused[0]}" if self._refused else ""
            raise StreamsError(f"{left} records not delivered, {len(self._refused)} refused{detail}")

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._refused.append(str(error))


def fill_topic(
    bootstrap: str,
    topic: str,
    batches: Iterable[TrafficBatch],
    *,
    on_progress: Callable[[int], None] | None = None,
    config: Mapping[str, str | int | bool] | None = None,
) -> int:
    """Send every batch in order and wait for the broker; returns the number of records.

    Raises:
        StreamsError: something was not delivered.

    """
    filler = Filler(bootstrap, config)
    sent = 0
    for batch in batches:
        filler.send(topic, batch)
        sent += len(batch)
        if on_progress is not None:
            on_progress(sent)
    filler.flush()
    return sent


def send_open_loop(
    bootstrap: str, topic: str, batches: Iterable[TrafficBatch], *, config: Mapping[str, str | int | bool] | None = None
) -> int:
    """Send each record when the clock reaches its timestamp, whether or not anyone keeps up; returns their number.

    A sender that waited for its consumer would hide exactly the latency that is to be measured.
    """
    filler = Filler(bootstrap, {"linger.ms": 20, **(config or {})})
    sent = 0
    for batch in batches:
        first = 0
        while first < len(batch):
            now_ms = int(time.time() * 1000)
            last = first
            while last < len(batch) and batch.timestamps_ms[last] <= now_ms:
                last += 1
            filler.send(topic, batch.slice(first, last))
            first = last
            time.sleep(0.002)
        sent += len(batch)
    filler.flush()
    return sent
