"""The commit cycle: process and write micro-batches, close the cycle, commit it while the next cycle is processed.

One commit is in flight at a time. The next micro-batch is processed meanwhile, and written once the commit has ended.
An abort drops all state that was never committed, and has it restored.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import structlog

from streams.engine.commit import Committer
from streams.engine.effects import CycleEnd, Effects, TaskCommit
from streams.engine.engine import Engine, MicroBatch
from streams.engine.task import PartitionTask
from streams.errors import FencedError, StreamsError
from streams.limits import CYCLE_RECORDS_MAX
from streams.resilience.retry import Backoff
from streams.sinks.base import CycleAborted, OutputRefused, TopicRecords
from streams.state.store import StoreUnavailable
from streams.worker.account import CycleAccount, CycleReport
from streams.worker.metrics import WorkerMetrics
from streams.worker.ownership import Ownership, Polled
from streams.worker.ports import CommitThread, Outcome, TimeSource
from streams.worker.terms import Terms
from streams.worker.vitals import Vitals

log = structlog.get_logger(__name__)

_ABORTED: Final = Backoff(first_s=0.1, pause_s_max=15.0)

EffectsHook = Callable[[Effects], Effects]
"""Called with the effects of each micro-batch before they are written; its result is written instead."""


def as_they_are(effects: Effects) -> Effects:
    """Return the effects unchanged."""
    return effects


@dataclass(frozen=True, slots=True)
class CycleLimits:
    """Bounds on a cycle: when it ends."""

    interval_ms: int
    bytes_max: int
    """Memory that committing the cycle may take: with long keys, or many of them, a cycle ends earlier."""
    records_max: int = CYCLE_RECORDS_MAX


class CycleTrace(Protocol):
    """Called around processing and commits, for tracing."""

    def processing(self, batch: MicroBatch) -> AbstractContextManager[None]:
        """Context manager around the processing of a micro-batch."""

    def committing(self, records: int) -> AbstractContextManager[None]:
        """Context manager around the commit of everything processed since the last commit; in the commit thread."""


class NoTrace:
    """Does nothing: tracing is off."""

    def processing(self, _: MicroBatch) -> AbstractContextManager[None]:
        """Context manager that does nothing."""
        return nullcontext()

    def committing(self, _: int) -> AbstractContextManager[None]:
        """Context manager that does nothing."""
        return nullcontext()


class CommitCycle:
    """Used by one thread at a time. Only the commit itself runs in another thread, that of `commits`."""

    def __init__(
        self,
        engine: Engine,
        committer: Committer,
        ownership: Ownership,
        terms: Terms,
        commits: CommitThread,
        clock: TimeSource,
        limits: CycleLimits,
        metrics: WorkerMetrics,
        vitals: Vitals,
        report: CycleReport,
        *,
        on_failure: Callable[[BaseException], None],
        hook: EffectsHook = as_they_are,
        trace: CycleTrace | None = None,
    ) -> None:
        """`on_failure` is told of an error with which the worker cannot go on."""
        self._engine = engine
        self._committer = committer
        self._ownership = ownership
        self._terms = terms
        self._commits = commits
        self._clock = clock
        self._limits = limits
        self._metrics = metrics
        self._vitals = vitals
        self._report = report
        self._on_failure = on_failure
        self._hook = hook
        self._trace = trace or NoTrace()
        self._account = CycleAccount()
        self._in_flight: Outcome | None = None
        self._aborts_in_a_row = 0

    @property
    def is_committing(self) -> bool:
        """Whether a commit is in flight. Any thread may ask."""
        in_flight = self._in_flight
        return in_flight is not None and not in_flight.done()

    def step(self, polled: Polled) -> None:
        """Process a micro-batch and write its effects; end the cycle when it is due.

        Raises:
            CycleAborted: state is ahead of what was written: `roll_back` must follow.

        """
        batch = self._ownership.current(polled)
        if batch is not None:
            with self._trace.processing(polled.batch):
                effects = self._process(batch)
            self._write(effects)
        if self._is_due(polled.batch.waited_ms):
            self.end()
        if self._in_flight is not None and self._in_flight.done():
            self.wait_for_commit()

    @property
    def is_at_rest(self) -> bool:
        """Whether no cycle is open or in flight."""
        return self._account.opened_at_s is None and self._in_flight is None

    def _process(self, batch: MicroBatch) -> Effects:
        if self._account.opened_at_s is None and batch.records is not None and not batch.is_large:
            # From when its oldest record may have come, not from its first effect, which has to wait for the commit in
            # flight: a cycle that follows a slow commit ends with it. A worker that lags prefers larger cycles, they
            # cost less.
            self._account.opened_at_s = self._clock.monotonic_s() - batch.waited_ms / 1000
        effects = self._engine.process(batch)
        if batch.records is not None:
            self._vitals.sign()
        return self._hook(effects)

    def _write(self, effects: Effects) -> None:
        if effects.partitions or effects.dead_letters:
            self.wait_for_commit()
            self._account.note(effects, self._clock.monotonic_s())
            self._account.terms |= self._ownership.terms_of(part.partition for part in effects.partitions)
            if effects.records:
                self._metrics.batch_records.observe(effects.records)
            self._committer.write(effects)

    def _is_due(self, waited_ms: int) -> bool:
        """Whether the cycle ends now: it is due, or will be before the next batch is complete."""
        account, limits = self._account, self._limits
        if account.opened_at_s is None:
            return False
        age_ms = (self._clock.monotonic_s() - account.opened_at_s) * 1000
        is_full = account.records >= limits.records_max or self._engine.cycle_bytes() >= limits.bytes_max
        return age_ms + waited_ms / 2 >= limits.interval_ms or is_full

    def end(self) -> None:
        """End the cycle and start its commit, once the previous commit has ended.

        Raises:
            CycleAborted: the previous commit did not happen.

        """
        self.wait_for_commit()
        end = self._engine.close_cycle()
        account, self._account = self._account, CycleAccount()
        if end is None:
            self._account.terms = account.terms  # of a transaction that may be open, and is the next cycle's
            return
        account.terms |= self._ownership.terms_of(commit.partition for commit in end.commits)
        self._in_flight = self._commits.submit(
            partial(self._commit, end, {**self._engine.tasks, **self._engine.adopting}, account)
        )

    def forget(self, commits: Sequence[TaskCommit], beside: Sequence[TopicRecords]) -> None:
        """Commit cycles that delete keys (`Committer.forget`), directly after `end`; state must be reloaded then.

        Raises:
            CycleAborted: it did not happen.

        """
        self.wait_for_commit()
        account, self._account = self._account, CycleAccount()
        terms = account.terms | self._ownership.terms_of(commit.partition for commit in commits)
        now_ms = self._clock.wall_ms()
        self._in_flight = self._commits.submit(
            partial(self._committer.forget, commits, beside, now_ms, lambda: self._terms.claim(terms))
        )
        self.wait_for_commit()
        self._vitals.sign()

    def wait_for_commit(self) -> None:
        """Wait until no commit is in flight.

        Raises:
            CycleAborted: the commit that was in flight did not happen.

        """
        if self._in_flight is not None:
            in_flight, self._in_flight = self._in_flight, None
            in_flight.result()
            self._aborts_in_a_row = 0

    def settle(self) -> None:
        """Wait until no commit is in flight, whatever its outcome."""
        try:
            self.wait_for_commit()
        except (CycleAborted, StreamsError) as error:
            log.warning("the last cycle was not committed", error=str(error))

    def roll_back(self, error: CycleAborted) -> None:
        """Abort, drop uncommitted state, and restore it after a pause; its records are consumed again."""
        self.settle()
        self._account = CycleAccount()
        self._metrics.aborts.labels(error.reason).inc()
        self._aborts_in_a_row += 1
        if isinstance(error, OutputRefused) and error.refused:
            self._engine.refusals.note(error.refused)
            self._aborts_in_a_row = 1  # each one that is found is progress
        after_s = _ABORTED.jittered_s(self._aborts_in_a_row)
        self._vitals.sign(after_s)
        log.warning(
            "cycle aborted: its records run again", reason=error.reason, error=str(error), after_s=round(after_s, 2)
        )
        try:
            self._committer.abort()
        except FencedError as fenced:
            self._on_failure(fenced)
        self._ownership.reload(after_s=after_s)

    def _commit(self, end: CycleEnd, tasks: dict[int, PartitionTask], account: CycleAccount) -> None:
        """Run the steps of the commit; called in the commit thread."""
        started_s = self._clock.monotonic_s()
        with self._trace.committing(account.records):
            try:
                self._committer.commit(end, tasks, self._clock.wall_ms(), lambda: self._terms.claim(account.terms))
            except StoreUnavailable as error:  # it is committed, and not applied: reload it when the disk lets us
                raise CycleAborted("state_disk", f"the state directory cannot be written: {error}") from error
        self._metrics.commit_seconds.observe(self._clock.monotonic_s() - started_s)
        self._report.committed(account, end)
        self._vitals.sign()
