"""One point of a flow in Kafka that everything is compared at.

First the group's positions are read: what is before them must be in the outputs. Then the ends of the outputs are
fixed, and no transaction is open below them. Then the positions are read again: nothing in the outputs is of a record
after them. Between the two positions records were processed meanwhile, and may be in the outputs or not.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.engine.log import LogRow
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka.admin import described, partition_counts
from streams.kafka.changelog import KafkaChangelog
from streams.reconcile.model.history import Cycle
from streams.resilience.retry import Retrier, quietly
from streams.settings import Settings
from streams.sinks.base import Committed
from streams.state import journal
from streams.state.identity import EPOCH, Identity, IdentityUnreadable

_TIMEOUT_S: Final = 30.0
_OPEN_S_MAX: Final = 60.0
"""A transaction that is open for longer is a case for a person."""
_JOURNAL_TAIL: Final = 200
"""Records of the journal that are looked through for the identity of the state."""

Tp = tuple[str, int]
"""A topic and a partition of it."""


@dataclass(frozen=True, slots=True)
class Point:
    """The point at which everything is compared: an offset of each partition."""

    at_ms: int
    partitions: int
    """Number of partitions of the source."""
    counts: Mapping[str, int]
    """Number of partitions by topic."""
    low: Mapping[Tp, int]
    """First offset that still exists in each partition."""
    end: Mapping[Tp, int]
    """Offset after the last record that is read, of outputs."""
    reached: Mapping[int, Committed | None]
    """What the group had processed at least, by partition."""
    settled: Mapping[int, Committed | None]
    """What the group had processed at most."""

    def start(self, topic: str, partition: int) -> int:
        """First offset of a partition."""
        return self.low[topic, partition]

    def is_truncated(self, topic: str, partitions: Sequence[int]) -> bool:
        """Whether records at the beginning of one of these partitions are gone."""
        return any(self.low[topic, one] > 0 for one in partitions)


class FlowPosition:
    """Finds a flow's point, and reads its journal. Close it when done."""

    def __init__(self, settings: Settings, client: AdminClient, pipeline: Pipeline) -> None:
        self._client, self._pipeline = client, pipeline
        self._changelog = KafkaChangelog(
            settings, group=pipeline.group, source=pipeline.source, retrier=Retrier(say=quietly)
        )

    def close(self) -> None:
        """Close the connections."""
        self._changelog.close()

    def fix(self, outputs: Sequence[str], say: Callable[[str], None]) -> Point:
        """The point of `outputs`, the source, and the journal.

        Raises:
            StreamsError: a topic is missing, a transaction stays open, or Kafka does not answer.

        """
        pipeline = self._pipeline
        topics = list(dict.fromkeys([*outputs, pipeline.dlq, pipeline.journal]))
        counts = partition_counts(self._client)
        missing = [topic for topic in (pipeline.source, *topics) if topic not in counts]
        if missing:
            raise StreamsError(f"no topic {', '.join(missing)}: create what is missing with `streams topics apply`")
        partitions = counts[pipeline.source]
        lanes = range(partitions)
        reached = self._changelog.committed(lanes)
        wanted = [(topic, number) for topic in topics for number in range(counts[topic])]
        end = self._offsets(wanted, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)
        self._wait_until_stable(end, say)
        settled = self._changelog.committed(lanes)
        source = [(pipeline.source, number) for number in lanes]
        low = self._offsets([*wanted, *source], OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED)
        at_ms = time.time_ns() // 1_000_000
        used = {topic: counts[topic] for topic in (pipeline.source, *topics)}
        return Point(at_ms, partitions, used, low, end, reached, settled)

    def _wait_until_stable(self, end: Mapping[Tp, int], say: Callable[[str], None]) -> None:
        """Return once no transaction is open below `end`."""
        since, told = time.monotonic(), False
        while True:
            stable = self._offsets(list(end), OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)
            held = [f"{topic}-{number}" for (topic, number), at in end.items() if stable[topic, number] < at]
            if not held:
                return
            if time.monotonic() - since > _OPEN_S_MAX:
                raise StreamsError(
                    f"a transaction has been open for {_OPEN_S_MAX:g} s on {', '.join(held[:5])}: what it writes "
                    "cannot be compared. The runbook open-transaction says how to end it"
                )
            if not told and time.monotonic() - since > 2:
                told = True
                say(f"waiting for open transactions on {', '.join(held[:5])}")
            time.sleep(0.1)

    def _offsets(self, wanted: Sequence[Tp], spec: OffsetSpec, level: IsolationLevel) -> dict[Tp, int]:
        places = {TopicPartition(topic, number): spec for topic, number in wanted}
        try:
            found = self._client.list_offsets(places, isolation_level=level, request_timeout=_TIMEOUT_S)
            return {(at.topic, at.partition): int(each.result(_TIMEOUT_S).offset) for at, each in found.items()}
        except KafkaException as error:
            raise StreamsError(f"asking for the offsets of {wanted[0][0]}: {described(error)}") from None
        except TimeoutError:
            raise StreamsError(f"asking for offsets: no answer within {_TIMEOUT_S:g} s") from None

    def offsets_at(self, topic: str, partitions: Sequence[int], time_ms: int) -> dict[int, int | None]:
        """The first offset with a timestamp from `time_ms` on, by partition; None: there is no such record."""
        found = self._offsets(
            [(topic, number) for number in partitions],
            OffsetSpec.for_timestamp(time_ms),
            IsolationLevel.READ_UNCOMMITTED,
        )
        return {number: at if at >= 0 else None for (_, number), at in found.items()}

    def identities(self, point: Point) -> dict[int, Identity]:
        """What is recorded with the newest state of each partition that has any.

        Raises:
            StreamsError: the flow has been grown.

        """
        numbers = range(point.counts[self._pipeline.journal])
        found = {number: each for number in numbers if (each := self._newest_identity(point, number)) is not None}
        for identity in found.values():
            if identity.epoch != EPOCH:
                raise StreamsError(
                    f"{self._pipeline.source} was given more partitions (layout {identity.epoch}): events of a key "
                    "are in two partitions, and the model judges partitions one by one. A grown flow cannot be "
                    "reconciled yet"
                )
        return found

    def _newest_identity(self, point: Point, partition: int) -> Identity | None:
        found = None
        topic = self._pipeline.journal
        start = max(point.low[topic, partition], point.end[topic, partition] - _JOURNAL_TAIL)
        for row in self._journal(point, partition, start):
            entry = _entry(row)
            if entry is not None and entry.identity:
                found = entry.identity
        try:
            return None if found is None else Identity.unpack(found)
        except IdentityUnreadable as error:
            raise StreamsError(f"{topic}-{partition}: {error}: it was written by another version") from None

    def cycles(self, point: Point, partition: int) -> list[Cycle]:
        """Where commit cycles ended, as far back as the journal goes."""
        found: list[Cycle] = []
        for row in self._journal(point, partition, point.low[self._pipeline.journal, partition]):
            entry = _entry(row)
            if entry is None:
                continue
            for position in entry.positions.values():  # of one input: a flow with several is not compared
                if position.offset_next >= 0:
                    found.append(Cycle(entry.cycle, position.offset_next, position.watermark))  # noqa: PERF401 - clearer
        return found

    def _journal(self, point: Point, partition: int, start: int) -> Iterator[LogRow]:
        topic = self._pipeline.journal
        for rows in self._changelog.read(topic, partition, start, point.end[topic, partition]):
            yield from rows


def _entry(row: LogRow) -> journal.JournalEntry | None:
    try:
        return None if row.value is None else journal.unpack(row.value)
    except journal.JournalCorrupted:
        return None
