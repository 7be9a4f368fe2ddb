"""When records of a topic that grows become visible: each against the time at which it was to be sent.

Unlike `loadtest.visible` it reads partitions that come meanwhile, from their beginning, and keeps every latency.
"""

import threading
import time
from typing import Final, Self

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, TopicPartition

from loadtest import clients
from streams.batch.columns import Float64
from streams.settings import Settings

_BATCH_RECORDS: Final = 10_000
_POLL_S: Final = 0.01
_LOOK_S: Final = 0.25


class VisibleEvents:
    """Reads a topic from its end until it is left, in a thread of its own."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._topic = topic
        self._known = 0
        self._looked_s = 0.0
        self._due: list[Float64] = []
        self._seen: list[Float64] = []
        self._stopped = threading.Event()
        self._consumer = clients.consumer(
            settings,
            {
                "group.id": "loadtest.visible", "enable.auto.commit": False, "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
            },
        )  # fmt: skip
        self._thread = threading.Thread(target=self._run, name="visible", daemon=True)

    def __enter__(self) -> Self:
        self._look(OFFSET_END)
        self._consumer.consume(1, 2.0)  # the ends are looked up before anything is sent
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._consumer.close()

    def latencies_ms(self, from_ms: float, until_ms: float) -> tuple[Float64, Float64]:
        """Return when the records of this stretch were to be sent, and how much later each became visible."""
        due, seen = (np.concatenate([np.empty(0), *parts]) for parts in (list(self._due), list(self._seen)))
        rows = (due >= from_ms) & (due < until_ms)
        return due[rows], seen[rows] - due[rows]

    def _run(self) -> None:
        while not self._stopped.is_set():
            if time.monotonic() - self._looked_s > _LOOK_S:
                self._look(OFFSET_BEGINNING)
            messages = self._consumer.consume(_BATCH_RECORDS, _POLL_S)
            due = [message.timestamp()[1] for message in messages if message.error() is None]
            if due:
                self._due.append(np.array(due, dtype=np.float64))
                self._seen.append(np.full(len(due), time.time() * 1000))

    def _look(self, offset: int) -> None:
        """Read partitions that have come from `offset` on."""
        self._looked_s = time.monotonic()
        count = len(self._consumer.list_topics(self._topic, timeout=10).topics[self._topic].partitions)
        new = [TopicPartition(self._topic, partition, offset) for partition in range(self._known, count)]
        if new:
            self._consumer.incremental_assign(new)
            self._known = count
