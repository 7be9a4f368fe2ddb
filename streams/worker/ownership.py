"""The partitions that the group has given to this worker, their tasks, and the restores in flight.

A partition is *owned* from when its assignment was carried out until it is released. It has a task from when its state
was restored until it is dropped. What the task computes belongs to the term (`streams.worker.terms`) under which the
state was restored, also if the partition was given away and came back meanwhile.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from streams.batch.lanes import lane_of, partition_of_lane, partitions_of
from streams.engine.engine import Engine, MicroBatch
from streams.engine.task import PartitionTask
from streams.worker.ports import Attempt, ForwardedCommands, IntakeCommands, Restored, Stores
from streams.worker.terms import Term, Terms


@dataclass(frozen=True, slots=True)
class Polled:
    """A micro-batch, and the terms that were running when it was polled."""

    batch: MicroBatch
    terms: Mapping[int, Term]


class Ownership:
    """Used by one thread at a time, between steps. Any thread may read its read-only parts and `Attempt.is_wanted`."""

    def __init__(
        self,
        engine: Engine,
        terms: Terms,
        intake: IntakeCommands,
        stores: Stores,
        forwarded: ForwardedCommands,
        *,
        is_stopping: Callable[[], bool],
    ) -> None:
        """`is_stopping`: whether restores are no longer wanted."""
        self._engine = engine
        self._terms = terms
        self._intake = intake
        self._stores = stores
        self._forwarded = forwarded
        self._bounds: dict[int, tuple[tuple[int, int], ...]] = {}
        """By partition of a task, the bounds of that partition in each input."""
        self._is_stopping = is_stopping
        self._owned: Mapping[int, Term] = {}
        """Replaced as a whole, so that other threads can read it."""
        self._restored_in: dict[int, Term] = {}
        """For each partition with a task, the term under which its state was restored."""
        self._newest: dict[int, Attempt] = {}
        """The newest attempt to restore each partition; results of older attempts are ignored."""
        self.generation = 0
        """Incremented by each reload: micro-batches that were polled under an earlier generation are ignored."""

    @property
    def owned(self) -> frozenset[int]:
        """Partitions whose assignment was carried out, and not yet their release."""
        return frozenset(self._owned)

    @property
    def missing(self) -> frozenset[int]:
        """Owned partitions without a running task that are not stopped for good: they are being restored."""
        return self.owned - frozenset(self._engine.tasks) - self.stopped.keys()

    @property
    def stopped(self) -> Mapping[int, str]:
        """Owned partitions that stand still because an output refuses a record, and why."""
        owned = self._owned
        return {partition: why for partition, why in dict(self._engine.refusals.stopped).items() if partition in owned}

    def terms_of(self, partitions: Iterable[int]) -> frozenset[Term]:
        """Terms under which the state of these partitions, all of which have a task, was restored."""
        return frozenset(self._restored_in[partition] for partition in partitions)

    def current(self, polled: Polled) -> MicroBatch | None:
        """The records of a micro-batch that the tasks may process; None: it was polled before the last reload.

        Records of a partition that was given away and came back since are left out: some that were polled before them
        may have been dropped while it was away, and all of them are consumed again.
        """
        batch = polled.batch
        if batch.generation != self.generation:
            return None
        stale = [p for p, term in self._restored_in.items() if polled.terms.get(p) != term]
        if not stale:
            return batch
        records, forwarded = (
            None if some is None else some.take(np.flatnonzero(~np.isin(partitions_of(some.partition), stale)))
            for some in (batch.records, batch.forwarded)
        )
        idle, forwarded_idle = (
            {lane: idle for lane, idle in some.items() if partition_of_lane(lane) not in stale}
            for some in (batch.idle, batch.forwarded_idle)
        )
        return replace(batch, records=records, idle=idle, forwarded=forwarded, forwarded_idle=forwarded_idle)

    def consume(self, task: PartitionTask) -> None:
        """Consume a task's partition from the task's position, in each input."""
        bounds = self._bounds[task.partition]
        for number, offset_next in enumerate(task.offsets_next):
            self._intake.start(lane_of(number, task.partition), offset_next, bounds[number])
        if task.home.has_moved:
            self.read_forwarded(task)

    def read_forwarded(self, task: PartitionTask) -> None:
        """Read what other tasks forward to a task's partition from the task's position, for each input."""
        for number in range(len(task.positions)):
            self._forwarded.start(lane_of(number, task.partition), task.growth.of(number).forwarded_next)

    def take(self, terms: Mapping[int, Term]) -> None:
        """Take ownership of assigned partitions: restore each, and consume it once it is restored."""
        self._owned = {**self._owned, **terms}
        self._engine.refusals.start_again(list(terms))
        self._restore(terms, after_s=0.0)

    def reload(self, *, after_s: float) -> None:
        """Drop the uncommitted state of all partitions, and restore it `after_s` seconds from now.

        Their records are consumed again from the committed offsets.
        """
        self.generation += 1
        self._newest.clear()
        for partition in sorted({*self._engine.tasks, *self._engine.adopting}):
            self._drop(partition)
        self._forwarded.stop(self.owned)
        self._intake.stop(self.owned, self.generation)
        self._restore(sorted(self._owned), after_s=after_s)

    def release(self, partitions: Iterable[int]) -> None:
        """Give partitions up. Committed state of their tasks goes to the stores, which are closed."""
        for partition in partitions:
            self._owned = {other: term for other, term in self._owned.items() if other != partition}
            self._newest.pop(partition, None)
            self._forwarded.stop([partition])
            self._stores.release(partition, self._drop(partition))

    def _restore(self, partitions: Iterable[int], *, after_s: float) -> None:
        """Restore partitions in parallel and independently: one that waits or fails does not stop the others."""
        stopped = self._engine.refusals.stopped
        for partition in partitions:
            if partition not in stopped:
                self._newest[partition] = attempt = self._attempt(self._owned[partition])
                self._stores.restore(attempt, after_s=after_s)

    def _attempt(self, term: Term) -> Attempt:
        def is_wanted() -> bool:
            is_newest = self._newest.get(term.partition) is attempt
            return is_newest and self._terms.runs(term) and not self._is_stopping()

        def install(restored: Restored) -> None:
            if is_wanted():
                task = restored.task
                task.first_offset = restored.source_bounds[0]
                self._engine.install(task)
                self._restored_in[term.partition] = term
                self._bounds[term.partition] = (restored.source_bounds, *restored.further_bounds)
                if task.adoption is None:
                    self.consume(task)

        attempt = Attempt(term.partition, is_wanted, install)
        return attempt

    def _drop(self, partition: int) -> PartitionTask | None:
        self._restored_in.pop(partition, None)
        return self._engine.drop(partition)
