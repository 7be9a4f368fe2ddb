"""When records become visible: a read_committed consumer of the outputs, timed against when each was to be sent.

Outputs keep the timestamp of a record of the last hour, and an open-loop sender gives each record the time at which it
is to be sent. A stall of anyone on the way, the sender included, therefore shows as latency of every record it delays:
nothing is left out because someone was waiting (coordinated omission: G. Tene, How NOT to Measure Latency, 2013), and
nothing because the run was over: the generator goes on until every measured record is out, or says how many are not.
"""

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

import numpy as np
from confluent_kafka import OFFSET_END, Message, TopicPartition
from hdrh.histogram import HdrHistogram

from loadtest import clients
from loadtest.histograms import new_histogram, record
from streams.flow.declaration import Pipeline
from streams.settings import Settings

_BATCH_RECORDS: Final = 10_000
_POLL_S: Final = 0.01


class Group(StrEnum):
    """Records whose latencies are of different kinds, and are kept apart."""

    USUAL = "usual"
    """In the clean topic, of devices whose clocks are right."""
    SKEWED = "skewed"
    """In the clean topic, of devices with wrong clocks: one that is ahead makes its own events wait for its time."""
    LATE = "late"
    """The event was written to the late topic."""


@dataclass(frozen=True, slots=True)
class Skewed:
    """Which devices of some generators have wrong clocks: by the number in their keys, after the prefix."""

    prefix: bytes
    devices: int
    """Devices (or places of orders) of all generators together: orders of one place are that many numbers apart."""
    numbers: Collection[int]

    def has(self, key: bytes | None) -> bool:
        """Whether the key is of one of them."""
        if not self.numbers or key is None or not key.startswith(self.prefix):
            return False
        number = key[len(self.prefix) :]
        return number.isdigit() and int(number) % self.devices in self.numbers


@dataclass(slots=True)
class Measured:
    """Records that were to be sent in one stretch of time."""

    from_ms: float
    until_ms: float
    histograms: dict[Group, HdrHistogram] = field(default_factory=lambda: {group: new_histogram() for group in Group})

    @property
    def counted(self) -> int:
        """Records that have become visible so far."""
        return sum(int(histogram.get_total_count()) for histogram in self.histograms.values())

    def note(self, group: Group, sent_ms: Any, now_ms: float) -> None:
        """Count those of some visible records that belong here."""
        ours = sent_ms[(sent_ms >= self.from_ms) & (sent_ms < self.until_ms)]
        if ours.size:
            record(self.histograms[group], now_ms - ours)


class VisibleLatency:
    """Reads clean and late topic from their ends until it is left, in a thread of its own."""

    def __init__(self, settings: Settings, pipeline: Pipeline, partitions: int) -> None:
        self._late = pipeline.late
        self._measured: list[Measured] = []
        self._skewed: list[Skewed] = []
        self._stopped = threading.Event()
        self._where = [
            TopicPartition(topic, partition, OFFSET_END)
            for topic in (pipeline.clean, pipeline.late)
            for partition in range(partitions)
        ]
        self._consumer = clients.consumer(
            settings,
            {
                "group.id": "loadtest.visible",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
            },
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

    def measure(self, from_ms: float, until_ms: float) -> Measured:
        """Count records that are to be sent in this stretch of time; others are read and not counted."""
        found = Measured(from_ms, until_ms)
        self._measured = [*self._measured, found]
        return found

    def keep_apart(self, skewed: Skewed) -> None:
        """Count records of these devices apart. To be called before the first of them is visible."""
        self._skewed = [*self._skewed, skewed]

    def _run(self) -> None:
        while not self._stopped.is_set():
            messages = self._consumer.consume(_BATCH_RECORDS, _POLL_S)
            if messages:
                self._note(messages, time.time() * 1000)

    def _note(self, messages: Sequence[Message], now_ms: float) -> None:
        measured, skewed = self._measured, self._skewed
        for group, sent_ms in grouped(messages, self._late, skewed).items():
            times = np.array(sent_ms, dtype=np.float64)
            for each in measured:
                each.note(group, times, now_ms)


def grouped(messages: Sequence[Message], late: str, skewed: Sequence[Skewed]) -> Mapping[Group, list[int]]:
    """Timestamps of some records by what their latency is of."""
    found: dict[Group, list[int]] = {group: [] for group in Group}
    apart = [each for each in skewed if each.numbers]
    for message in messages:
        if message.error() is not None:
            continue
        if message.topic() == late:
            group = Group.LATE
        elif apart and any(each.has(message.key()) for each in apart):
            group = Group.SKEWED
        else:
            group = Group.USUAL
        found[group].append(message.timestamp()[1])
    return found
