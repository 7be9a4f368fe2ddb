"""Compares a target with its topic: where the target stands first, then the records before that, then its rows."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient

from streams.batch.records import Records
from streams.errors import StreamsError
from streams.kafka.admin import topic_id
from streams.kafka.changelog import KafkaChangelog
from streams.kafka.headers import headers_of, read_headers
from streams.reconcile.differences import Findings
from streams.reconcile.reading import Pace, PartitionReader
from streams.resilience.retry import Retrier, quietly
from streams.schemas.client import Registry
from streams.schemas.plans import plan_or_reject
from streams.settings import Settings
from streams.sink.batches import Place
from streams.sink.declared import DeclaredSink
from streams.sink.decoding import RowDecoder
from streams.sink.reconcile.compare import ROWS, Demanded, Reach, Shape, compare
from streams.sink.reconcile.demand import TopicRows
from streams.sink.reconcile.held import Held

ROW_BYTES: Final = 2_000
"""Memory for a row that is compared."""
_OWN_MB: Final = 200
_TOPIC: Final = "__streams.errors.topic"
_PARTITION: Final = "__streams.errors.partition"
_OFFSET: Final = "__streams.errors.offset"

Say = Callable[[str], None]


@dataclass(slots=True)
class SinkResult:
    """What a run has found, and at which point."""

    sink: DeclaredSink
    at_ms: int
    reach: Reach
    findings: Findings = field(default_factory=Findings)
    records: int = 0
    rows: int = 0
    took_s: float = 0.0


class SinkReconciliation:
    """Of one sink. Close it when done."""

    def __init__(self, settings: Settings, client: AdminClient, sink: DeclaredSink, *, share: float, say: Say) -> None:
        """`share`: of the time in which it works."""
        self._sink, self._say = sink, say
        self.topic_id = topic_id(client, sink.spec.topic)
        self._reader = PartitionReader(settings, sink.group, Pace(share))
        self._changelog = KafkaChangelog(
            settings, group=sink.group, source=sink.spec.topic, retrier=Retrier(say=quietly)
        )
        resolve = partial(plan_or_reject, Registry(settings), reader=sink.schema)
        self._decoder = RowDecoder(sink.columns, resolve, has_tombstones=sink.has_tombstones)
        self._shape = Shape(sink.spec.topic, tuple(column.name for column in sink.columns), sink.key)

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()
        self._changelog.close()

    def run(self, held: Held, counts: Mapping[str, int], *, memory_mb: int) -> SinkResult:
        """Compare everything; `counts`: numbers of partitions by topic.

        Raises:
            StreamsError: the target or Kafka does not answer, or a topic is missing.

        """
        began_s, topic, letters = time.monotonic(), self._sink.spec.topic, self._sink.dead_letters
        missing = [name for name in (topic, letters) if name not in counts]
        if missing:
            raise StreamsError(f"no topic {', '.join(missing)}: create what is missing with `streams topics apply`")
        self._say("asking the target how far it has read")
        partitions = range(counts[topic])
        read = held.positions(partitions)
        at_ms = time.time_ns() // 1_000_000
        low, end = self._bounds(topic, counts[topic])
        if beyond := [one for one in partitions if read[one] > end[one]]:
            raise StreamsError(
                f"the target has records of {topic} that the topic has lost (partitions "
                f"{', '.join(map(str, beyond))}): runbook sink-stalled"
            )
        letters_low, letters_end = self._bounds(letters, counts[letters])
        reach = Reach(low, read, self._letters(letters_low, letters_end), has_all_letters=not any(letters_low.values()))
        result = SinkResult(self._sink, at_ms, reach)
        room = max(1, int((memory_mb - _OWN_MB) * 1e6 / ROW_BYTES))
        slices = max(1, math.ceil(sum(max(0, read[one] - low[one]) for one in partitions) / room))
        rows = TopicRows(self._decoder, held)
        for number in range(slices):
            demanded = Demanded(self._shape, number, slices)
            for one in partitions:
                self._demand(rows, demanded, one, reach, end[one])
            self._say("reading the target")
            compare(demanded, held.rows(), reach, result.findings)
            result.records = demanded.records
        result.rows = result.findings.checked[ROWS]
        result.took_s = time.monotonic() - began_s
        return result

    def _bounds(self, topic: str, count: int) -> tuple[dict[int, int], dict[int, int]]:
        found = {number: self._changelog.bounds(topic, number, stable=True) for number in range(count)}
        return {number: low for number, (low, _) in found.items()}, {number: end for number, (_, end) in found.items()}

    def _letters(self, low: Mapping[int, int], end: Mapping[int, int]) -> frozenset[Place]:
        """Records of the topic with a dead letter."""
        found: set[Place] = set()
        topic = self._sink.spec.topic.encode()
        for number in low:
            for batch in self._reader.batches(self._sink.dead_letters, number, low[number], end[number]):
                for message in batch:
                    its = dict(headers_of(message))
                    place = _number(its.get(_PARTITION)), _number(its.get(_OFFSET))
                    if its.get(_TOPIC) == topic and min(place) >= 0:
                        found.add(place)
        return frozenset(found)

    def _demand(self, rows: TopicRows, demanded: Demanded, partition: int, reach: Reach, end: int) -> None:
        topic = self._sink.spec.topic
        for batch in self._reader.batches(topic, partition, reach.low[partition], end):
            if batch:
                rows.take(demanded, _records(batch, partition), reach)
                self._say(f"{topic}-{partition}: {demanded.records:,} records")


def reconcile_sink(
    settings: Settings,
    client: AdminClient,
    sink: DeclaredSink,
    open_held: Callable[[str], Held],
    counts: Mapping[str, int],
    *,
    share: float,
    memory_mb: int,
    say: Say,
) -> SinkResult:
    """Compare a target with its topic; `open_held` opens the target, by the id of the topic.

    Raises:
        StreamsError: as `SinkReconciliation.run`.

    """
    with (
        closing(SinkReconciliation(settings, client, sink, share=share, say=say)) as run,
        closing(open_held(run.topic_id)) as held,
    ):
        return run.run(held, counts, memory_mb=memory_mb)


def _records(batch: list[Message], partition: int) -> Records:
    headers, lost = read_headers(batch)
    return Records(
        partition=np.full(len(batch), partition, dtype=np.int64),
        offset=np.array([message.offset() or 0 for message in batch], dtype=np.int64),
        timestamp_ms=np.array([message.timestamp()[1] for message in batch], dtype=np.int64),
        key=[message.key() for message in batch],
        value=[message.value() for message in batch],
        headers=headers,
        headers_lost=lost,
    )


def _number(text: bytes | None) -> int:
    """A header's number; -1 for one that is missing or none."""
    try:
        return int(text or b"")
    except ValueError:
        return -1
