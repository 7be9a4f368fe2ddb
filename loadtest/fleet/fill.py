"""Traffic into a topic as fast as librdkafka takes it: idempotent, lz4, partitioned as Java clients do."""

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message

from loadtest import clients
from loadtest.fleet.traffic import TrafficBatch
from streams.errors import StreamsError
from streams.kafka.admin import described
from streams.kafka.broker_watch import BrokerWatch
from streams.resilience.prefetch import built_ahead

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
    "delivery.report.only.error": True,
}
"""`message.max.bytes` leaves room for records that are too large on purpose; they compress to a few bytes."""
FLUSH_S_MAX: Final = 60.0
PAUSE_S: Final = 0.002
"""Between looks at the clock, where records wait for their time."""
_FULL_WAIT_S: Final = 0.05
_ANY_PARTITION: Final = -1


class Filler:
    """A producer for seeded traffic that counts what the broker refused."""

    def __init__(
        self,
        bootstrap: str,
        config: Mapping[str, Any] | None = None,
        *,
        stop: threading.Event | None = None,
    ) -> None:
        """Configure; `stop`, once set, ends waiting for room in the producer's queue."""
        self.refused = 0
        """Records that the broker did not take."""
        self._first_refusal = ""
        self._stop = stop or threading.Event()
        self._brokers = BrokerWatch()
        self._producer = clients.producer(
            bootstrap,
            {**PRODUCER_CONFIG, **self._brokers.config(), **(config or {}), "on_delivery": self._delivered},
        )

    @property
    def is_stranded(self) -> bool:
        """Its client will deliver nothing any more (`streams.kafka.broker_watch`)."""
        return self._brokers.is_stranded

    @property
    def undelivered(self) -> int:
        """Records that the broker has not acknowledged yet."""
        return len(self._producer)

    def send(self, topic: str, batch: TrafficBatch) -> int:
        """Queue a batch, waiting while the producer's queue is full; partitions of equal keys keep the log order.

        Returns how many records were queued: fewer than there are only when `stop` was set while it waited.

        Raises:
            StreamsError: a record cannot even be queued (larger than the producer's bound, unknown topic).

        """
        produce: Any = self._producer.produce
        records = zip(batch.keys, batch.values, batch.timestamps_ms, strict=True)
        sent = 0
        while sent < len(batch):
            try:
                # Positional arguments, and no callback of its own for each record: this loop runs for every event.
                for key, value, timestamp_ms in records:
                    produce(topic, value, key, _ANY_PARTITION, None, None, timestamp_ms)
                    sent += 1
            except BufferError:
                if self._stop.is_set():
                    break
                if self.is_stranded:
                    raise StreamsError(
                        f"the Kafka client has lost every broker and does not look for them again; "
                        f"{self.undelivered} records were not delivered: begin anew"
                    ) from None
                self._producer.poll(_FULL_WAIT_S)
                rest = batch.slice(sent, len(batch))
                records = zip(rest.keys, rest.values, rest.timestamps_ms, strict=True)
            except KafkaException as error:
                raise StreamsError(f"{topic}: a record was not taken: {described(error)}") from None
        self._producer.poll(0)
        return sent

    def flush(self, timeout_s: float = FLUSH_S_MAX) -> None:
        """Wait until everything is in the log.

        Raises:
            StreamsError: the broker refused records or did not take them in time.

        """
        left = self._producer.flush(timeout_s)
        if left or self.refused:
            detail = f": {self._first_refusal}" if self.refused else ""
            raise StreamsError(f"{left} records not delivered, {self.refused} refused{detail}")

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self.refused += 1
            self._first_refusal = self._first_refusal or str(error)


def fill_topic(
    bootstrap: str,
    topic: str,
    batches: Iterable[TrafficBatch],
    *,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Send every batch in order and wait for the broker; returns the number of records.

    Raises:
        StreamsError: something was not delivered.

    """
    filler = Filler(bootstrap)
    sent = 0
    for batch in built_ahead(batches):
        sent += filler.send(topic, batch)
        if on_progress is not None:
            on_progress(sent)
    filler.flush()
    return sent


def send_open_loop(bootstrap: str, topic: str, batches: Iterable[TrafficBatch]) -> int:
    """Send each record when the clock reaches its timestamp, whether or not anyone keeps up; returns their number.

    A sender that waited for its consumer would hide exactly the latency that is to be measured.
    """
    filler = Filler(bootstrap)
    sent = 0
    for batch in built_ahead(batches):
        first = 0
        while first < len(batch):
            last = bisect_right(batch.timestamps_ms, int(time.time() * 1000), first)
            sent += filler.send(topic, batch.slice(first, last))
            first = last
            time.sleep(PAUSE_S)
    filler.flush()
    return sent
