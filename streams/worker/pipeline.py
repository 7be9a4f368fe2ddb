"""One flow in one worker: the event loop and the threads around its core (`streams.worker.core`).

The intake thread polls the consumer; the core's thread processes and writes; the commit thread commits, so that the
next micro-batch is processed while a commit is in flight.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import structlog

from streams.batch.lanes import all_lanes, lane_of
from streams.batch.records import Records
from streams.clock import SteadyClock, SystemTime, monotonic_ms
from streams.engine.commit import Failpoint
from streams.engine.engine import MicroBatch
from streams.engine.task import PartitionTask
from streams.errors import FencedError
from streams.flow.declaration import Pipeline
from streams.growth.layouts import Layouts
from streams.limits import POLL_BLOCKED_MS_MAX, REST_MS_MAX
from streams.operators.trace import NEVER
from streams.resilience.retry import Pause, Retrier, quietly
from streams.sources.kafka.range import RangeIntake
from streams.worker.account import CycleReport
from streams.worker.background import BackgroundRestores, SchemaLookups
from streams.worker.core import PipelineCore, Ports
from streams.worker.core_thread import CoreThread
from streams.worker.cycle import EffectsHook, as_they_are
from streams.worker.growth_news import KafkaGrowthNews
from streams.worker.memory import ProcessMemory
from streams.worker.ownership import Polled
from streams.worker.remarks import SourceRemarks
from streams.worker.replay import Replay
from streams.worker.schemas import ExpiriesOfAll
from streams.worker.snapshots import SnapshotThread
from streams.worker.status import PipelineStatus
from streams.worker.tracing import Tracing
from streams.worker.vitals import Vitals
from streams.worker.wiring import Shared, Wiring

log = structlog.get_logger(__name__)


class _Started(NamedTuple):
    """What exists once a flow is started."""

    wiring: Wiring
    core: PipelineCore
    thread: CoreThread
    restores: BackgroundRestores
    lookups: list[SchemaLookups]
    """One per input."""
    status: PipelineStatus
    snapshots: SnapshotThread | None


class PipelineRunner:
    """Runs one flow on the event loop: call `start`, then `intake_loop`, and `step` from the agent, at last `stop`."""

    def __init__(
        self,
        pipeline: Pipeline,
        shared: Shared,
        *,
        partitions: int,
        failpoint: Failpoint,
        on_failure: Callable[[BaseException], None],
        hook: EffectsHook = as_they_are,
        tracing: Tracing | None = None,
        replay: Replay | None = None,
    ) -> None:
        """`partitions`: the number that the flow's state is divided into.

        `on_failure`: stops the process for that reason.

        `replay`: a range of the logs that is processed alone; the loop ends after it.
        """
        self.pipeline = pipeline
        self._shared = shared
        self.partitions = partitions
        """The number of partitions that the state is divided into, or was before it was grown."""
        self._failpoint = failpoint
        self._on_failure = on_failure
        self._hook = hook
        self._replay = replay
        self._trace = None if tracing is None else tracing.of_pipeline(pipeline)
        self._stop = threading.Event()
        self.vitals = Vitals()
        """Signs of life for the watchdog: progress, and waits that are reported."""
        self._clock = SteadyClock()
        self._growth = KafkaGrowthNews(shared.settings, pipeline, partitions=partitions)
        self._remarks = SourceRemarks(pipeline, shared.metrics, partitions=partitions, layouts=self._growth.layouts)
        self._intake_thread, self._commit_thread = (
            ThreadPoolExecutor(1, f"{pipeline.name}-{work}") for work in ("intake", "commit")
        )
        self._started: _Started | None = None
        self._told: tuple[object, int, int] | None = None
        """The idle times and generation that the last step got, and when, in monotonic milliseconds."""

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect: schema ids of the tables, the producer, the group.

        Raises:
            StreamsError: only a person can correct the cause; the message names it.

        """
        self._loop = asyncio.get_running_loop()
        wiring = await asyncio.to_thread(self._wire)
        committer = await asyncio.to_thread(wiring.committer, self._failpoint)
        thread = CoreThread(self.pipeline.name, on_failure=self.fail)
        restores = BackgroundRestores(wiring.restorer, thread, on_failure=self.fail)
        time_source, metrics, settings = SystemTime(), self._shared.metrics, self._shared.settings
        report = CycleReport(
            self.pipeline, metrics, time_source, partitions=self.partitions, skew_ms_max=settings.streams_skew_ms_max
        )
        ports = Ports(
            time_source, self._commit_thread, thread, wiring.intake, restores, wiring.changelog,
            ExpiriesOfAll(wiring.lookups), wiring.source, ProcessMemory(self._shared.memory), self._growth,
            wiring.forwarded, forgets=wiring.forgets,
        )  # fmt: skip
        core = PipelineCore(
            self.pipeline, wiring.engine, committer, ports, wiring.limits, metrics, self.vitals, self._remarks, report,
            self._shared.budget,
            memory_bytes_max=settings.streams_memory_mb_max << 20,
            is_stopping=self._stop.is_set,
            on_failure=self._fail_soon,
            growth_quiet_ms=settings.streams_growth_quiet_ms,
            hook=self._hook,
            trace=self._trace,
        )  # fmt: skip
        wiring.listener.target = core.listener
        lookups = [
            SchemaLookups(lookup, wiring.engine, thread, on_failure=self.fail, input_number=number)
            for number, lookup in enumerate(wiring.lookups)
        ]
        status = PipelineStatus(
            self.pipeline.name, [one.topic for one in self.pipeline.inputs], core, wiring.intake, wiring.restorer,
            self._remarks, report, is_stepping=thread.step_lock.locked,
        )  # fmt: skip
        snapshots = wiring.snapshots(self._failpoint, self._fail_soon)
        self._started = _Started(wiring, core, thread, restores, lookups, status, snapshots)
        self._growth.start()
        await self._loop.run_in_executor(self._commit_thread, wiring.transactions.reopen)
        await self._loop.run_in_executor(self._intake_thread, wiring.intake.subscribe)
        wiring.forgets.start()
        if snapshots is not None:
            snapshots.start()

    def _wire(self) -> Wiring:
        def on_pause(pause: Pause) -> None:
            self.vitals.sign(pause.pause_s)

        return Wiring(
            self.pipeline,
            self._shared,
            self._remarks,
            Retrier(self._stop, on_pause=on_pause),
            growth=self._growth,
            partitions=self.partitions,
            # A restore that waits is told of, and repeated, by the restorer: its reader need not.
            quiet=Retrier(self._stop, say=quietly, on_pause=on_pause),
            on_progress=self.vitals.sign,
            over=None if self._replay is None else self._replay.range,
        )

    def leave_when_stopped(self) -> None:
        """Have `stop` leave the group at once, so that others take over the partitions. Any thread."""
        if self._started is not None:
            self._started.wiring.intake.leave_when_closed()

    def stopping(self) -> None:
        """Make `intake_loop` end and all waits short."""
        self._stop.set()

    async def stop(self) -> None:
        """Finish or abort the cycle, move state to the stores, leave the group. `intake_loop` must have ended."""
        if self._started is not None:
            wiring, core, thread, restores, lookups, _, snapshots = self._started
            restores.close()
            if snapshots is not None:
                await asyncio.to_thread(snapshots.stop)
            for each in lookups:
                each.close()
            wiring.watch_source_no_more()
            await thread.run(core.stop)
            await self._loop.run_in_executor(self._intake_thread, wiring.intake.close)
            await self._loop.run_in_executor(self._intake_thread, wiring.forwarded.close)
            await self._loop.run_in_executor(self._commit_thread, wiring.transactions.close)
            await asyncio.to_thread(wiring.close)
            await asyncio.to_thread(self._growth.close)
            thread.close()
        for executor in (self._commit_thread, self._intake_thread):
            executor.shutdown(wait=False)

    def fail(self, error: BaseException) -> None:
        """Stop the process because of `error`."""
        if isinstance(error, asyncio.CancelledError) or self._stop.is_set():
            return
        if isinstance(error, FencedError):
            self._shared.metrics.fenced.inc()
        self._on_failure(error)

    def _fail_soon(self, error: BaseException) -> None:
        """Stop the process because of `error`; unlike `fail`, any thread may call it."""
        self._loop.call_soon_threadsafe(self.fail, error)

    # --- what it is at ----------------------------------------------------------------------------------------------

    def remarks(self) -> list[str]:
        """Problems of the source that do not stop this flow."""
        return [] if self._started is None else self._started.status.remarks()

    def unready(self) -> str | None:
        """Why this flow does not process all partitions that it was given; None when it does."""
        if self._started is None:
            return f"no partition of {self.pipeline.source} is assigned"
        return self._started.status.unready()

    def at_work(self) -> Mapping[int, tuple[int, int]]:
        """By partition that should be processed now: offset up to which all is taken, and the last one taken + 1."""
        if self._started is None or self._stop.is_set():
            return {}
        return self._started.status.at_work()

    def lags(self, at_work: Mapping[int, tuple[int, int]]) -> dict[int, int]:
        """Records in the log that are not committed, by partition; partitions without any are left out.

        Raises:
            StreamsError: the broker does not answer.

        """
        return {} if self._started is None else self._started.wiring.lag_probe.lags(at_work)

    def tasks(self) -> Mapping[int, PartitionTask]:
        """Running tasks by partition. Any thread may ask."""
        return {} if self._started is None or self._stop.is_set() else dict(self._started.core.engine.tasks)

    def layouts(self) -> Layouts | None:
        """The layouts of the flow; None: no growth is known. Any thread may ask."""
        return self._growth.layouts()

    def waits_for(self) -> str:
        """What the flow is busy with, as far as it knows."""
        return f"{self.pipeline.name}: its start" if self._started is None else self._started.status.waits_for()

    # --- work -------------------------------------------------------------------------------------------------------

    async def intake_loop(self, send: Callable[[Polled], "asyncio.Future[object]"]) -> None:
        """Poll and hand over micro-batches until stopped; goes on polling, paused, while the agent lags."""
        while not self._stop.is_set():
            if self._replay is not None and await self._is_over(self._replay):
                return
            polled = await self._poll()
            if self._says_nothing(polled.batch):
                continue
            handed_over = asyncio.ensure_future(send(polled))
            while True:
                done, _ = await asyncio.wait({handed_over}, timeout=POLL_BLOCKED_MS_MAX / 1000)
                if done or self._stop.is_set():
                    break
                await self._poll_paused()
            if not handed_over.done():
                handed_over.cancel()

    async def _is_over(self, replay: Replay) -> bool:
        """Whether the range is processed; also paces the replay."""
        started = self._require_started()
        engine, intake = started.core.engine, started.wiring.intake
        tasks = dict(engine.tasks)
        reached = {
            lane_of(number, partition): position.offset_next
            for partition, task in tasks.items()
            for number, position in enumerate(list(task.positions))
        }
        replay.on_progress(reached)
        is_at_end = isinstance(intake, RangeIntake) and replay.range.is_final and intake.is_at_end(reached)
        if is_at_end and not engine.waiting_partitions:
            numbers = range(len(self.pipeline.inputs)) if replay.range.is_closed else ()
            is_left = any(task.next_timer(number) != NEVER for task in tasks.values() for number in numbers)
            if not is_left and started.core.is_at_rest and len(tasks) == self.partitions:
                replay.over.set()
                return True
        await asyncio.sleep(replay.pace.pause_s(time.process_time(), time.monotonic()))
        return False

    def _says_nothing(self, batch: MicroBatch) -> bool:
        """Whether a step can be skipped: nothing arrived, and the last step left nothing to do."""
        now_ms = monotonic_ms()
        if (
            self._told is not None
            and self._require_started().core.is_at_rest
            and batch.records is None
            and batch.forwarded is None
            and self._told[:2] == (batch.idle, batch.generation)
            and now_ms - self._told[2] < REST_MS_MAX
        ):
            return True
        self._told = (batch.idle, batch.generation, now_ms)
        return False

    async def step(self, polled: Polled) -> None:
        """Process a micro-batch, write its effects, and commit when due.

        Raises:
            StreamsError: the worker cannot go on; the process is about to end.

        """
        started = self._require_started()
        try:
            await started.thread.run(partial(started.core.step, polled))
        except Exception as error:
            self.fail(error)
            raise
        for lookups in started.lookups:
            lookups.begin()

    async def _poll(self) -> Polled:
        started = self._require_started()
        intake = started.wiring.intake
        polled_ns, began_ms = time.time_ns(), monotonic_ms()
        (records, idle, generation), (forwarded, forwarded_idle), polled_ms = await self._loop.run_in_executor(
            self._intake_thread, started.wiring.poll
        )
        self._remarks.unreadable(intake.unreadable, monotonic_ms())
        batch = MicroBatch(
            records, int(time.time() * 1000), idle, generation, self._clock.now_ms(), forwarded, forwarded_idle,
            polled_ms, waited_ms=polled_ms - began_ms,
        )  # fmt: skip
        if self._trace is not None and records is not None:
            self._trace.received(batch, records, polled_ns)
        return started.core.polled(batch)

    async def _poll_paused(self) -> None:
        """Poll without taking records, to stay in the group: the agent lags."""
        started = self._require_started()
        intake, owned = started.wiring.intake, started.core.ownership.owned
        paused = self._shared.metrics.paused_partitions.labels("backpressure")
        intake.pause_only(frozenset(all_lanes(owned, len(self.pipeline.inputs))))
        paused.set(len(owned))
        records, _, generation = await self._loop.run_in_executor(self._intake_thread, intake.poll)
        if records is not None:  # fetched before the pause took hold: consumed again from where they are
            self._consume_again(records, generation)
        paused.set(0)
        engine = started.core.engine
        intake.pause_only(engine.waiting_partitions | engine.own_full)

    def _consume_again(self, records: Records, generation: int) -> None:
        intake = self._require_started().wiring.intake
        for number in np.unique(records.partition).tolist():
            offset_next = int(records.offset[records.partition == number][0])
            intake.start_again(number, offset_next, generation)

    def _require_started(self) -> _Started:
        if self._started is None:
            raise RuntimeError("the flow is not started")
        return self._started
