"""Reads the newest records of every source: when they arrived, when they happened, and their device class.

Reading is bounded: of each partition the newest records since the last look, at most `RECORDS_MAX` in all. A device
class with few events may be missed by a look: allow it a longer silence.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import structlog
from confluent_kafka import Message

from streams.avro.decoded import Known
from streams.avro.framing import SchemaKey
from streams.avro.resolve import Plan
from streams.batch.clock import Clock
from streams.batch.records import Records
from streams.batch.rejects import Reject
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline, fed_from_outside
from streams.flow.decoding import decoder_of
from streams.kafka.log_reader import LogReader, Read, Span
from streams.kafka.round import Round
from streams.monitor.freshness import FreshnessTracker, Source
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry, RegistryUnavailable
from streams.schemas.plans import plan_or_reject
from streams.settings import Settings

log = structlog.get_logger(__name__)

RECORDS_MAX: Final = 6_000
PER_PARTITION_MAX: Final = 500
ASK_AGAIN_S: Final = 15.0
"""Pause before a registry that did not answer is asked again."""


def sources_of(flows: Sequence[Pipeline], settings: Settings) -> list[Source]:
    """The sources of `flows`: each topic, and each device class that is declared.

    None of a flow that reads what another one writes: that is as fresh as the other one's source.
    """
    found = []
    for flow in fed_from_outside(flows):
        override_s = settings.streams_silent_s
        found.append(Source(flow.source, None, override_s or flow.silent_after_s))
        found += [Source(flow.source, one.name, override_s or one.silent_after_s) for one in flow.device_classes]
    return found


class SourceWatch:
    """Feeds a `FreshnessTracker`. One thread."""

    def __init__(self, settings: Settings, flows: Sequence[Pipeline], log_reader: LogReader) -> None:
        now_ms = time.time_ns() // 1_000_000
        flows = fed_from_outside(flows)
        self.tracker = FreshnessTracker(sources_of(flows, settings), now_ms)
        self._flows = {flow.source: flow for flow in flows}
        self._log_reader = log_reader
        self._by_name = {source.name: source for source in self.tracker.sources}
        self._read_to: dict[tuple[str, int], int] = {}
        self._looked_ms = 0
        self._times = {flow.source: _EventTimes(settings, flow) for flow in flows}

    def look(self, found: Round) -> None:
        """Read what is new since the last look, for logs whose ends the round knows.

        Raises:
            StreamsError: the records cannot be read.

        """
        counts = {name: count for name, count in found.topics if name in self._flows}
        total = sum(counts.values())
        if not total:
            return
        for topic, count in counts.items():
            if (found.end[found.base[topic] : found.base[topic] + count] > 0).any():
                self.tracker.feed(topic)
        per_partition = max(1, min(PER_PARTITION_MAX, RECORDS_MAX // total))
        spans = []
        for topic, count in counts.items():
            for partition in range(count):
                end = int(found.end[found.base[topic] + partition])
                low = int(found.low[found.base[topic] + partition])
                known = self._read_to.get((topic, partition), 0)
                if end < 0 or known == end:
                    self._read_to.setdefault((topic, partition), 0)
                    continue
                if known > end:  # the topic was recreated
                    known = 0
                spans.append(Span(topic, partition, max(low, known, end - per_partition), end, per_partition))
        for span, read in self._log_reader.read(spans).items() if spans else ():
            self._take(span, read, found.time_ms)
        self._looked_ms = found.time_ms

    def _take(self, span: Span, read: Read, now_ms: int) -> None:
        key = (span.topic, span.partition)
        # Records that were not there at the last look arrived since then, whatever the producer's clock says.
        since_ms = self._looked_ms if key in self._read_to else None
        if read.complete or len(read.records) == span.records_max:
            self._read_to[key] = span.end
        elif read.records:
            self._read_to[key] = int(read.records[-1].offset() or 0) + 1
        if not read.records:
            return
        source = self._by_name[span.topic]
        self._observe(source, read.records, since_ms, now_ms)
        for device_class in self._flows[span.topic].device_classes:
            prefix = device_class.key_prefix.encode()
            mine = [record for record in read.records if _key(record).startswith(prefix)]
            if mine:
                self._observe(self._by_name[f"{span.topic}/{device_class.name}"], mine, since_ms, now_ms)

    def _observe(self, source: Source, records: list[Message], since_ms: int | None, now_ms: int) -> None:
        event_times = self._times[source.topic].of(records, now_ms)
        stamp_ms = max(record.timestamp()[1] for record in records)
        self.tracker.observe(
            source,
            arrival_ms=min(stamp_ms if since_ms is None else max(stamp_ms, since_ms), now_ms),
            event_time_ms=max(event_times, default=None),
        )


def _key(record: Message) -> bytes:
    key: Any = record.key()
    return key if isinstance(key, bytes) else b""


class _EventTimes:
    """Reads event times from records with the decoder that workers use: invalid records do not count."""

    def __init__(self, settings: Settings, flow: Pipeline) -> None:
        self._decoder = decoder_of(flow, settings)
        self._reader = Catalog.load().latest(flow.subject).text
        self._registry = Registry(settings)
        self._known: dict[SchemaKey, Plan | Reject] = {}
        self._silent_until_s = 0.0

    def of(self, records: list[Message], now_ms: int) -> list[int]:
        """Event times in milliseconds of those records that are valid and whose schema is known."""
        clock = Clock(now_ms, self._decoder.skew_ms_max)
        batch = Records(
            np.array([record.partition() for record in records], dtype=np.int64),
            np.array([record.offset() for record in records], dtype=np.int64),
            np.array([record.timestamp()[1] for record in records], dtype=np.int64),
            [_key(record) for record in records],
            [_value(record) for record in records],
            None,
        )
        known: Known = self._known
        decoded = self._decoder.decode(batch, known, clock=clock)
        missing = [key for key in decoded.unresolved if self._learn(key)]
        if missing:
            decoded = self._decoder.decode(batch, known, clock=clock)
        found: list[int] = decoded.events.event_time.tolist()
        return found

    def _learn(self, key: SchemaKey) -> bool:
        if time.monotonic() < self._silent_until_s:
            return False
        try:
            self._known[key] = plan_or_reject(self._registry, key, self._reader)
        except RegistryUnavailable as error:
            log.warning("the registry does not answer: event times are not known", error=str(error))
            self._silent_until_s = time.monotonic() + ASK_AGAIN_S
            return False
        except StreamsError:
            return False
        return True


def _value(record: Message) -> bytes | None:
    value: Mapping[str, Any] | bytes | str | None = record.value()
    return value if isinstance(value, bytes) else None
