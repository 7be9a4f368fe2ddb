"""Maintenance between cycles: bound memory, flush stores, truncate the journal, expire unknown schemas."""

from collections.abc import Callable
from typing import Final

from streams.engine.engine import Engine
from streams.flow.declaration import Pipeline
from streams.limits import CHECKPOINT_INTERVAL_MS
from streams.operators.quarantine.operator import QuarantineOperator
from streams.sinks.base import CycleAborted
from streams.state.store import StoreUnavailable
from streams.worker.budget import MemoryBudget
from streams.worker.cycle import CommitCycle
from streams.worker.metrics import WorkerMetrics
from streams.worker.ports import HostMemory, SchemaExpiry, SourceCheck, Stores, TimeSource, Truncation
from streams.worker.quarantined import QuarantineNews

_INTERVAL_S: Final = 2.0
_INTERVAL_OVER_BUDGET_S: Final = 0.2
_INTERVAL_TIGHT_S: Final = 0.5
"""Interval while the process uses more memory than it may."""
_TRUNCATE_INTERVAL_S: Final = 60.0
_TRIM_SHARE: Final = 0.6
"""Share of the memory setting: above it, free memory is given back to the system."""


class Maintenance:
    """Used by one thread at a time, between steps."""

    def __init__(
        self,
        pipeline: Pipeline,
        engine: Engine,
        cycle: CommitCycle,
        stores: Stores,
        journal: Truncation,
        schemas: SchemaExpiry,
        source: SourceCheck,
        memory: HostMemory,
        budget: MemoryBudget,
        clock: TimeSource,
        metrics: WorkerMetrics,
        *,
        memory_bytes_max: int,
        may_truncate: Callable[[int], bool],
    ) -> None:
        """`memory_bytes_max`: of the whole process; `budget`: for the state of the tasks.

        `may_truncate`: whether nobody but the task of a partition needs its journal.
        """
        self._may_truncate = may_truncate
        self._pipeline = pipeline
        self._engine = engine
        self._cycle = cycle
        self._stores = stores
        self._journal = journal
        self._schemas = schemas
        self._source = source
        self._memory = memory
        self._budget = budget
        self._clock = clock
        self._metrics = metrics
        self._resident_bytes_max = int(memory_bytes_max * _TRIM_SHARE)
        self._quarantined = QuarantineNews(pipeline, metrics)
        self._forwarded_cut_at: dict[str, dict[int, int]] = {}
        self._done_at_s = self._flushed_at_s = self._truncated_at_s = clock.monotonic_s()

    def run_if_due(self) -> None:
        """Do what is due: every two seconds, and more often while too much memory is used.

        Raises:
            CycleAborted: the disk refuses, the source is another one, or a commit did not happen.

        """
        used = self._engine.bytes_used()
        is_over = used > self._budget.allowed(self._pipeline.name, used)
        now_s = self._clock.monotonic_s()
        if now_s - self._done_at_s > self._interval_s(is_over=is_over):
            self._done_at_s = now_s
            self._run(now_s)

    def _interval_s(self, *, is_over: bool) -> float:
        if is_over:
            return _INTERVAL_OVER_BUDGET_S
        return _INTERVAL_TIGHT_S if self._budget.is_tight else _INTERVAL_S

    def _run(self, now_s: float) -> None:
        self._source.require_unchanged(now_s)
        for key in self._schemas.expired():
            self._engine.forget_schema(key)
        resident = self._memory.resident_bytes()
        self._budget.follow(resident)
        if resident > self._resident_bytes_max:
            self._memory.give_back()
        used = self._engine.bytes_used()
        budget = self._budget.allowed(self._pipeline.name, used)
        self._metrics.state_bytes.labels("memory").set(used)
        self._metrics.state_bytes.labels("rocksdb_cache").set(self._memory.cache_bytes())
        tasks = self._engine.tasks.values()
        self._quarantined.tell(key for task in tasks for key in task.operator(QuarantineOperator).breakers.open_keys)
        flush_is_due = (now_s - self._flushed_at_s) * 1000 > CHECKPOINT_INTERVAL_MS
        truncation_is_due = now_s - self._truncated_at_s > _TRUNCATE_INTERVAL_S
        if used <= budget and not flush_is_due and not truncation_is_due:
            return
        self._cycle.end()
        self._cycle.wait_for_commit()
        cuts: dict[int, int] = {}
        consumed: dict[str, dict[int, int]] = {}
        read: dict[str, dict[int, int]] = {}
        try:
            if self._engine.spill(budget) or flush_is_due:
                self._flushed_at_s = now_s
                self._engine.expire()
                self._memory.give_back()
                self._stores.flush()
            if truncation_is_due:
                self._truncated_at_s = now_s
                cuts, read, consumed = self._journal_cuts(), self._forwarded_cuts(), self._consumed()
        except StoreUnavailable as error:
            raise CycleAborted("state_disk", f"the state directory cannot be written: {error}") from error
        if cuts:
            self._journal.truncate(self._pipeline.journal, cuts)
        for topic, before in (*read.items(), *consumed.items()):
            self._journal.truncate(topic, before)

    def _consumed(self) -> dict[str, dict[int, int]]:
        """Return for topics between two stages, by partition, the offset before which all is consumed and committed."""
        found: dict[str, dict[int, int]] = {}
        for number, one in enumerate(self._pipeline.inputs):
            if one.is_internal:
                offsets = {p: task.offsets_next[number] for p, task in self._engine.tasks.items() if task.is_settled}
                found[one.topic] = {partition: offset for partition, offset in offsets.items() if offset > 0}
        return {topic: before for topic, before in found.items() if before}

    def _forwarded_cuts(self) -> dict[str, dict[int, int]]:
        """By partition of each input's forwarded topic, the offset before which records are processed and committed.

        Without those that are truncated already. Only the task of a partition reads them.
        """
        cuts: dict[str, dict[int, int]] = {}
        for number, topic in enumerate(self._pipeline.forwarded_topics):
            found = {p: task.checkpoint.growth.of(number).forwarded_next for p, task in self._engine.tasks.items()}
            cut_at = self._forwarded_cut_at.setdefault(topic, {})
            if due := {p: at for p, at in found.items() if at > cut_at.get(p, 0)}:
                cuts[topic] = due
                cut_at |= due
        return cuts

    def _journal_cuts(self) -> dict[int, int]:
        """By partition the journal offset before which nothing is needed any more, where there is something to cut."""
        found = {
            p: task.maintenance.truncate_journal_before()
            for p, task in self._engine.tasks.items()
            if self._may_truncate(p)
        }
        return {partition: cut for partition, cut in found.items() if cut is not None}
