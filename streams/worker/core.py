"""The core of one flow in a worker: combines ownership, commit cycle and maintenance.

It is synchronous, and uses Kafka clients, threads and clocks only through `streams.worker.ports`. The worker runs
it in one thread, the simulation (`tests/simulation`) runs the same objects with everything that can go wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from streams.engine.commit import Committer
from streams.engine.engine import Engine, MicroBatch
from streams.flow.declaration import Pipeline
from streams.limits import GROWTH_QUIET_MS
from streams.sinks.base import CycleAborted
from streams.worker.account import CycleReport
from streams.worker.budget import MemoryBudget
from streams.worker.cycle import CommitCycle, CycleLimits, CycleTrace, EffectsHook, as_they_are
from streams.worker.forgetter import Forgetter
from streams.worker.growing import Growing
from streams.worker.maintenance import Maintenance
from streams.worker.metrics import WorkerMetrics
from streams.worker.ownership import Ownership, Polled
from streams.worker.parents import ParentsAwaited
from streams.worker.ports import (
    BetweenSteps,
    CommitThread,
    ForgetNews,
    ForwardedCommands,
    GrowthNews,
    HostMemory,
    IntakeCommands,
    NeverAsked,
    NeverGrown,
    SchemaExpiry,
    SourceCheck,
    Stores,
    TimeSource,
    Truncation,
)
from streams.worker.rebalance import RebalanceListener
from streams.worker.remarks import SourceRemarks
from streams.worker.terms import Terms
from streams.worker.vitals import Vitals

_NEVER_GROWN: Final = NeverGrown()
_NEVER_ASKED: Final = NeverAsked()


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that the core is connected to."""

    clock: TimeSource
    commits: CommitThread
    between_steps: BetweenSteps
    intake: IntakeCommands
    stores: Stores
    journal: Truncation
    schemas: SchemaExpiry
    source: SourceCheck
    memory: HostMemory
    growth: GrowthNews = _NEVER_GROWN
    forwarded: ForwardedCommands = _NEVER_GROWN
    forgets: ForgetNews = _NEVER_ASKED


class PipelineCore:
    """`step`, `stop` and what `listener` hands to `BetweenSteps`: one call at a time. `listener` itself: in a poll."""

    def __init__(
        self,
        pipeline: Pipeline,
        engine: Engine,
        committer: Committer,
        ports: Ports,
        limits: CycleLimits,
        metrics: WorkerMetrics,
        vitals: Vitals,
        remarks: SourceRemarks,
        report: CycleReport,
        budget: MemoryBudget,
        *,
        memory_bytes_max: int,
        is_stopping: Callable[[], bool],
        on_failure: Callable[[BaseException], None],
        growth_quiet_ms: int = GROWTH_QUIET_MS,
        hook: EffectsHook = as_they_are,
        trace: CycleTrace | None = None,
    ) -> None:
        """`memory_bytes_max`: of the whole process. `on_failure`: see `CommitCycle`; `is_stopping`: see `Ownership`."""
        self.engine = engine
        self.vitals = vitals
        self._intake = ports.intake
        self._paused = metrics.paused_partitions
        self._terms = terms = Terms()
        self.ownership = Ownership(engine, terms, ports.intake, ports.stores, ports.forwarded, is_stopping=is_stopping)
        self.cycle = CommitCycle(
            engine, committer, self.ownership, terms, ports.commits, ports.clock, limits, metrics, vitals, report,
            on_failure=on_failure, hook=hook, trace=trace,
        )  # fmt: skip
        self.listener = RebalanceListener(
            terms, self.ownership, self.cycle, remarks, ports.between_steps, on_failure=on_failure
        )
        self._forwarded, self._clock = ports.forwarded, ports.clock
        self.parents = ParentsAwaited()
        self.is_at_rest = False
        """Whether the last step left nothing to do until new input arrives. Any thread may ask."""
        self._growing = Growing(
            pipeline, engine, self.cycle, self.ownership, ports.growth, ports.clock, quiet_ms=growth_quiet_ms
        )
        self._forgetter = Forgetter(pipeline, engine, self.cycle, self.ownership, ports.forgets, ports.clock)
        self._maintenance = Maintenance(
            pipeline, engine, self.cycle, ports.stores, ports.journal, ports.schemas, ports.source, ports.memory,
            budget, ports.clock, metrics, memory_bytes_max=memory_bytes_max, may_truncate=self._growing.may_truncate,
        )  # fmt: skip

    def polled(self, batch: MicroBatch) -> Polled:
        """A polled micro-batch with the terms that run now: call it before the next poll."""
        return Polled(batch, self._terms.running())

    def step(self, polled: Polled) -> None:
        """Process a micro-batch, write its effects, and commit and run maintenance when due.

        A cycle that cannot be committed is rolled back, and its records are consumed again.

        Raises:
            StreamsError: the worker cannot go on.

        """
        try:
            self.cycle.step(polled)
            self._growing.run(polled.batch.idle)
            self._maintenance.run_if_due()
            self._forgetter.run()
        except CycleAborted as error:
            self.cycle.roll_back(error)
        self._pause()

    def stop(self) -> None:
        """Commit what was processed, and release all partitions."""
        self.listener.release(sorted(self.ownership.owned))
        self.cycle.settle()

    def _pause(self) -> None:
        """Pause partitions that wait for a schema, and those with many records that wait for their parent."""
        waiting = self.engine.waiting_partitions
        missing, has_grown = len(self.ownership.missing), self.engine.has_grown
        self.is_at_rest = self.cycle.is_at_rest and not (waiting or missing or has_grown or self.engine.adopting)
        self._intake.pause_only(waiting | self.engine.own_full)
        self._forwarded.pause_only(self.engine.forwarded_full)
        self.parents.look(self.engine.own_waiting, self.engine.tasks, self._clock.monotonic_s())
        if has_grown:
            self._paused.labels("waits_for_parent").set(len(self.parents.waited_for))
        self._paused.labels("schema_registry").set(len(waiting))
        self._paused.labels("refused_by_output").set(len(self.ownership.stopped))
        self._paused.labels("restoring").set(missing)
