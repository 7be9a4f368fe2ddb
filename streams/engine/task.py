"""A partition task: the tree of operators that the records of one source partition pass.

Deterministic and free of I/O but for reads of its store: the effects of a log do not depend on how it was cut into
batches or cycles (I8). Not thread-safe; `cycle.applied` alone may be called while the next batch is processed.
"""

from contextlib import nullcontext
from dataclasses import replace
from typing import Final

from streams.batch.clock import Clock
from streams.batch.events import Events
from streams.engine.config import TaskConfig
from streams.engine.cycle import TaskCycle
from streams.engine.effects import PartitionEffects
from streams.engine.maintenance import TaskMaintenance
from streams.engine.partition import PartitionState
from streams.engine.steps import collected, steps_of
from streams.growth.layouts import Layouts
from streams.growth.state import GrowthState
from streams.operators.output import Output
from streams.operators.trace import NEVER, WatermarkTrace, watermarks
from streams.state.checkpoint import Checkpoint
from streams.state.store import Store

_UNTIMED: Final = nullcontext()


class PartitionTask(PartitionState):
    """The operators of one partition, over its state.

    Create it with `restore_partition`; the constructor does not recover what is not in the store.
    """

    def __init__(self, config: TaskConfig, partition: int, store: Store, checkpoint: Checkpoint | None) -> None:
        super().__init__(config, partition, store, checkpoint)
        self.cycle = TaskCycle(self)
        self.maintenance = TaskMaintenance(self)
        self._steps = steps_of(config.tree, self.operators)

    def on_batch(
        self, events: Events, offset_next: int, clock: Clock | None = None, leader_epoch: int = -1
    ) -> PartitionEffects:
        """Process this partition's decoded events of a micro-batch, in log order.

        `clock` says which record timestamps are a time, and what stands in for the others; None takes all as they are.

        `offset_next` is the offset behind the micro-batch's last record of this partition, rejected or not, and
        `leader_epoch` the one of that record.
        """
        self.offset_next, self.leader_epoch = offset_next, leader_epoch
        if not len(events):
            return PartitionEffects(self.partition)
        judged_by = events.timestamp_ms if clock is None else clock.judged_by(events.timestamp_ms)
        lateness_ms = self.config.pipeline.bounds.lateness_ms
        course = watermarks(events.event_time, judged_by, start=self.watermark, lateness_ms=lateness_ms)
        return self._run(events, WatermarkTrace.of(self.watermark, course))

    def on_idle(self, watermark: int) -> PartitionEffects:
        """Move the watermark on although nothing came, and release what is due."""
        trace = WatermarkTrace.idle(self.watermark, max(self.watermark, watermark))
        return self._run(Events.none(self.config.fields), trace)

    def on_merged(
        self, events: Events, trace: WatermarkTrace, growth: GrowthState, offset_next: int, leader_epoch: int
    ) -> PartitionEffects:
        """Process events of both inputs in the order in which they were merged; `trace` is over all merged records.

        `growth` says how far the forwarded topic is read then, `offset_next` and `leader_epoch` are of the own log.
        """
        self.growth, self.offset_next, self.leader_epoch = growth, offset_next, leader_epoch
        if not len(events) and trace.end <= self.watermark:
            return PartitionEffects(self.partition)
        return self._run(events, trace)

    def say_ready(self, epoch: int) -> None:
        """Commit with the next cycle that it is ready for the growth to this epoch."""
        self.ready = epoch
        self._begin_log()

    def cut(self, layouts: Layouts) -> None:
        """Be in the newest layout from here on: what is kept of keys that belong elsewhere in it is dropped.

        Between cycles. The next cycle says so, and the children take over what the journal has before it.
        """
        if not self.is_settled:
            raise RuntimeError(f"partition {self.partition}: keys are given away between cycles only")
        layout = layouts.known[-1]
        self.home.enter(layout, layouts.counts_before(layout.epoch))
        for operator in self.operators.values():
            operator.keys_moved()
        self.forget_keys()
        self.identity = replace(self.identity, epoch=layout.epoch, partitions=layout.partitions)
        self._begin_log()

    def _begin_log(self) -> None:
        """An offset can be committed although no record was read yet."""
        self.offset_next = max(self.offset_next, self.first_offset)

    def next_timer(self) -> int:
        """Watermark at which something happens without an event; the end of time when nothing does."""
        return min((operator.next_timer() for operator in self.operators.values()), default=NEVER)

    @property
    def is_overdue(self) -> bool:
        """Whether something that the watermark has passed is left: it was too much for one cycle."""
        return any(operator.is_overdue(self.watermark) for operator in self.operators.values())

    def _run(self, events: Events, trace: WatermarkTrace) -> PartitionEffects:
        self.watermark = trace.end
        outputs = [Output(events, trace)]
        for step in self._steps:
            given, stage = outputs[step.after], step.operator.stage
            with self.config.stopwatch(stage) if stage else _UNTIMED:
                outputs.append(step.operator.process(given.events, given.trace))
        misrouted, keys = self.keys.take_misrouted()
        effects = collected(self.partition, self._steps, outputs[1:], misrouted, keys)
        if self.named_partitions:
            effects = replace(effects, partitions=self.named_partitions, all_home=self.keys.all_home)
        self.has_output |= bool(effects.records or effects.refused)
        return effects
