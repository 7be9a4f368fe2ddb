"""When records become visible: a read_committed consumer of an output, timed against when each was to be sent.

Outputs keep the timestamp of a record of the last hour, and an open-loop sender gives each record the time at which it
is to be sent. A stall of anyone on the way, the sender included, therefore shows as latency of every record it delays:
nothing is left out because someone was waiting (coordinated omission: G. Tene, How NOT to Measure Latency, 2013).
"""

import threading
import time
from typing import Final, Self

import numpy as np
from confluent_kafka import OFFSET_END, Consumer, Message, TopicPartition
from hdrh.histogram import HdrHistogram

from streams.kafka.admin import librdkafka_log
from streams.settings import Settings

LATENCY_MS_MAX: Final = 3_600_000
DIGITS: Final = 3
PERCENTILES: Final = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}
_BATCH_RECORDS: Final = 10_000
_POLL_S: Final = 0.01


class VisibleLatency:
    """Reads a topic from its end until it is left, in a thread of its own."""

    def __init__(self, settings: Settings, topic: str, partitions: int) -> None:
        self._histogram = HdrHistogram(1, LATENCY_MS_MAX, DIGITS)
        self._since_ms: float = float("inf")
        self._stopped = threading.Event()
        self._where = [TopicPartition(topic, partition, OFFSET_END) for partition in range(partitions)]
        self._consumer = Consumer(
            {
                **settings.kafka_client_config(),
                "group.id": "loadtest.visible",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
            },
            logger=librdkafka_log,
        )
        self._thread = threading.Thread(target=self._run, name="visible", daemon=True)

    def __enter__(self) -> Self:
        self._consumer.assign(self._where)
        self._consumer.consume(1, 2.0)  # the ends are looked up before anything is sent
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._consumer.close()

    def count(self, since_ms: float) -> None:
        """Count records that are to be sent from this time on; all others are read and not counted."""
        self._since_ms = since_ms

    @property
    def events(self) -> int:
        """Records counted so far."""
        return int(self._histogram.get_total_count())

    def percentiles_ms(self) -> dict[str, float]:
        """Milliseconds, as the report names them; empty when nothing was counted."""
        if not self.events:
            return {}
        found = {name: float(self._histogram.get_value_at_percentile(share)) for name, share in PERCENTILES.items()}
        return {**found, "max": float(self._histogram.get_max_value())}

    def curve(self) -> list[tuple[float, float]]:
        """The distribution for a chart: (percentile, milliseconds)."""
        shares = [
            *range(0, 90, 2),
            *(90 + tenth / 2 for tenth in range(18)),
            *(99 + each / 20 for each in range(20)),
            99.99,
            100,
        ]
        return (
            [(share, float(self._histogram.get_value_at_percentile(share))) for share in shares] if self.events else []
        )

    def _run(self) -> None:
        while not self._stopped.is_set():
            messages = self._consumer.consume(_BATCH_RECORDS, _POLL_S)
            if messages:
                self._note(messages, time.time() * 1000)

    def _note(self, messages: list[Message], now_ms: float) -> None:
        sent_ms = np.array(
            [message.timestamp()[1] for message in messages if message.error() is None], dtype=np.float64
        )
        sent_ms = sent_ms[sent_ms >= self._since_ms]
        took_ms = np.clip(now_ms - sent_ms, 1, LATENCY_MS_MAX).astype(np.int64)
        for value, count in zip(*(each.tolist() for each in np.unique(took_ms, return_counts=True)), strict=True):
            self._histogram.record_value(value, count)
