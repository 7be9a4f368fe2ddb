"""Builds the parts of one flow over Kafka, the registry and RocksDB. None of them connects before it is used."""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from streams.batch.records import Records
from streams.clock import SystemTime, monotonic_ms
from streams.engine.commit import Committer, Failpoint
from streams.engine.config import TaskConfig
from streams.engine.encode import RowEncoder
from streams.engine.engine import Engine
from streams.errors import StreamsError
from streams.flow.code import code_of_app
from streams.flow.declaration import Pipeline
from streams.flow.decoding import decoders_of
from streams.growth.stages import Phase
from streams.kafka.changelog import ChangelogReaders, KafkaChangelog
from streams.kafka.lag import LagProbe
from streams.kafka.native_client import native_clients
from streams.kafka.places import KafkaPlaces
from streams.limits import RUNTIME_MB
from streams.resilience.breaker import Guard
from streams.resilience.retry import Retrier
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from streams.settings import Settings
from streams.sinks.kafka.transactions import KafkaTransactions
from streams.snapshots.objects import ObjectStore
from streams.sources.base import Idle, Polled
from streams.sources.kafka.forwarded import ForwardedReader
from streams.sources.kafka.intake import Intake
from streams.sources.kafka.range import Range, RangeIntake
from streams.state.rocks import RocksMemory
from streams.worker.budget import MemoryBudget
from streams.worker.configuration import config_of
from streams.worker.cycle import CycleLimits
from streams.worker.forget_inbox import ForgetInbox
from streams.worker.growth_news import KafkaGrowthNews
from streams.worker.metrics import WorkerMetrics
from streams.worker.owner import DataDirectory
from streams.worker.rebalance import RebalanceListener
from streams.worker.remarks import SourceRemarks
from streams.worker.restorer import Restorer
from streams.worker.schemas import SchemaLookup, reader_schemas, require_row_schemas, table_schema_id
from streams.worker.snapshot_restores import SnapshotRestores
from streams.worker.snapshots import SnapshotThread
from streams.worker.source_watch import SourceWatch, WatchedSource

_LOOK_INTERVAL_MS: Final = 1_000
"""Interval between two checks for partitions that a growth is about to add to the source."""
_CYCLE_SHARE: Final = 1 / 24
"""Share of the memory setting for committing a cycle."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the flows of a worker process share."""

    settings: Settings
    directory: DataDirectory
    memory: RocksMemory
    metrics: WorkerMetrics
    budget: MemoryBudget
    registry_guard: Guard
    pipelines: int
    """Number of flows in the worker."""
    timestamp_ages_ms: Mapping[str, int] = field(default_factory=dict)
    """By output topic, how old the timestamp of a record may be."""
    address: str = ""
    """Address of the worker's web server for other workers; empty: there is none."""

    def member_of(self, pipeline: Pipeline) -> str:
        """Name of this worker in the group of a flow."""
        return f"{pipeline.member_prefix}{self.directory.worker_id}"

    def settings_of_one(self) -> Settings:
        """The settings with a flow's share of the memory for data: a client's buffers are fixed when it is made."""
        data_mb = self.settings.streams_memory_mb_max - RUNTIME_MB
        return self.settings.model_copy(update={"streams_memory_mb_max": data_mb // self.pipelines})


class LateListener:
    """The core's listener, for a consumer that is made before the core is: it is called only after `subscribe`."""

    def __init__(self) -> None:
        self.target: RebalanceListener | None = None

    def _required(self) -> RebalanceListener:
        if self.target is None:
            raise StreamsError("the flow is not started")
        return self.target

    def assigned(self, partitions: list[int]) -> None:
        """Pass on to `RebalanceListener.assigned`."""
        self._required().assigned(partitions)

    def revoked(self, partitions: list[int]) -> None:
        """Pass on to `RebalanceListener.revoked`."""
        self._required().revoked(partitions)

    def lost(self, partitions: list[int]) -> None:
        """Pass on to `RebalanceListener.lost`."""
        self._required().lost(partitions)

    def noted(self, membership: object | None) -> None:
        """Pass on to `RebalanceListener.noted`."""
        self._required().noted(membership)


class Wiring:
    """The parts of one flow."""

    def __init__(
        self,
        pipeline: Pipeline,
        shared: Shared,
        remarks: SourceRemarks,
        retrier: Retrier,
        *,
        growth: KafkaGrowthNews,
        partitions: int,
        quiet: Retrier,
        on_progress: Callable[[], object],
        over: Range | None = None,
    ) -> None:
        """`growth`: what is known of the flow's growths; `partitions`: by how many its state was divided at first.

        `quiet`: a retrier that says nothing of its pauses. `over`: a range of the logs, outside of which nothing is
        read.
        """
        settings, own = shared.settings, shared.settings_of_one()
        self._pipeline = pipeline
        self._shared = shared
        self._retrier = retrier
        self._catalog = Catalog.load()
        self._guard = shared.registry_guard
        self.member = shared.member_of(pipeline)
        self.limits = CycleLimits(
            settings.streams_commit_interval_ms, bytes_max=int((own.streams_memory_mb_max << 20) * _CYCLE_SHARE)
        )
        further = tuple(one.topic for one in pipeline.further_inputs)
        config = config_of(
            pipeline, settings, partitions, catalog=self._catalog, stopwatch=shared.metrics.stopwatch,
            seed=time.time_ns() & ((1 << 63) - 1),
        )  # fmt: skip
        self.engine = self._engine(config)
        self.registry = Registry(own)
        self.lookups = [
            SchemaLookup(self.registry, reader, guard=self._guard, retrier=retrier)
            for reader in reader_schemas(self._catalog, pipeline)
        ]
        self.listener = LateListener()
        group, source = pipeline.group, pipeline.source
        native = native_clients(settings.streams_native)
        intake = Intake if over is None else partial(RangeIntake, over=over)
        self.intake: Intake = intake(
            own, source=source, group=group, member=self.member, ownership=self.listener,
            on_lost_records=remarks.records_lost, native=native, further=further,
            address=shared.address,
        )  # fmt: skip
        self.transactions = KafkaTransactions(
            own, transactional_id=self.member, source=source, retrier=retrier, native=native, further=further
        )
        self.changelog = KafkaChangelog(own, group=group, source=source, retrier=retrier, further=further)
        self.lag_probe = LagProbe(settings, group=group, source=source, further=further)
        self.forgets = ForgetInbox(settings, pipeline, SystemTime())
        places = KafkaPlaces(settings, pipeline)
        self._source_watches = [
            SourceWatch(places, topic, partial(self._ids_of, topic)) for topic in (source, *further)
        ]
        self.source = WatchedSource((source, *further), self._source_watches, self.intake)
        self.growth = growth
        self._partitions_seen = partitions
        self._looks_at_ms = 0
        self.forwarded = ForwardedReader(own, topics=pipeline.forwarded_topics, group=pipeline.group)
        address = settings.streams_snapshot_url
        self.snapshot_store = ObjectStore(address) if address else None
        self.restorer = Restorer(
            config, shared.directory, shared.memory, own, shared.metrics,
            places=places.find, retrier=retrier, layouts=growth.read,
            readers=ChangelogReaders(own, group=group, source=source, retrier=quiet, further=further),
            on_progress=on_progress,
            snapshots=None if self.snapshot_store is None
            else SnapshotRestores(self.snapshot_store, pipeline, shared.metrics),
        )  # fmt: skip

    def snapshots(self, failpoint: Failpoint, on_failure: Callable[[BaseException], None]) -> SnapshotThread | None:
        """The thread that takes snapshots; None: none are taken."""
        if self.snapshot_store is None:
            return None
        shared = self._shared
        return SnapshotThread(
            self.snapshot_store, self.restorer, self._pipeline, shared.memory, shared.settings, shared.metrics,
            worker=shared.directory.worker_id, failpoint=failpoint, on_failure=on_failure,
        )  # fmt: skip

    def committer(self, failpoint: Failpoint) -> Committer:
        """The committer of the flow; asks the registry for the ids of the rows' schemas.

        Raises:
            StreamsError: something that only a person can correct; the message says what.

        """
        require_row_schemas(self._catalog, self._pipeline)
        return Committer(
            self._pipeline,
            self.transactions,
            self.changelog,
            [RowEncoder(one.topic, *self._schema_of(one.subject)) for one in self._pipeline.row_outputs],
            failpoint,
            author=self.member,
            session=uuid.uuid4().hex,
            timestamp_ages_ms=self._shared.timestamp_ages_ms,
            address=self._shared.address,
            code=code_of_app() or None,
        )

    def poll(self) -> tuple[Polled, tuple[Records | None, dict[int, Idle]], int]:
        """Records of the source and of the forwarded topic, and when they arrived, monotonic; in the intake thread.

        Raises:
            StreamsError: one of the two is of no more use.

        """
        polled = self.intake.poll()
        self._look_for_partitions()
        return polled, self.forwarded.poll(), monotonic_ms()

    def _look_for_partitions(self) -> None:
        """Discover new partitions of the source soon after a growth has added them."""
        layouts = self.growth.layouts()
        if layouts is None or layouts.phase is not Phase.BEGUN:
            return
        partitions, now_ms = layouts.known[-1].partitions, monotonic_ms()
        if partitions > self._partitions_seen and now_ms >= self._looks_at_ms:
            self._looks_at_ms = now_ms + _LOOK_INTERVAL_MS
            if self.intake.has_seen(partitions):
                self._partitions_seen = partitions

    def close(self) -> None:
        """Close everything that is not bound to a thread: all but the intake and the transactions."""
        self.forgets.close()
        self.restorer.close()
        self.changelog.close()

    def watch_source_no_more(self) -> None:
        """Stop checking whether the source has changed."""
        for watch in self._source_watches:
            watch.close()

    def _engine(self, config: TaskConfig) -> Engine:
        return Engine(config, *decoders_of(self._pipeline, self._shared.settings))

    def _schema_of(self, subject: str) -> tuple[str, int]:
        """The newest committed schema of a subject, and its id."""
        schema = self._catalog.latest(subject).text
        return schema, table_schema_id(self.registry, subject, schema, guard=self._guard, retrier=self._retrier)

    def _ids_of(self, topic: str) -> frozenset[str]:
        """Topic ids that the tasks' offsets in an input belong to."""
        tasks = list(self.engine.tasks.values())
        return frozenset(found for task in tasks if (found := task.identity.topics.get(topic)))
