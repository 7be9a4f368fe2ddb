"""A partition task: the tree of operators that the records of one source partition pass.

Deterministic and free of I/O but for reads of its store: the effects of a log do not depend on how it was cut into
batches or cycles (I8). Not thread-safe; `cycle.applied` alone may be called while the next batch is processed.
"""

from contextlib import nullcontext
from typing import Final

from streams.batch.clock import Clock
from streams.batch.events import Events
from streams.engine.config import TaskConfig
from streams.engine.cycle import TaskCycle
from streams.engine.effects import PartitionEffects
from streams.engine.maintenance import TaskMaintenance
from streams.engine.partition import PartitionState
from streams.engine.steps import collected, steps_of
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

        `offset_next` is the offset after the micro-batch's last record of this partition, rejected or not, and
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
        self.has_output |= bool(effects.records or effects.refused)
        return effects
