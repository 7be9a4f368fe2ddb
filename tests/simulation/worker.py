"""A simulated worker: the production core and restore, with time, scheduling and death as arguments."""

import copy
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from logistics.flows.gps import GPS
from streams.avro.decode import Decoder
from streams.avro.native import choose
from streams.avro.resolve import Plan, build_plan
from streams.batch.records import Records
from streams.batch.rejects import Reason, Reject
from streams.engine.commit import Committer
from streams.engine.config import TaskConfig
from streams.engine.encode import RowEncoder
from streams.engine.engine import Engine, MicroBatch
from streams.flow.bounds import Bounds
from streams.flow.declaration import Pipeline
from streams.growth.layouts import Layouts
from streams.kafka.memory import MemoryChangelog, MemoryKafka
from streams.kafka.partitioner import partitions_of
from streams.limits import GROWTH_QUIET_MS
from streams.schemas.catalog import Catalog
from streams.sinks.memory import MemoryTransactions, Refuses, refuses_nothing
from streams.sources.base import Idle
from streams.worker.account import CycleReport
from streams.worker.budget import MemoryBudget
from streams.worker.core import PipelineCore, Ports
from streams.worker.cycle import CycleLimits
from streams.worker.metrics import WorkerMetrics
from streams.worker.ownership import Polled
from streams.worker.remarks import SourceRemarks
from streams.worker.vitals import Vitals
from tests.simulation.ports import (
    Channel,
    CommitsInFlight,
    ForgetfulSchemas,
    MemoryIntake,
    MemoryJournal,
    MemoryStores,
    NoMemory,
    SimulatedTime,
    SuspectSource,
    WorkBetweenSteps,
)
from tests.simulation.traffic import NOW_MS, SCHEMA_ID, gps_schema
from tests.twin import by_references

_CATALOG = Catalog.load()
UNKNOWN_SCHEMA_ID = 0x63
_PLAN = build_plan(SCHEMA_ID, gps_schema(), gps_schema())
REJECTS_MAX, COOLDOWN_MS = 4, 300
"""So few that devices are quarantined and let go several times in a simulation."""
PIPELINE = replace(GPS, windows=(replace(GPS.windows[0], size_ms=500, grace_ms=200),))
"""Small windows: a simulation lasts for seconds."""


@dataclass(frozen=True)
class SimulatedFlow:
    """What a simulated worker runs."""

    pipeline: Pipeline
    plans: tuple[Plan, ...]
    """Of each input, for records of the schema `SCHEMA_ID`."""
    encoders: Callable[[], list[RowEncoder]]


def _gps_encoders() -> list[RowEncoder]:
    table, minute = (_CATALOG.latest(f"vehicles.{name}.v1-value") for name in ("state", "minutes"))
    return [RowEncoder("vehicles.state.v1", table.text, 3), RowEncoder(PIPELINE.windows[0].topic, minute.text, 4)]


GPS_FLOW = SimulatedFlow(PIPELINE, (_PLAN,), _gps_encoders)
INTERVAL_MS = 200
MAINTENANCE_S = (2.5, 31.0, 61.0)
"""Pauses after which it looks, flushes, truncates."""


class Crash(BaseException):
    """The process dies here."""


def _no_stopwatch(_: str) -> AbstractContextManager[None]:
    return nullcontext()


class SpillingEngine(Engine):
    """Moves state to the stores by chance, whatever the memory allows."""

    rng: random.Random

    def spill(self, bytes_max: int) -> bool:
        if self.rng.random() < 0.3:
            return super().spill(bytes_max)
        for task in self.tasks.values():
            task.maintenance.spill(
                below=task.watermark - self.rng.choice((-(10**9), 0, 500, 5_000)),
                rows_keep=self.rng.choice((0, 1, 5, 10**6)),
                keep_keys=self.rng.random() < 0.5,
            )
        return self.rng.random() < 0.5


class SimulatedWorker:
    """One worker process over its durable directory; `crash` kills it anywhere."""

    growth_quiet_ms = GROWTH_QUIET_MS
    flow = GPS_FLOW

    def __init__(
        self,
        name: str,
        kafka: MemoryKafka,
        rng: random.Random,
        *,
        lateness_ms: int,
        horizon_ms: int,
        batch_records_max: int,
        faults: bool,
        meanwhile: Callable[["SimulatedWorker", str], None] = lambda *_: None,
        refuses: Refuses = refuses_nothing,
    ) -> None:
        """`meanwhile` is called while a commit of this worker is in flight, and told how far it got."""
        self.name = name
        self.commits = CommitsInFlight(rng)
        self._meanwhile = meanwhile
        self.is_zombie = False
        """The group has gone on, and this worker does not poll: it hears of nothing."""
        self._starts = 0
        self.kafka = kafka
        self.rng = rng
        self.batch_records_max = batch_records_max
        self.faults = faults
        self.refuses = refuses
        self.disk: dict[int, dict[bytes, bytes]] = {}
        self.old_disk: dict[int, dict[bytes, bytes]] = {}
        bounds = Bounds(
            lateness_ms, horizon_ms, idle_ms=1_000, quarantine_rejects=REJECTS_MAX, quarantine_cooldown_ms=COOLDOWN_MS
        )
        further = tuple(replace(one, bounds=bounds) for one in self.flow.pipeline.further_inputs)
        self._pipeline = replace(self.flow.pipeline, bounds=bounds, further_inputs=further)
        self._config = TaskConfig(
            self._pipeline,
            _no_stopwatch,
            partial(partitions_of, partitions=kafka.partitions),
        )
        self._topics = [one.topic for one in self._pipeline.inputs]
        self._metrics = WorkerMetrics()
        self.clock = SimulatedTime()
        self.crashes = 0
        self.start()

    def start(self) -> None:
        self._starts += 1
        self._is_busy = False
        self.failures: list[BaseException] = []
        # Processes take turns in how they decode and remember, where that is possible: it must not matter.
        native = choose("auto").native if self._starts % 3 else None
        self._by_reference = native if self._starts % 3 == 1 else None
        decoders = [
            Decoder(one, record_bytes_max=1 << 20, skew_ms_max=60_000, native=native) for one in self._config.inputs
        ]
        if native is None:
            self._config = replace(self._config, add_ids=None, key_map=None)
        else:
            self._config = replace(self._config, add_ids=native.library.ids_add, key_map=native.library.KeyMap)
        self.engine = SpillingEngine(self._config, *decoders)
        self.engine.rng = self.rng
        changelog = MemoryChangelog(self.kafka)
        self.intake = MemoryIntake(self.kafka, self._topics, self.rng, batch_records_max=self.batch_records_max)
        self.channel = Channel()
        self.commits.kill()
        self.commits = CommitsInFlight(self.rng)
        self.between_steps = WorkBetweenSteps(self._has_time, self._busily)
        self.stores = MemoryStores(self.kafka, self._config, changelog, self.disk, self.rng, self.layouts)
        ports = self._ports()
        self.core = PipelineCore(
            self._pipeline,
            self.engine,
            self._committer(changelog),
            ports,
            CycleLimits(INTERVAL_MS, bytes_max=self.rng.choice((20_000, 1 << 30))),
            self._metrics,
            Vitals(self.clock.monotonic_s),
            SourceRemarks(self._pipeline, self._metrics, partitions=self.kafka.partitions, layouts=self.layouts),
            CycleReport(
                self._pipeline, self._metrics, self.clock, partitions=self.kafka.partitions, skew_ms_max=60_000
            ),
            MemoryBudget(self.rng.choice((0, 50_000, 1 << 30)), pipelines=1),
            memory_bytes_max=1 << 30,
            is_stopping=lambda: False,
            on_failure=self.failures.append,
            growth_quiet_ms=self.growth_quiet_ms,
        )

    def layouts(self) -> Layouts | None:
        """What is known of growths; None: nothing is asked."""
        return None

    def _ports(self) -> Ports:
        return Ports(
            self.clock,
            self.commits,
            self.between_steps,
            self.intake,
            self.stores,
            MemoryJournal(self.kafka),
            ForgetfulSchemas(lambda: self._happens(0.1)),
            SuspectSource(lambda: self._happens(0.02)),
            NoMemory(),
        )

    def _committer(self, changelog: MemoryChangelog) -> Committer:
        transactions = MemoryTransactions(self.kafka, self.name, self._verdict, self._in_flight, self.refuses)
        return Committer(
            self._pipeline,
            transactions,
            changelog,
            self.flow.encoders(),
            self._failpoint,
            author=self.name,
            session=str(self._starts),
        )

    @property
    def position(self) -> dict[int, int]:
        """Next offset of each partition that is consumed."""
        self.intake.obey()
        return self.intake.position

    @property
    def reloads(self) -> int:
        return self.core.ownership.generation

    # --- the group --------------------------------------------------------------------------------------------------

    def note(self) -> None:
        """Hear of the group's generation, as each poll does."""
        self.core.listener.noted(self.kafka.membership_of(self.name))

    def assign(self, partition: int) -> None:
        """The group gives a partition to this worker."""
        self.kafka.give(partition, self.name)
        self.note()
        self.core.listener.assigned([partition])

    def revoke(self, partition: int) -> None:
        """The group takes a partition back, and waits; after that it is free, also when the release takes longer."""
        crashes = -1
        while crashes != self.crashes:  # a process that dies of it, and is there again, is asked again
            crashes = self.crashes
            self._or_crash(lambda: self.core.listener.revoked([partition]))
        self.intake.forget(partition)

    def lose(self, partition: int) -> None:
        """The group has given the partition to somebody else meanwhile; whatever is open is fenced."""
        self._or_crash(lambda: self.core.listener.lost([partition]))
        self.intake.forget(partition)

    def _has_time(self) -> bool:
        """Whether a release that begins now ends in time: not while the worker is busy with a step or a commit."""
        return not self._is_busy and not self._happens(0.3)

    def crash(self) -> None:
        """Kill and start again: memory is gone, the disk is as of the last flush."""
        self.crashes += 1
        owned = [p for p, owner in self.kafka.owners.items() if owner == self.name]
        left = self.kafka.open.get(self.name)
        if left is not None and self.rng.random() < 0.5:
            self.kafka.end(left, "aborted")
        fate = self.rng.random()
        for partition in owned:
            if fate < 0.1:
                self.disk[partition] = {}
            elif fate < 0.2 and partition in self.old_disk:
                self.disk[partition] = copy.copy(self.old_disk[partition])
            elif fate < 0.4:
                self.old_disk[partition] = copy.copy(self.disk.get(partition, {}))
        self.start()
        for partition in owned:
            self.assign(partition)

    # --- work -------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Some of what a worker does: what waits goes on or not, then one random thing."""
        if self.rng.random() < 0.8:
            self._guarded(self.between_steps.run)
        if self.rng.random() < 0.6:
            self._guarded(self.stores.go_on)
        action = self.rng.random()
        if action < 0.7:
            self.poll()
            if len(self.channel) > 2 or self.rng.random() < 0.6:
                self.process()
        elif action < 0.85:
            self.commit()
        elif action < 0.9:
            self._guarded(self.commits.run)
        elif action < 0.96:
            self.clock.passed_s += self.rng.choice(MAINTENANCE_S)
            self.process()
        else:
            self.stores.flush()

    def poll(self, idle: dict[int, Idle] | None = None) -> None:
        """Fetch a micro-batch. When exactly a record is read decides nothing."""
        records = self.intake.poll()
        if records is not None and self._by_reference is not None:
            records = by_references(records, self._by_reference)
        self.channel.put(self._batch(records, idle or {}))

    def _batch(self, records: Records | None, idle: dict[int, Idle]) -> Polled:
        clock_ms = NOW_MS + self.rng.randint(0, 60_000)
        return self.core.polled(MicroBatch(records, 0, idle, self.intake.generation, clock_ms=clock_ms))

    def process(self) -> None:
        """Process the next micro-batch, or an empty one."""
        batch = self.channel.get() if len(self.channel) else self._batch(None, {})
        self._guarded(lambda: self.core.step(batch))
        if self.engine.missing_schemas and (batch.batch.idle or not self._happens(0.5)):
            self._learn()
            self._guarded(lambda: self.core.step(self._batch(None, {})))

    def _learn(self) -> None:
        for number, plan in enumerate(self.flow.plans):
            for schema_id in self.engine.missing_of(number):
                number_only = schema_id if isinstance(schema_id, int) else None
                unknown = Reject(-1, Reason.UNKNOWN_SCHEMA, "no such schema", number_only)
                self.engine.learn({schema_id: plan if schema_id == SCHEMA_ID else unknown}, number)

    def commit(self) -> None:
        """Process the next micro-batch when it is time for the cycle to end."""
        self.process()
        self.clock.passed_s += 2 * INTERVAL_MS / 1000
        self.process()

    def work_and_commit(self) -> None:
        """Carry out all that waits; process and commit a batch."""
        self._guarded(self.between_steps.run)
        self._guarded(lambda: self.stores.go_on(to_the_end=True))
        self.poll()
        self.commit()
        self._guarded(self.commits.run)

    def catch_up(self) -> None:
        """Process and commit all that is there, and hear what became of the last commit."""
        for _ in range(10_000):
            self.work_and_commit()
            newest = self.commits.newest
            self.commit()
            if self.is_caught_up and self.commits.newest is newest:
                return
        raise AssertionError("a worker does not come to an end")

    @property
    def is_caught_up(self) -> bool:
        waits = len(self.channel) or len(self.between_steps) or self.stores.is_restoring
        ends = all(at >= len(self.intake.log(lane)) for lane, at in self.position.items())
        return ends and not waits and not self.engine.waiting_partitions

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do work of the core's thread, or of the commit thread."""
        self._or_crash(lambda: self._busily(work))

    def _or_crash(self, work: Callable[[], None]) -> None:
        """Do something of which this worker may die."""
        try:
            work()
        except Crash:
            self.crash()
        assert not self.failures, self.failures

    def _busily(self, work: Callable[[], None]) -> None:
        was_busy, self._is_busy = self._is_busy, True
        work()
        self._is_busy = was_busy

    def _in_flight(self, moment: str) -> None:
        """A commit is on its way to the broker, or its answer on the way here: it takes a while, or others go on."""
        if self._happens(0.3):
            self.commits.pause()
        self._meanwhile(self, moment)

    def _happens(self, chance: float) -> bool:
        return self.faults and self.rng.random() < chance

    def _failpoint(self, _: str) -> None:
        if self._happens(0.01):
            raise Crash

    def _verdict(self) -> str:
        if not self.faults:
            return "committed"
        return self.rng.choices(
            ("committed", "aborted", "unknown-happened", "unknown-not-happened"), weights=(90, 4, 3, 3)
        )[0]
