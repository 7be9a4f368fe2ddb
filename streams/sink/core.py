"""Drives a sink: polls the topic, has batches written one at a time, and waits while a target is away.

Everything here happens in the thread that calls `step`; what takes long (opening, writing) is given to `submit`. So the
process stays in the group while the target does not answer, and a hanging target stalls nothing else.
"""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import structlog

from streams.batch.records import Records
from streams.errors import StreamsError
from streams.limits import REVOKE_TIMEOUT_MS
from streams.resilience.breaker import BreakerOpen
from streams.resilience.retry import Backoff
from streams.sink.metrics import SinkMetrics
from streams.sink.writing import Writer, Written
from streams.sinks.target import TakenOver, Target, TargetMismatch, TargetUnavailable
from streams.sources.base import Source

log = structlog.get_logger(__name__)

BACKOFF: Final = Backoff(first_s=0.25, pause_s_max=15.0)
_MISMATCH: Final = Backoff(first_s=5.0, pause_s_max=60.0)
_TAKEN_OVER: Final = Backoff(first_s=1.0, pause_s_max=30.0)
_TARGET_FAILS: Final = "the target cannot be used now: records wait, nothing is lost"
_OTHERS_FAIL: Final = "Kafka or the registry cannot be used now: records wait, nothing is lost"
_SLOW_S: Final = 30.0
"""A write that takes longer is named by `/readyz`."""


@dataclass(frozen=True, slots=True)
class SinkLimits:
    """How much is collected for a write."""

    rows: int
    """A batch is written when it has so many records, or is `linger_ms` old."""
    bytes_max: int
    """Of a batch; twice as much is gathered at most, then the topic is paused."""
    linger_ms: int


@dataclass(slots=True)
class _Task:
    kind: Literal["prepare", "open", "check", "write"]
    future: "Future[Any]"
    since_s: float


class SinkCore:
    """One sink in one process. A rebalance listener of its source."""

    def __init__(
        self,
        name: str,
        target: Target,
        writer: Writer,
        *,
        bounds: Callable[[int], tuple[int, int]],
        submit: Callable[[Callable[[], Any]], "Future[Any]"],
        limits: SinkLimits,
        metrics: SinkMetrics,
        commit: Callable[[Mapping[int, int]], None] = lambda _: None,
        now_s: Callable[[], float],
        wall_ms: Callable[[], int],
    ) -> None:
        """`bounds` of a partition: its first offset, and the one after its last record.

        `submit` has something done in another thread, one after the other. `commit` tells the group of offsets that
        the target has, for others to see: nothing depends on it.
        """
        self._name, self._target, self._writer = name, target, writer
        self._bounds, self._submit, self._limits, self._metrics = bounds, submit, limits, metrics
        self._commit, self._now_s, self._wall_ms = commit, now_s, wall_ms
        self._source: Source | None = None
        self._wanted: set[int] = set()
        """Assigned partitions that are to be taken over in the target."""
        self._open: set[int] = set()
        """Partitions that were taken over, and are read."""
        self._gathered: list[Records] = []
        self._gathered_since_s = 0.0
        self._writing: Records | None = None
        """The batch that is being written, or is to be written again."""
        self._task: _Task | None = None
        self._must_prepare = True
        self._was_prepared = False
        self._must_check = False
        """Whether it is unknown what the target has of the batch."""
        self._failures = 0
        self._takeovers = 0
        self._not_before_s = 0.0
        self._open_after_s = 0.0
        self._generation = 0
        self.trouble: str | None = None
        """Why nothing is written now; any thread may read it."""

    def attach(self, source: Source) -> None:
        """The source that is read; before the first `step`."""
        self._source = source

    # --- sources.base.RebalanceListener -----------------------------------------------------------------------------

    def assigned(self, partitions: list[int]) -> None:
        """Take over these partitions in the target."""
        self._wanted |= set(partitions)

    def revoked(self, partitions: list[int]) -> None:
        """Wait, within a bounded time, for what is being written, and release these."""
        if self._task is not None:
            try:
                self._task.future.exception(REVOKE_TIMEOUT_MS / 1000)
            except NotDone:
                log.warning("the target has not answered in time; its rows are fenced", sink=self._name)
            else:
                self._finish()
        self._drop(partitions)

    def lost(self, partitions: list[int]) -> None:
        """Release these: others have them."""
        self._drop(partitions)

    def noted(self, membership: object | None) -> None:
        """Ignored: the target fences, not the group."""

    # --- steps ------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Process what arrived, and start what is due. Returns within about `BATCH_WAIT_MS`.

        Raises:
            TargetMismatch: the target is not as declared, right from the start.
            StreamsError: the source is of no more use.

        """
        source = self._required()
        self._finish()
        polled = source.poll()
        if polled.records is not None:
            self._gather(polled.records)
        self._begin(is_final=False)
        self._brake(source)
        self._metrics.unwritten_seconds.set(self._unwritten_s())

    def drain(self, deadline_s: float) -> None:
        """Write what was collected, until `deadline_s` of the clock: before the process ends."""
        while self._now_s() < deadline_s and (self._task or self._writing or self._gathered):
            if self._task is None:
                self._begin(is_final=True)
            if self._task is None:
                return  # it waits for the target
            try:
                self._task.future.exception(max(0.0, deadline_s - self._now_s()))
            except NotDone:
                return
            self._finish()
            if self.trouble is not None:
                return

    @property
    def is_reading(self) -> bool:
        """Whether at least one partition is read."""
        return bool(self._open)

    def unready(self) -> str | None:
        """Why records are not written now; None when they are. Any thread."""
        if self.trouble is not None:
            return self.trouble
        task = self._task
        if task is not None and self._now_s() - task.since_s > _SLOW_S:
            return f"the target has not answered for {self._now_s() - task.since_s:.0f} s ({task.kind})"
        if not self._was_prepared:
            return "the target is being prepared"
        if not self._open:
            return "no partition is assigned yet"
        return None

    # --- what has come ----------------------------------------------------------------------------------------------

    def _gather(self, records: Records) -> None:
        mine = np.isin(records.partition, list(self._open))
        if not mine.all():
            records = records.take(np.flatnonzero(mine))
        if len(records):
            if not self._gathered:
                self._gathered_since_s = self._now_s()
            self._gathered.append(records)

    def _size(self) -> tuple[int, int]:
        rows = sum(len(part) for part in self._gathered)
        return rows, sum(sum(len(value or b"") for value in part.value) for part in self._gathered)

    def _brake(self, source: Source) -> None:
        """Pause reading while too much is collected."""
        rows, size = self._size()
        is_full = rows >= 2 * self._limits.rows or size >= self._limits.bytes_max
        paused = frozenset(self._open) if is_full else frozenset()
        source.pause_only(paused)
        reason = "target" if self.trouble is not None else "backpressure"
        for each in ("target", "backpressure"):
            self._metrics.paused_partitions.labels(each).set(len(paused) if each == reason else 0)

    def _unwritten_s(self) -> float:
        waiting = [part for part in (self._writing, *self._gathered) if part is not None and len(part)]
        if not waiting:
            return 0.0
        oldest_ms = min(int(part.timestamp_ms.min()) for part in waiting)
        return max(0.0, (self._wall_ms() - oldest_ms) / 1000)

    # --- what is due ------------------------------------------------------------------------------------------------

    def _begin(self, *, is_final: bool) -> None:
        now_s = self._now_s()
        if self._task is not None or now_s < self._not_before_s:
            return
        if self._must_prepare:
            self._start("prepare", self._target.prepare)
        elif self._wanted and now_s >= self._open_after_s:
            wanted = frozenset(self._wanted)
            self._start("open", lambda: self._opened(wanted))
        elif self._must_check and self._writing is not None:
            partitions = frozenset(np.unique(self._writing.partition).tolist())
            self._start("check", lambda: self._target.positions(partitions))
        elif (records := self._due(now_s, is_final=is_final)) is not None:
            self._writing = records
            self._start("write", lambda: self._writer.write(records))

    def _due(self, now_s: float, *, is_final: bool) -> Records | None:
        """The batch to write now, if it is due."""
        if self._writing is not None:
            return self._writing
        if not self._gathered:
            return None
        rows, size = self._size()
        is_old = (now_s - self._gathered_since_s) * 1000 >= self._limits.linger_ms
        if not (is_final or is_old or rows >= self._limits.rows or size * 2 >= self._limits.bytes_max):
            return None
        gathered, self._gathered = self._gathered, []
        return Records.concat(gathered)

    def _start(self, kind: Literal["prepare", "open", "check", "write"], work: Callable[[], Any]) -> None:
        self._task = _Task(kind, self._submit(work), self._now_s())

    def _opened(self, partitions: Collection[int]) -> dict[int, tuple[int, tuple[int, int]]]:
        """Take partitions over: by partition, where to go on, and its bounds. In the other thread."""
        bounds = {partition: self._bounds(partition) for partition in partitions}
        offsets = self._target.open(partitions)
        return {partition: (offsets[partition], bounds[partition]) for partition in partitions}

    # --- what has become of it --------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Process the result of what has ended in the other thread."""
        task = self._task
        if task is None or not task.future.done():
            return
        self._task = None
        try:
            result = task.future.result()
        except TakenOver as error:
            self._be_taken_over(error.partitions)
        except TargetMismatch as error:
            if not self._was_prepared:
                raise
            self._must_prepare = True
            self._fail(str(error), _MISMATCH)
        except BreakerOpen as error:
            self._not_before_s = self._now_s() + error.retry_in_s
        except TargetUnavailable as error:
            self._fail(str(error), BACKOFF, error.retry_in_s)
        except StreamsError as error:
            self._fail(str(error), BACKOFF, event=_OTHERS_FAIL)
        else:
            self._succeed(task, result)

    def _succeed(self, task: _Task, result: Any) -> None:
        match task.kind:
            case "prepare":
                self._must_prepare, self._was_prepared = False, True
            case "open":
                self._go_on(result)
            case "check":
                self._must_check = False
                self._skip(result)
            case "write":
                self._wrote(result, self._now_s() - task.since_s)
        if self._writing is not None:
            return  # what failed is still to be written: only then it is known whether the trouble is over
        if self.trouble is not None:
            log.info("records are written again", sink=self._name, failures=self._failures)
        self.trouble, self._failures = None, 0

    def _go_on(self, found: Mapping[int, tuple[int, tuple[int, int]]]) -> None:
        for partition, (offset, bounds) in found.items():
            if partition in self._wanted:
                self._wanted.discard(partition)
                self._open.add(partition)
                self._required().start(partition, offset, bounds)
        log.info("reading", sink=self._name, partitions={p: offset for p, (offset, _) in found.items()})

    def _skip(self, offsets: Mapping[int, int]) -> None:
        """Leave out records that the target already has: an answer was lost."""
        records = self._writing
        if records is None:
            return
        next_of = np.array([offsets.get(p, -1) for p in range(int(records.partition.max()) + 1)])
        fresh = records.offset >= next_of[records.partition]
        if not fresh.all():
            self._tell({p: offset for p, offset in offsets.items() if offset >= 0})
            self._writer.forget()
            self._writing = records.take(np.flatnonzero(fresh)) if fresh.any() else None

    def _wrote(self, done: Written, seconds: float) -> None:
        self._writing = None
        self._takeovers = 0
        metrics = self._metrics
        metrics.write_seconds.observe(seconds)
        metrics.took("written", done.rows)
        metrics.took("deleted", done.deleted)
        metrics.took("rejected", done.rejected)
        metrics.took("replaced", done.records - done.rows - done.deleted - done.rejected)
        self._tell(done.offsets)

    def _tell(self, offsets: Mapping[int, int]) -> None:
        mine = {partition: offset for partition, offset in offsets.items() if partition in self._open}
        if mine:
            self._commit(mine)

    def _fail(self, why: str, backoff: Backoff, retry_in_s: float | None = None, *, event: str = _TARGET_FAILS) -> None:
        self._failures += 1
        self._metrics.failures.inc()
        pause_s = backoff.jittered_s(self._failures) if retry_in_s is None else retry_in_s
        self._not_before_s = self._now_s() + pause_s
        self._must_check = self._writing is not None
        self.trouble = why
        log.warning(event, sink=self._name, error=why, failures=self._failures, retry_in_s=round(pause_s, 2))

    def _be_taken_over(self, partitions: Collection[int]) -> None:
        """Another process has taken these over in the target. If the group still gives them to us, take them back."""
        self._metrics.fenced.inc()
        self._takeovers += 1
        mine = [partition for partition in partitions if partition in self._open]
        pause_s = _TAKEN_OVER.jittered_s(self._takeovers)
        self._open_after_s = self._now_s() + pause_s
        log.warning(
            "another process has taken partitions over in the target", sink=self._name, partitions=sorted(partitions),
            retry_in_s=round(pause_s, 1),
        )  # fmt: skip
        self._generation += 1
        self._required().stop(mine, self._generation)
        self._drop(partitions)
        self._wanted |= set(mine)
        self._must_check = self._writing is not None

    def _drop(self, partitions: Collection[int]) -> None:
        """Forget partitions."""
        gone = set(partitions)
        self._wanted -= gone
        self._open -= gone
        self._gathered = [left for part in self._gathered if (left := _without(part, gone)) is not None]
        if self._writing is not None:
            self._writing = _without(self._writing, gone)
            self._writer.forget()
        self._target.release(gone)

    def _required(self) -> Source:
        if self._source is None:
            raise StreamsError("the sink has no source yet")
        return self._source


def _without(records: Records, partitions: Collection[int]) -> Records | None:
    """The records of other partitions; None: there are none."""
    kept = ~np.isin(records.partition, list(partitions))
    if kept.all():
        return records
    return records.take(np.flatnonzero(kept)) if kept.any() else None
