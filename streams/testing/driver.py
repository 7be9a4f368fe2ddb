"""Runs a flow in memory, on the engine, committer and restore that workers run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np

from streams.avro.framing import SchemaKey
from streams.avro.resolve import IncompatibleSchema, Plan, build_plan
from streams.batch.columns import Headers
from streams.batch.lanes import input_of, lane_of, partition_of_lane
from streams.batch.records import Records
from streams.batch.rejects import Reason, Reject
from streams.deadletters.letter.envelope import REASON
from streams.engine.commit import Committer
from streams.engine.encode import RowEncoder
from streams.engine.engine import Engine, MicroBatch
from streams.engine.restore import restore_partition
from streams.flow.builder import Flow
from streams.flow.declaration import Pipeline
from streams.flow.decoding import decoders_of
from streams.flow.durations import Duration, milliseconds
from streams.kafka.memory import Entry, MemoryChangelog, MemoryKafka
from streams.kafka.partitioner import partition_of
from streams.limits import BATCH_RECORDS_MAX
from streams.schemas.catalog import Catalog
from streams.settings import Settings
from streams.sinks.memory import MemoryTransactions
from streams.sources.base import Idle
from streams.state.memory import MemoryStore
from streams.testing.schemas import RegisteredSchemas
from streams.worker.configuration import config_of
from streams.worker.schemas import reader_schemas, require_row_schemas

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
_WORKER: Final = "driver"
_IDS_IN_MEMORY_MAX: Final = 1_000_000
_MESSAGE: Final = "__streams.errors.message"


class Crash(StrEnum):
    """Places in a commit cycle at which a worker can be killed, in their order."""

    BEGUN = "begun"
    PRODUCED = "produced"
    JOURNALLED = "journalled"
    OFFSETS_SENT = "offsets_sent"
    COMMITTED = "committed"
    APPLIED = "applied"


class _Killed(BaseException):
    """The worker is killed here."""


@dataclass(frozen=True, slots=True)
class Record:
    """A committed record of a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes | None]
    timestamp_ms: int
    fields: Mapping[str, Any]
    """The value decoded by the schema that it names; empty where it names none of the flow's."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was rejected: why, in a word and in words, and the record as it came."""

    reason: str
    message: str
    record: Record


class FlowDriver:
    """A flow, its source topic and its state, all in memory; what is fed is processed and committed at once.

    The stages of a flow (`key_by`) run one after the other: what one commits is fed to the next.

    Time stands still until `advance`; it is never before the newest record. The environment is not asked: the bounds
    are those that the flow declares.
    """

    def __init__(
        self,
        flow: Flow,
        *,
        partitions: int = 1,
        schemas: Path | None = None,
        start: datetime = START,
        registered: RegisteredSchemas | None = None,
    ) -> None:
        """Start an empty source topic of `partitions`, read by one worker; `schemas`: default those of the app.

        `registered`: ids of schemas, of a flow that is a stage of another one.

        Raises:
            UsageError: there is no schema for the source or an output.
            StreamsError: the flow does not fit its schemas; the message names the field.

        """
        self.flow = flow
        self._pipeline: Pipeline = flow.pipeline
        self._catalog = Catalog.load(schemas)
        pipelines = [*(stage.pipeline for stage in flow.stages), self._pipeline]
        self._registered = registered or RegisteredSchemas(self._catalog, pipelines)
        read = {one.topic for one in self._pipeline.inputs}
        self._stages = [
            FlowDriver(stage, partitions=partitions, schemas=schemas, start=start, registered=self._registered)
            for stage in flow.stages
            if read.intersection(stage.pipeline.event_outputs)
        ]
        """Those whose internal topics this one reads."""
        self._taken: dict[tuple[str, int], int] = {}
        """How many records of each internal topic and partition were read from the stage before."""
        self._settings = Settings.model_validate(
            {"kafka_bootstrap_servers": "none:0", **self._pipeline.bounds.by_setting()}
        )
        self._readers = reader_schemas(self._catalog, self._pipeline)
        require_row_schemas(self._catalog, self._pipeline)
        self._kafka = MemoryKafka(partitions)
        self._disk: dict[int, dict[bytes, bytes]] = {partition: {} for partition in range(partitions)}
        self._now_ms = _ms(start)
        self._idle_since_ms = self._now_ms
        self._armed: Crash | None = None
        self._sessions = 0
        for partition in range(partitions):
            self._kafka.give(partition, _WORKER)
        self._start()

    # --- what comes in ----------------------------------------------------------------------------------------------

    def feed(
        self,
        *events: Mapping[str, Any],
        version: int | None = None,
        timestamp_ms: int | None = None,
        headers: Mapping[str, bytes] | None = None,
        of: str = "",
    ) -> None:
        """Append events to a source topic, in this order, and process them.

        Each is encoded with version `version` of the source's schema (default: the newest); times may be datetimes. The
        key is the source's key field, the partition that of the key, the timestamp the event time. `of` names the
        source, as `merge` does, of a flow that has several.

        Raises:
            ValueError: an event is none by the schema; or the flow has no such source.

        """
        number = self._number(of)
        if (stage := self._stage_of(self._pipeline.inputs[number].topic)) is not None:
            stage.feed(*events, version=version, timestamp_ms=timestamp_ms, headers=headers)
            self._take_over()
            return
        one, schema = self._pipeline.inputs[number], self._registered.source(self._pipeline.inputs[number], version)
        for event in events:
            key = str(event.get(one.key_field, "")).encode()
            time_ms = _ms(event.get(one.time_field, self._now_ms)) if timestamp_ms is None else timestamp_ms
            self._append(number, key, schema.encode(event), time_ms, None, headers)
        self._run()

    def feed_raw(
        self,
        value: bytes | None,
        *,
        key: bytes | None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Mapping[str, bytes] | None = None,
        of: str = "",
    ) -> None:
        """Append a record as it is, such as one that is no Avro, and process it; `of` as with `feed`."""
        number = self._number(of)
        if (stage := self._stage_of(self._pipeline.inputs[number].topic)) is not None:
            stage.feed_raw(value, key=key, partition=partition, timestamp_ms=timestamp_ms, headers=headers)
            self._take_over()
            return
        self._append(number, key, value, self._now_ms if timestamp_ms is None else timestamp_ms, partition, headers)
        self._run()

    def advance(self, by: Duration) -> None:
        """Let time pass without records.

        A partition that has been idle for the flow's `idle` moves on by the time beyond that: held events come out,
        windows close.
        """
        for stage in self._stages:
            stage.advance(by)
        self._take_over()  # what they release comes at once; the time passes after it
        self._now_ms += milliseconds(by, what="the time to advance by")
        self._run()

    # --- what comes out ---------------------------------------------------------------------------------------------

    def read(self, topic: str) -> list[Record]:
        """Committed records of a topic, partition after partition, each in log order."""
        stage = self._stage_of(topic)
        return list(self._read(topic)) if stage is None else stage.read(topic)

    def clean(self) -> list[Record]:
        """Unique events in order."""
        return self.read(self._pipeline.clean)

    def late(self) -> list[Record]:
        """Events that came too late; the headers `late.reason` and `late.by_ms` say why and by how much."""
        own = [record for one in self._pipeline.inputs for record in self.read(one.late)]
        return [record for stage in self._stages for record in stage.late()] + own

    def table(self, topic: str) -> dict[str, Mapping[str, Any]]:
        """Newest row of each key of a table's topic.

        Raises:
            KeyError: this topic is no table of the flow.

        """
        if topic not in self._pipeline.table_topics:
            raise KeyError(f"flow {self.flow.name} has no table {topic}")
        return {(record.key or b"").decode(): record.fields for record in self._read(topic)}

    def dead_letters(self) -> list[DeadLetter]:
        """Rejected records, with the reason."""
        return [letter for stage in self._stages for letter in stage.dead_letters()] + [
            DeadLetter(
                reason=(record.headers.get(REASON) or b"").decode(),
                message=(record.headers.get(_MESSAGE) or b"").decode(),
                record=record,
            )
            for one in self._pipeline.inputs
            for record in self._read(one.dlq)
        ]

    # --- faults -----------------------------------------------------------------------------------------------------

    def crash(self, at: Crash | None = None) -> None:
        """Kill the worker and start another one on what Kafka and the disk have.

        At once, or in the next commit cycle after step `at`: the next `feed` or `advance` then runs through the crash.
        """
        for stage in self._stages:
            stage.crash(at)
        if at is not None:
            self._armed = at
            return
        self._restart()

    def lose_disk(self) -> None:
        """Kill the worker and start another one on an empty disk: all state comes back from Kafka."""
        for stage in self._stages:
            stage.lose_disk()
        for rows in self._disk.values():
            rows.clear()
        self._restart()

    def _restart(self) -> None:
        self._kafka.time_out_transactions(range(self._kafka.partitions))
        self._start()
        self._run()

    # --- how it runs ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._sessions += 1
        config = config_of(self._pipeline, self._settings, self._kafka.partitions, catalog=self._catalog)
        self._engine = Engine(config, *decoders_of(self._pipeline, self._settings))
        changelog = MemoryChangelog(self._kafka)
        self._committer = Committer(
            self._pipeline,
            MemoryTransactions(self._kafka, _WORKER),
            changelog,
            [RowEncoder(one.topic, *self._registered.newest(one.subject)) for one in self._pipeline.row_outputs],
            self._failpoint,
            author=_WORKER,
            session=str(self._sessions),
        )
        self._position: dict[int, int] = {}
        """Next offset, by lane."""
        for partition, rows in self._disk.items():
            task = restore_partition(
                config, partition, MemoryStore(rows), changelog, ids_in_memory_max=_IDS_IN_MEMORY_MAX
            )
            self._engine.install(task)
            for number, offset_next in enumerate(task.offsets_next):
                self._position[lane_of(number, partition)] = max(0, offset_next)

    def _run(self) -> None:
        """Process and commit until nothing is left to read."""
        done = False
        while not done:
            records = self._next_records()
            try:
                if records is not None:
                    self._step(records)
                self._step(None)
            except _Killed:
                self._kafka.time_out_transactions(range(self._kafka.partitions))
                self._start()
            else:
                done = records is None

    def _step(self, records: Records | None) -> None:
        """One micro-batch and its commit cycle: records, or time that has passed without any."""
        now = self._now_ms
        idle = {lane: Idle(self._idle_since_ms, now) for lane in self._position if now > self._idle_since_ms}
        self._process(MicroBatch(records, now, {} if records is not None else idle, clock_ms=now))
        while self._engine.missing_schemas:
            for number, reader in enumerate(self._readers):
                missing = self._engine.missing_of(number)
                self._engine.learn({key: self._plan_of(key, reader) for key in missing}, number)
            self._process(MicroBatch(None, now, {}, clock_ms=now))
        end = self._engine.close_cycle()
        if end is not None:
            self._committer.commit(end, self._engine.tasks, now, lambda: self._kafka.membership_of(_WORKER))

    def _process(self, batch: MicroBatch) -> None:
        self._committer.write(self._engine.process(batch))

    def _next_records(self) -> Records | None:
        """The next records of each partition, up to a micro-batch, and move on."""
        found: list[tuple[int, Entry]] = []
        for lane, position in self._position.items():
            log = self._kafka.log(self._pipeline.inputs[input_of(lane)].topic, partition_of_lane(lane))
            taken = log[position : position + BATCH_RECORDS_MAX - len(found)]
            found += [(lane, entry) for entry in taken]
        if not found:
            return None
        for lane, entry in found:
            self._position[lane] = entry.offset + 1
        headers = [entry.headers for _, entry in found]
        return Records(
            partition=np.array([lane for lane, _ in found], dtype=np.int64),
            offset=np.array([entry.offset for _, entry in found], dtype=np.int64),
            timestamp_ms=np.array([entry.timestamp_ms for _, entry in found], dtype=np.int64),
            key=[entry.key for _, entry in found],
            value=[entry.value for _, entry in found],
            headers=headers if any(headers) else None,
        )

    def _stage_of(self, topic: str) -> "FlowDriver | None":
        """The stage before that writes or reads a topic, which this one does not write."""
        if topic in _topics_of(self.flow):
            return None
        return next((one for one in self._stages if topic in _topics_of(*one.flow.stages, one.flow)), None)

    def _take_over(self) -> None:
        """Read what the stages before have committed, and process it."""
        for number, one in enumerate(self._pipeline.inputs):
            stage = self._stage_of(one.topic)
            if stage is None:
                continue
            by_partition: dict[int, list[Record]] = {}
            for record in stage.read(one.topic):
                by_partition.setdefault(record.partition, []).append(record)
            for partition, records in by_partition.items():
                for record in records[self._taken.get((one.topic, partition), 0) :]:
                    kept = {name: value or b"" for name, value in record.headers.items()}
                    self._append(number, record.key, record.value, record.timestamp_ms, partition, kept)
                self._taken[one.topic, partition] = len(records)
        self._run()

    def _failpoint(self, step: str) -> None:
        if step == self._armed:
            self._armed = None
            raise _Killed

    def _number(self, name: str) -> int:
        """Number of the source called `name`."""
        names = [one.name for one in self._pipeline.inputs]
        if name not in names:
            raise ValueError(f"flow {self.flow.name} has no source {name!r}: there is {', '.join(names)}")
        return names.index(name)

    def _append(
        self,
        number: int,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        partition: int | None,
        headers: Mapping[str, bytes] | None,
    ) -> None:
        at = partition_of(key or b"", self._kafka.partitions) if partition is None else partition
        kept: Headers | None = list(headers.items()) if headers else None
        self._kafka.append(self._pipeline.inputs[number].topic, at, key, value, timestamp_ms, kept)
        self._now_ms = max(self._now_ms, timestamp_ms)
        self._idle_since_ms = self._now_ms

    def _read(self, topic: str) -> Iterator[Record]:
        for partition in range(self._kafka.partitions):
            for entry in self._kafka.committed_rows(topic, partition):
                yield Record(
                    topic=topic,
                    partition=partition,
                    offset=entry.offset,
                    key=entry.key,
                    value=entry.value,
                    headers=dict(entry.headers or ()),
                    timestamp_ms=entry.timestamp_ms,
                    fields=self._registered.decoded(entry.value, entry.headers),
                )

    def _plan_of(self, key: SchemaKey, reader: str) -> Plan | Reject:
        text = self._registered.text_of(key)
        if text is None or not isinstance(key, int):
            return Reject(-1, Reason.UNKNOWN_SCHEMA, f"no schema has id {key}", key if isinstance(key, int) else None)
        try:
            return build_plan(key, text, reader)
        except IncompatibleSchema as error:
            return Reject(-1, Reason.INCOMPATIBLE_SCHEMA, str(error), key)


def _topics_of(*flows: Flow) -> set[str]:
    """Topics of flows, without those that a stage before them writes."""
    return {topic.name for flow in flows for topic in flow.pipeline.topics()} - {
        one.topic for flow in flows for one in flow.pipeline.inputs if one.is_internal
    }


def _ms(time: Any) -> int:
    """Milliseconds since 1970 of a datetime or a number."""
    return round(time.timestamp() * 1_000) if isinstance(time, datetime) else int(time)
