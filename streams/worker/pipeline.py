"""One pipeline in one worker: batches to effects (agent), effects to commits (sink), and who owns which partition.

The engine and the committer are synchronous; each runs in a thread of its own, so that the next micro-batch is
processed while a commit is in flight. Everything else happens on the event loop. `_turn` is held from the moment a
micro-batch is processed until its effects are written: between the two, state is ahead of the outputs, and nothing may
be committed.
"""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final, TypeVar

import numpy as np
import structlog

from streams.avro.decode import Decoder
from streams.avro.framing import SchemaKey
from streams.clock import SteadyClock, monotonic_ms
from streams.engine.commit import Committer, Failpoint
from streams.engine.effects import CycleEnd, Effects
from streams.engine.encode import RowEncoder
from streams.engine.engine import Engine, MicroBatch
from streams.engine.task import PartitionTask, TaskConfig
from streams.errors import FencedError, StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka.changelog import ChangelogReaders, KafkaChangelog
from streams.kafka.lag import LagProbe
from streams.kafka.places import KafkaPlaces
from streams.limits import (
    CHECKPOINT_INTERVAL_MS,
    CYCLE_RECORDS_MAX,
    POLL_BLOCKED_MS_MAX,
    REVOKE_TIMEOUT_MS,
    RUNTIME_MB,
)
from streams.operators.quarantine.operator import QuarantineOperator
from streams.resilience.breaker import Guard
from streams.resilience.retry import Backoff, Retrier, quietly
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from streams.settings import Settings
from streams.sinks.base import CycleAborted, OutputRefused
from streams.sinks.kafka.transactions import KafkaTransactions
from streams.sources.kafka.intake import Intake
from streams.state.rocks import RocksMemory
from streams.state.store import StoreUnavailable
from streams.worker.account import CycleAccount
from streams.worker.budget import MemoryBudget
from streams.worker.configuration import config_of
from streams.worker.memory import give_back, resident_bytes
from streams.worker.metrics import WorkerMetrics
from streams.worker.mismatches import SchemaWatch
from streams.worker.misrouted import MisroutedWatch
from streams.worker.owner import DataDirectory
from streams.worker.ownership import Ownership, Term
from streams.worker.remarks import SourceRemarks
from streams.worker.restorer import Restorer
from streams.worker.schemas import SchemaLookup, reader_schema, require_row_schemas, table_schema_id
from streams.worker.simulated import Downstream, DropDefect
from streams.worker.source_watch import SourceWatch
from streams.worker.tracing import Tracing
from streams.worker.watchdog import Vitals

log = structlog.get_logger(__name__)

T = TypeVar("T")

_MAINTENANCE_INTERVAL_S: Final = 2.0
_RELIEF_INTERVAL_S: Final = 0.2
_TRUNCATE_INTERVAL_S: Final = 60.0
_DEVICES_LOGGED: Final = 10
_ABORTED: Final = Backoff(first_s=0.1, pause_s_max=15.0)
_TRIM_SHARE: Final = 0.6
"""Of the memory setting, resident memory beyond which what is free is given back to the system."""
_CYCLE_SHARE: Final = 1 / 24
"""Of the memory setting, for what committing a cycle takes: with long keys or many of them a cycle ends earlier."""


class PipelineRunner:
    """Runs one pipeline. `start`, then `intake_loop`, `process` and `commit` by the Faust app, at last `stop`."""

    def __init__(
        self,
        pipeline: Pipeline,
        settings: Settings,
        directory: DataDirectory,
        memory: RocksMemory,
        metrics: WorkerMetrics,
        *,
        partitions: int,
        budget: MemoryBudget,
        pipelines: int,
        registry_guard: Guard,
        failpoint: Failpoint,
        timestamp_ages_ms: Mapping[str, int] | None = None,
        defect: DropDefect | None = None,
        on_failure: Callable[[BaseException], None],
        tracing: Tracing | None = None,
    ) -> None:
        self.pipeline = pipeline
        self._trace = None if tracing is None else tracing.of_pipeline(pipeline)
        self._settings = settings
        self._metrics = metrics
        self._memory = memory
        self._budget = budget
        own = _share_of(settings, pipelines)
        self._cycle_bytes_max = int((own.streams_memory_mb_max << 20) * _CYCLE_SHARE)
        self._on_failure = on_failure
        self._stop = threading.Event()
        self.vitals = Vitals()
        """Signs of life, for the watchdog: progress, and waits that are said aloud."""
        self._retrier = Retrier(self._stop, on_pause=lambda pause: self.vitals.sign(pause.pause_s))
        self._clock = SteadyClock()
        self._generation = 0
        self._member = f"{pipeline.prefix}streams-{pipeline.name}-{directory.worker_id}"
        self._turn = asyncio.Lock()
        self._handover = asyncio.Lock()
        """Partitions come and go in the order in which the group said so, also when releasing one takes long."""
        self._cycle = CycleAccount()
        self._schema_watch = SchemaWatch(pipeline.name, metrics)
        self._misrouted_watch = MisroutedWatch(pipeline.source, partitions, metrics)
        self._remarks = SourceRemarks(pipeline, metrics, partitions=partitions)
        self._quarantined: frozenset[bytes] = frozenset()
        self._in_flight: asyncio.Future[None] | None = None
        self._ownership = Ownership()
        self._owned: dict[int, Term] = {}
        """Partitions whose assignment has been carried out, and whose release has not."""
        self._terms: dict[int, Term] = {}
        """Of each installed task: the term in which its state was restored."""
        self._restoring: set[asyncio.Task[None]] = set()
        self._attempts: dict[int, object] = {}
        """The newest attempt to restore each partition: whatever an older one brings is void."""
        self._looking_up: asyncio.Task[None] | None = None
        self._aborts_in_a_row = 0
        self._maintained_at = self._checkpointed_at = self._truncated_at = time.monotonic()
        self._engine_thread, self._commit_thread, self._intake_thread = (
            ThreadPoolExecutor(1, f"{pipeline.name}-{work}") for work in ("engine", "commit", "intake")
        )
        self._catalog = Catalog.load()
        reader = reader_schema(self._catalog, pipeline)
        seed = time.time_ns() & ((1 << 63) - 1)
        config = config_of(
            pipeline, settings, partitions, catalog=self._catalog, stopwatch=metrics.stopwatch, seed=seed
        )
        decoder = Decoder(
            pipeline,
            record_bytes_max=settings.streams_record_bytes_max,
            skew_ms_max=settings.streams_skew_ms_max,
        )
        self.engine = Engine(config, decoder, idle_ms=settings.streams_idle_ms)
        self._failpoint = failpoint
        self._timestamp_ages_ms = timestamp_ages_ms
        self._defect = defect
        self._downstream = Downstream(settings.streams_downstream_ms, settings.streams_downstream_records, metrics)
        self._registry_guard = registry_guard
        self._make_clients(config, reader, directory, own)
        self._committer: Committer | None = None

    def _make_clients(self, config: TaskConfig, reader: str, directory: DataDirectory, own: Settings) -> None:
        """Clients, none of which connects before `start`; `own` has this pipeline's share of the memory."""
        self._registry = Registry(own)
        self._lookup = SchemaLookup(self._registry, reader, guard=self._registry_guard, retrier=self._retrier)
        self._intake = Intake(
            own, source=self.pipeline.source, group=self.pipeline.group, member=self._member, ownership=self,
            on_lost_records=self._remarks.records_lost,
        )  # fmt: skip
        self._transactions = KafkaTransactions(
            own,
            transactional_id=self._member,
            source=self.pipeline.source,
            retrier=self._retrier,
        )
        self._changelog = KafkaChangelog(
            self._settings, group=self.pipeline.group, source=self.pipeline.source, retrier=self._retrier
        )
        self._places = KafkaPlaces(self._settings, self.pipeline)
        self._source_watch = SourceWatch(self._places, self.pipeline.source, self._source_ids)
        # A restore that waits is told of, and repeated, by the restorer: its reader need not.
        quiet = Retrier(self._stop, say=quietly, on_pause=lambda pause: self.vitals.sign(pause.pause_s))
        self._lag_probe = LagProbe(self._settings, group=self.pipeline.group, source=self.pipeline.source)
        self._restorer = Restorer(
            config,
            directory,
            self._memory,
            own,
            self._metrics,
            places=self._places.find,
            retrier=self._retrier,
            readers=ChangelogReaders(
                self._settings, group=self.pipeline.group, source=self.pipeline.source, retrier=quiet
            ),
            on_progress=self.vitals.sign,
        )

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect: schema ids of the tables, the producer, the group.

        Raises:
            StreamsError: something that only a person can mend; the message says what.

        """
        self._loop = asyncio.get_running_loop()
        encoders = await asyncio.to_thread(self._encoders)
        self._committer = Committer(
            self.pipeline,
            self._transactions,
            self._changelog,
            encoders,
            self._failpoint,
            author=self._member,
            session=uuid.uuid4().hex,
            timestamp_ages_ms=self._timestamp_ages_ms,
        )
        await self._in_commit_thread(self._transactions.reopen)
        await self._loop.run_in_executor(self._intake_thread, self._intake.subscribe)

    def stopping(self) -> None:
        """Make `intake_loop` end and every wait short."""
        self._stop.set()

    async def stop(self) -> None:
        """Finish or abort the cycle, move state to the stores, leave. `intake_loop` must have ended."""
        for task in self._restoring:
            task.cancel()
        if self._looking_up is not None:
            self._looking_up.cancel()
        self._source_watch.close()
        async with self._handover:
            await self._release(sorted(self._owned))
        await self._settled()
        await self._loop.run_in_executor(self._intake_thread, self._intake.close)
        await self._in_commit_thread(self._transactions.close)
        await self._restorer.close()
        self._changelog.close()
        for thread in (self._engine_thread, self._commit_thread, self._intake_thread):
            thread.shutdown(wait=False)

    def remarks(self) -> list[str]:
        """What is wrong with the source although this pipeline processes all that it can."""
        misrouted = self._misrouted_watch.remark(monotonic_ms())
        spare = f"no partition of {self.pipeline.source} is left for this worker: it is a spare, and takes over"
        return [
            *self._remarks.remarks(monotonic_ms()),
            *([] if misrouted is None else [misrouted]),
            *([spare] if self._is_spare() else []),
        ]

    def unready(self) -> str | None:
        """Why this pipeline does not process all partitions that it was given; None when it does."""
        reasons = [reason for reason in (self._not_processing(), self._remarks.refusal()) if reason is not None]
        return "; ".join(reasons) or None

    def _not_processing(self) -> str | None:
        if self._restorer.stuck:
            return "; ".join(self._restorer.stuck.values())
        if standing := self._standing_still():
            return "; ".join(standing.values())
        missing = self._owned.keys() - self.engine.tasks.keys()
        if missing:
            return f"restoring {self.pipeline.source} partitions {sorted(missing)}"
        if self.engine.waiting_partitions:
            return f"waiting for the schema registry: {self.pipeline.source} {sorted(self.engine.waiting_partitions)}"
        if not self._owned and not self._remarks.refused and not self._is_spare():
            return f"no partition of {self.pipeline.source} is assigned"
        return None

    def _is_spare(self) -> bool:
        """Whether it works as it should, and others have all partitions."""
        return not self._owned and self._intake.is_spare(monotonic_ms())

    # --- for the watchdog -------------------------------------------------------------------------------------------

    def at_work(self) -> Mapping[int, tuple[int, int]]:
        """By partition that should be processed now: offset up to which all is taken, and the last one taken + 1."""
        if self._stop.is_set():
            return {}
        excused = self._restorer.stuck.keys() | self.engine.waiting_partitions | self._standing_still().keys()
        known, taken = self._intake.positions(), self._intake.taken()
        return {p: (known.get(p, 0), taken.get(p, 0)) for p in sorted(set(self._owned) - excused)}

    def _standing_still(self) -> dict[int, str]:
        """Partitions of ours of which an output refuses what must be written, and why."""
        return {p: why for p, why in self.engine.refusals.stopped.items() if p in self._owned}

    def lags(self, at_work: Mapping[int, tuple[int, int]]) -> dict[int, int]:
        """Records that are there and not committed, by partition, without those that have none.

        Raises:
            StreamsError: the broker does not answer.

        """
        return self._lag_probe.lags(at_work)

    def waits_for(self) -> str:
        """What it is busy with, as far as it knows."""
        doing = [
            f"the {name} thread" for name, busy in (
                ("commit", self._in_flight is not None and not self._in_flight.done()),
                ("agent's or the sink's", self._turn.locked()),
            ) if busy
        ]  # fmt: skip
        missing = set(self._owned) - set(self.engine.tasks) - self._standing_still().keys()
        if missing:
            doing.append(f"the restore of partitions {sorted(missing)}")
        return f"{self.pipeline.name}: {' and '.join(doing) or 'records from the broker'}"

    # --- intake -----------------------------------------------------------------------------------------------------

    async def intake_loop(self, send: Callable[[MicroBatch], "asyncio.Future[object]"]) -> None:
        """Poll and hand micro-batches over until stopped; polls on (paused) while the agent is behind."""
        while not self._stop.is_set():
            polled_ns = time.time_ns() if self._trace is not None else 0
            records, idle, generation = await self._loop.run_in_executor(self._intake_thread, self._intake.poll)
            self._remarks.unreadable(self._intake.unreadable, monotonic_ms())
            batch = MicroBatch(records, int(time.time() * 1000), idle, generation, self._clock.now_ms())
            if self._trace is not None and records is not None:
                self._trace.received(batch, records, polled_ns)
            handed_over = asyncio.ensure_future(send(batch))
            while True:
                done, _ = await asyncio.wait({handed_over}, timeout=POLL_BLOCKED_MS_MAX / 1000)
                if done or self._stop.is_set():
                    break
                await self._poll_paused()
            if not handed_over.done():
                handed_over.cancel()

    async def _poll_paused(self) -> None:
        """The agent is behind: keep our place in the group without taking more."""
        self._intake.pause_only(frozenset(self._owned))
        self._metrics.paused_partitions.labels("backpressure").set(len(self._owned))
        records, _, generation = await self._loop.run_in_executor(self._intake_thread, self._intake.poll)
        if records is not None:  # fetched before the pause took hold: consumed again from where they are
            for number in np.unique(records.partition).tolist():
                offset_next = int(records.offset[records.partition == number][0])
                self._intake.start_again(number, offset_next, generation)
        self._metrics.paused_partitions.labels("backpressure").set(0)
        self._intake.pause_only(self.engine.waiting_partitions)

    # --- agent and sink ---------------------------------------------------------------------------------------------

    async def process(self, batch: MicroBatch) -> Effects:
        """Effects of a micro-batch. Takes the turn; `commit` must be called with what this returns."""
        await self._turn.acquire()
        try:
            if batch.generation != self._generation:
                return Effects(batch.now_ms)
            if self._cycle.opened_at is None and not batch.is_large:
                # From here, not from its first effect, which has to wait for the commit in flight: a cycle that comes
                # behind a slow commit ends with it. A worker that is behind prefers larger cycles, they cost less.
                self._cycle.opened_at = time.monotonic()
            started_ns = time.time_ns() if self._trace is not None else 0
            effects = await self._in_engine_thread(self.engine.process, batch)
            if batch.records is not None:
                self.vitals.sign()
                if self._trace is not None:
                    self._trace.processed(batch, started_ns)
            if self._defect is not None:
                effects = self._defect.spoil(effects)
            await self._downstream.take(effects)
            self._after_processing()
            return effects
        except BaseException as error:
            self._turn.release()
            self.fail(error)
            raise

    async def commit(self, effects: Effects) -> None:
        """Carry effects out; end the cycle when it is time. Gives the turn back."""
        try:
            await self._commit(effects)
        except CycleAborted as error:
            await self._reset(error)
        except Exception as error:
            self.fail(error)
            raise
        finally:
            self._turn.release()

    async def _commit(self, effects: Effects) -> None:
        if effects.partitions or effects.dead_letters:
            await self._outcome()
            self._cycle.note(effects)
            self._cycle.terms.update(self._terms[part.partition] for part in effects.partitions)
            if effects.records:
                self._metrics.batch_records.observe(effects.records)
            await self._in_engine_thread(self._require_committer().write, effects)
        cycle = self._cycle
        if cycle.opened_at is not None:
            age_ms = (time.monotonic() - cycle.opened_at) * 1000
            is_full = cycle.records >= CYCLE_RECORDS_MAX or self.engine.cycle_bytes() >= self._cycle_bytes_max
            if age_ms >= self._settings.streams_commit_interval_ms or is_full:
                await self._end_cycle()
        used = self.engine.bytes_used()
        is_over = used > self._budget.allowed(self.pipeline.name, used)
        if time.monotonic() - self._maintained_at > (_RELIEF_INTERVAL_S if is_over else _MAINTENANCE_INTERVAL_S):
            await self._maintain()

    async def _end_cycle(self) -> None:
        """Close the cycle and let its commit run while the next micro-batch is processed."""
        await self._outcome()
        end = await self._in_engine_thread(self.engine.close_cycle)
        cycle, self._cycle = self._cycle, CycleAccount()
        if end is None:
            self._cycle.terms = cycle.terms  # of a transaction that may be open, and is the next cycle's
            return
        cycle.terms.update(self._terms[commit.partition] for commit in end.commits)
        tasks = dict(self.engine.tasks)
        self._in_flight = asyncio.ensure_future(self._in_commit_thread(self._commit_cycle, end, tasks, cycle))

    def _commit_cycle(self, end: CycleEnd, tasks: dict[int, PartitionTask], cycle: CycleAccount) -> None:
        started = time.perf_counter()
        now_ms = int(time.time() * 1000)

        def commit() -> None:
            self._require_committer().commit(end, tasks, now_ms, lambda: self._ownership.claim(cycle.terms))

        if self._trace is None:
            self._write_through(commit)
        else:
            with self._trace.committing(cycle.records):
                self._write_through(commit)
        self._metrics.commit_seconds.observe(time.perf_counter() - started)
        cycle.publish(self._metrics, self.pipeline, end, skew_ms_max=self._settings.streams_skew_ms_max)
        self._schema_watch.tell(cycle.schemas, int(time.time() * 1000))
        self._misrouted_watch.tell(cycle.misrouted, monotonic_ms())
        self._aborts_in_a_row = 0
        self.vitals.sign()

    def _write_through(self, commit: Callable[[], None]) -> None:
        """Run a commit; a disk that refuses afterwards aborts nothing, it makes the state be reloaded when it can."""
        try:
            commit()
        except StoreUnavailable as error:
            raise CycleAborted("state_disk", f"the state directory cannot be written: {error}") from error

    async def _outcome(self) -> None:
        """Wait for the commit in flight.

        Raises:
            CycleAborted: it did not happen.

        """
        if self._in_flight is not None:
            in_flight, self._in_flight = self._in_flight, None
            await in_flight

    async def _settled(self) -> None:
        """Wait for the commit in flight, whatever becomes of it."""
        try:
            await self._outcome()
        except (CycleAborted, StreamsError) as error:
            log.warning("the last cycle was not committed", error=str(error))

    async def _reset(self, error: CycleAborted) -> None:
        """Abort, drop state that was never committed, restore it from the stores and run the records again."""
        await self._run_again(await self._roll_back(error))

    async def _roll_back(self, error: CycleAborted) -> float:
        """Abort and drop state that was never committed; returns the seconds to wait before its records run again."""
        self._generation += 1
        self._attempts.clear()
        self._cycle = CycleAccount()
        self._metrics.aborts.labels(error.reason).inc()
        self._aborts_in_a_row += 1
        if isinstance(error, OutputRefused) and error.refused:
            self.engine.refusals.note(error.refused)
            self._aborts_in_a_row = 1  # each one that is found is progress
        delay_s = _ABORTED.jittered_s(self._aborts_in_a_row)
        self.vitals.sign(delay_s)
        log.warning(
            "cycle aborted: its records run again", reason=error.reason, error=str(error), after_s=round(delay_s, 2)
        )
        await self._settled()
        try:
            await self._in_commit_thread(self._require_committer().abort)
        except FencedError as fenced:
            self.fail(fenced)
        for partition in sorted(self.engine.tasks):
            self._drop(partition)
        self._intake.stop(self._owned, self._generation)
        return delay_s

    async def _run_again(self, delay_s: float) -> None:
        if not self._stop.is_set():
            await asyncio.sleep(delay_s)
            self._restore(sorted(self._owned))

    # --- ownership (called in the intake thread, from within a poll) ------------------------------------------------

    def assigned(self, partitions: list[int]) -> None:
        """Restore newly assigned partitions in the background; those that the state has no place for stay paused."""
        partitions = self._remarks.assigned(partitions)
        asyncio.run_coroutine_threadsafe(self._take(self._ownership.begin(partitions)), self._loop)

    def revoked(self, partitions: list[int]) -> None:
        """Commit what was processed and release; bounded, since the whole group waits for it."""
        self._remarks.gone(partitions)
        try:
            self._bounded(self._give(partitions), "release")
        finally:
            # Released or not: on return the group learns that they are free.
            self._ownership.end(partitions)

    def lost(self, partitions: list[int]) -> None:
        """Drop everything that is not committed."""
        self._remarks.gone(partitions)
        self._ownership.end(partitions)
        self._bounded(self._abandon(partitions), "abandon")

    def noted(self, membership: object | None) -> None:
        """Keep the consumer's place in the group as of now, for the next commit."""
        self._ownership.note(membership)

    def _bounded(self, work: Coroutine[Any, Any, None], what: str) -> None:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            future.result(REVOKE_TIMEOUT_MS / 1000)
        except FutureTimeoutError:
            log.warning("releasing partitions takes long; the group goes on, and a late commit is refused", what=what)

    async def _take(self, terms: Mapping[int, Term]) -> None:
        async with self._handover:
            self._owned.update(terms)
            self.engine.refusals.start_again(list(terms))
            self._restore(terms)

    async def _give(self, partitions: list[int]) -> None:
        async with self._handover:
            await self._release(partitions)

    async def _release(self, partitions: list[int]) -> None:
        partitions = [partition for partition in partitions if partition in self._owned]
        if not partitions:
            return
        async with self._turn:
            delay_s = None
            try:
                await self._end_cycle()
                await self._outcome()
            except CycleAborted as error:
                delay_s = await self._roll_back(error)
            except FencedError as error:
                self.fail(error)
            await self._close(partitions)
            if delay_s is not None:
                await self._run_again(delay_s)

    async def _abandon(self, partitions: list[int]) -> None:
        async with self._handover, self._turn:
            delay_s = await self._roll_back(CycleAborted("partitions_lost", "the group has given partitions to others"))
            await self._close(partitions)
            await self._run_again(delay_s)

    async def _close(self, partitions: list[int]) -> None:
        """Forget partitions; what their tasks have that is committed goes to the stores, which are closed."""
        for partition in partitions:
            self._owned.pop(partition, None)
            self._attempts.pop(partition, None)
            await self._restorer.release(partition, self._drop(partition))

    def _drop(self, partition: int) -> PartitionTask | None:
        self._terms.pop(partition, None)
        return self.engine.drop(partition)

    def _restore(self, partitions: Iterable[int]) -> None:
        """Restore partitions side by side, each by itself: one that waits, or cannot be restored, stands alone."""
        stopped = self.engine.refusals.stopped
        for partition in (one for one in partitions if one not in stopped):
            attempt = self._attempts[partition] = object()
            task = self._loop.create_task(self._restore_one(self._owned[partition], attempt))
            self._restoring.add(task)
            task.add_done_callback(self._restoring.discard)

    async def _restore_one(self, term: Term, attempt: object) -> None:
        partition = term.partition

        def wanted() -> bool:
            is_newest = self._attempts.get(partition) is attempt
            return is_newest and self._ownership.runs(term) and not self._stop.is_set()

        try:
            restored = await self._restorer.restore(partition, wanted)
            if restored is None:
                return
            async with self._turn:
                if wanted():
                    self.engine.install(restored.task)
                    self._terms[partition] = term
                    self._intake.start(partition, restored.task.offset_next, restored.source_bounds)
        except Exception as error:
            self.fail(error)
            raise

    # --- schemas, metrics, maintenance ------------------------------------------------------------------------------

    def _note_quarantine(self) -> None:
        """Say aloud which devices are kept out since the last time, and which are no longer."""
        tasks = self.engine.tasks.values()
        found = frozenset(key for task in tasks for key in task.operator(QuarantineOperator).breakers.open_keys)
        self._metrics.quarantined_devices.labels(self.pipeline.source).set(len(found))
        if found != self._quarantined:
            begun, ended = sorted(found - self._quarantined), sorted(self._quarantined - found)
            log.warning(
                "quarantined devices have changed", topic=self.pipeline.source, devices=len(found),
                begun=begun[:_DEVICES_LOGGED], ended=ended[:_DEVICES_LOGGED],
            )  # fmt: skip
            self._quarantined = found

    def _after_processing(self) -> None:
        if self.engine.missing_schemas and self._looking_up is None:
            self._looking_up = self._loop.create_task(self._look_up(self.engine.missing_schemas))
        waiting = self.engine.waiting_partitions
        self._intake.pause_only(waiting)
        self._metrics.paused_partitions.labels("schema_registry").set(len(waiting))
        standing = self._standing_still().keys()
        self._metrics.paused_partitions.labels("refused_by_output").set(len(standing))
        self._metrics.paused_partitions.labels("restoring").set(
            len(self._owned.keys() - self.engine.tasks.keys() - standing)
        )

    async def _look_up(self, keys: frozenset[SchemaKey]) -> None:
        """Learn schemas. An outage of the registry is waited out; any other error is a bug and ends the worker."""
        try:
            await self._lookup.resolve(keys, self.engine.learn)
        except Exception as error:
            self.fail(error)
            raise
        finally:
            self._looking_up = None

    async def _maintain(self) -> None:
        """Between cycles: bound memory, flush stores, truncate the journal, forget what was unknown."""
        self._maintained_at = now = time.monotonic()
        if (gone := self._source_watch.look(now, is_suspect=self._intake.take_suspicion())) is not None:
            raise CycleAborted("source_recreated", gone)
        if beyond := self._intake.take_beyond_end():
            raise CycleAborted(
                "source_truncated", f"{self.pipeline.source} was truncated before the next offset of {sorted(beyond)}"
            )
        for key in self._lookup.expired():
            self.engine.forget_schema(key)
        used = await self._in_engine_thread(self.engine.bytes_used)
        budget = self._budget.allowed(self.pipeline.name, used)
        self._metrics.state_bytes.labels("memory").set(used)
        self._note_quarantine()
        if resident_bytes() > (self._settings.streams_memory_mb_max << 20) * _TRIM_SHARE:
            await self._in_engine_thread(give_back)
        self._metrics.state_bytes.labels("rocksdb_cache").set(self._memory.bytes_used())
        checkpoint = (now - self._checkpointed_at) * 1000 > CHECKPOINT_INTERVAL_MS
        truncate = now - self._truncated_at > _TRUNCATE_INTERVAL_S
        if used <= budget and not checkpoint and not truncate:
            return
        await self._end_cycle()
        await self._outcome()
        cuts: dict[int, int] = {}
        try:
            if await self._in_engine_thread(self.engine.spill, budget) or checkpoint:
                self._checkpointed_at = now
                await self._in_engine_thread(self.engine.expire)
                await self._in_engine_thread(give_back)
                await self._in_commit_thread(self._restorer.flush, self._metrics)
            if truncate:
                self._truncated_at = now
                cuts = await self._in_engine_thread(self._journal_cuts)
        except StoreUnavailable as error:
            raise CycleAborted("state_disk", f"the state directory cannot be written: {error}") from error
        if cuts:
            await asyncio.to_thread(self._changelog.truncate, self.pipeline.journal, cuts)

    def _journal_cuts(self) -> dict[int, int]:
        """By partition the journal offset before which nothing is needed any more, where there is something to cut."""
        found = {p: task.truncate_journal_before() for p, task in self.engine.tasks.items()}
        return {partition: cut for partition, cut in found.items() if cut is not None}

    # --- small things -----------------------------------------------------------------------------------------------

    def _source_ids(self) -> frozenset[str]:
        """Ids of the source topic that the tasks' offsets are offsets in."""
        source = self.pipeline.source
        return frozenset(found for task in self.engine.tasks.values() if (found := task.identity.topics.get(source)))

    def _encoders(self) -> list[RowEncoder]:
        require_row_schemas(self._catalog, self.pipeline)
        topics = [(table.topic, table.subject) for table in self.pipeline.tables]
        topics += [(window.topic, window.subject) for window in self.pipeline.windows]
        return [RowEncoder(topic, *self._schema_of(subject)) for topic, subject in topics]

    def _schema_of(self, subject: str) -> tuple[str, int]:
        """Newest committed schema of a subject and its id."""
        schema = self._catalog.latest(subject).text
        return schema, table_schema_id(
            self._registry, subject, schema, guard=self._registry_guard, retrier=self._retrier
        )

    def _require_committer(self) -> Committer:
        if self._committer is None:
            raise StreamsError("the pipeline is not started")
        return self._committer

    async def _in_engine_thread(self, call: Callable[..., T], *arguments: object) -> T:
        return await self._loop.run_in_executor(self._engine_thread, call, *arguments)

    async def _in_commit_thread(self, call: Callable[..., T], *arguments: object) -> T:
        return await self._loop.run_in_executor(self._commit_thread, call, *arguments)

    def fail(self, error: BaseException) -> None:
        """Have the process stopped because of `error`."""
        if isinstance(error, asyncio.CancelledError) or self._stop.is_set():
            return
        if isinstance(error, FencedError):
            self._metrics.fenced.inc()
        self._on_failure(error)


def _share_of(settings: Settings, pipelines: int) -> Settings:
    """Settings with a pipeline's part of the memory for data: what a client has when it is made can't be lent later."""
    data_mb = settings.streams_memory_mb_max - RUNTIME_MB
    return settings.model_copy(update={"streams_memory_mb_max": data_mb // pipelines})
