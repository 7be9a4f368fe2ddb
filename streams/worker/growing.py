"""What a worker does for a growth of its flow between steps: parents cut and report, children adopt and clear.

Everything is a function of the growth's record and of committed state, so that another worker goes on
where one has ended (docs/adr/0070).
"""

from collections.abc import Mapping
from typing import Final

import structlog

from streams.batch.lanes import all_lanes, lane_of
from streams.engine.adoption import Clearing
from streams.engine.engine import Engine
from streams.engine.task import PartitionTask
from streams.engine.telling import Reading, Telling
from streams.flow.declaration import Pipeline
from streams.growth.layout import Growth
from streams.growth.layouts import Layouts
from streams.growth.stages import Duty, Standing, duty_of, have_adopted
from streams.limits import GROWTH_QUIET_MS
from streams.sources.base import Idle
from streams.state.space import StoreSpace
from streams.worker.cycle import CommitCycle
from streams.worker.ownership import Ownership
from streams.worker.ports import GrowthNews, TimeSource

log = structlog.get_logger(__name__)

_NOBODY: Final[Mapping[int, Standing]] = {}


class Growing:
    """Used by one thread at a time, between steps."""

    def __init__(
        self,
        pipeline: Pipeline,
        engine: Engine,
        cycle: CommitCycle,
        ownership: Ownership,
        news: GrowthNews,
        clock: TimeSource,
        *,
        quiet_ms: int = GROWTH_QUIET_MS,
    ) -> None:
        """`quiet_ms`: how long no straggler may come before a parent ends the coupling."""
        self._pipeline = pipeline
        self._engine = engine
        self._cycle = cycle
        self._ownership = ownership
        self._news = news
        self._clock = clock
        self._quiet_ms = quiet_ms
        self._tables = [state.name for state in engine.config.keyed if state.is_table]

    def run(self, idle: Mapping[int, Idle]) -> None:
        """Do what is due; `idle` is that of the latest micro-batch.

        Raises:
            CycleAborted: a commit did not happen.

        """
        layouts = self._news.layouts()
        if layouts is None or layouts.growth is None:
            return
        self._start_adopted()
        self._cut(layouts)
        self._tell(layouts.growth, idle)
        is_clearing = self._clear(layouts.growth)
        # What parents tell goes with the cycle when that is due. Keys wait for an adoption, which takes many cycles.
        if (is_clearing or self._engine.adopting) and not self._cycle.is_committing:
            self._cycle.end()

    def may_truncate(self, partition: int) -> bool:
        """Whether no child needs the journal of a partition any more."""
        layouts = self._news.layouts()
        growth = None if layouts is None else layouts.growth
        task = self._engine.tasks.get(partition)
        if growth is None or task is None or partition not in growth.parents or task.epoch < growth.epoch:
            return True
        return have_adopted(partition, growth, self._news.standings())

    def _start_adopted(self) -> None:
        """Start to consume partitions whose adoption is committed."""
        for partition, task in list(self._engine.adopting.items()):
            if task.adoption is None and task.is_settled:
                self._engine.adopted(partition)
                self._ownership.consume(task)
                log.info("state was taken over", topic=self._pipeline.source, partition=partition, epoch=task.epoch)

    def _cut(self, layouts: Layouts) -> None:
        growth = layouts.growth
        due: list[PartitionTask] = []
        for partition, task in self._engine.tasks.items():
            duty = duty_of(partition, task.standing, layouts.before, growth, layouts.phase, parent_epoch=0)
            if duty is Duty.SAY_READY and growth is not None:
                task.say_ready(growth.epoch)
            elif duty is Duty.CUT:
                due.append(task)
        if not due:
            return
        self._cycle.end()
        self._cycle.wait_for_commit()
        for task in due:
            if task.is_settled:
                task.cut(layouts)
                self._ownership.read_forwarded(task)
                log.info(
                    "keys are given away", topic=self._pipeline.source, partition=task.partition, epoch=task.epoch,
                    offset=task.offset_next,
                )  # fmt: skip
        self._cycle.end()

    def _tell(self, growth: Growth, idle: Mapping[int, Idle]) -> None:
        """Have parents report to their children, with the open cycle, what is due."""
        parents = [
            task
            for partition, task in self._engine.tasks.items()
            if partition in growth.parents and task.epoch == growth.epoch and task.growth.settled < growth.epoch
        ]
        if not parents:
            return
        inputs = self._engine.config.inputs
        wanted = (p for task in parents for p in (task.partition, *growth.children_of(task.partition)))
        self._news.want_ends(frozenset(all_lanes(wanted, len(inputs))))
        standings, ends = self._news.standings(), self._news.ends()
        now_ms = int(self._clock.monotonic_s() * 1000)
        holds = self._engine.waiting_partitions | self._engine.own_waiting
        for task in parents:
            readings = [
                Reading(at.watermark, at.offset_next, task.strays[number], None if lane in holds else idle.get(lane))
                for number, at in enumerate(task.positions)
                for lane in (lane_of(number, task.partition),)
            ]
            telling = task.telling
            if telling is None or telling.growth != growth:
                strays = [one.strays for one in readings]
                telling = task.telling = Telling(growth, task.partition, now_ms=now_ms, strays=strays)
            task.progress = {
                **task.progress,
                **telling.due(
                    readings,
                    ends,
                    adopted=have_adopted(task.partition, growth, standings),
                    now_ms=now_ms,
                    idle_ms=[one.bounds.idle_ms for one in inputs],
                    quiet_ms=self._quiet_ms,
                ),
            }

    def _clear(self, growth: Growth) -> bool:
        """Have children delete the rows that their keys have in their parents' tables; whether any does."""
        has_news = False
        for partition, task in self._engine.tasks.items():
            if partition not in growth.children or task.epoch < growth.epoch or task.cleared >= growth.epoch:
                continue
            if task.clearing is None and task.is_settled:
                task.clearing = self._clearing(task, growth)
            has_news = True
        return has_news

    def _clearing(self, task: PartitionTask, growth: Growth) -> Clearing:
        parts = {state.name: state.part for state in self._engine.config.keyed}
        return Clearing(
            growth.parent_of(task.partition),
            growth.epoch,
            {topic: (key for key, _ in StoreSpace(task.store, parts[topic]).scan()) for topic in self._tables},
            header=b"%d:%d" % (growth.epoch, task.partition),
        )
