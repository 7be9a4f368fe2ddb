"""A partition task: the tree of operators that the records of one source partition pass.

Deterministic and free of I/O but for reads of its store: the effects of a log do not depend on how it was cut into
batches or cycles (I8). Not thread-safe; `cycle.applied` alone may be called while the next batch is processed.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Final

from streams.batch.clock import Clock
from streams.batch.events import Events
from streams.engine.config import TaskConfig
from streams.engine.cycle import TaskCycle
from streams.engine.effects import PartitionEffects
from streams.engine.maintenance import TaskMaintenance
from streams.engine.partition import PartitionState
from streams.engine.steps import Step, collected, steps_of
from streams.growth.layouts import Layouts
from streams.growth.state import GrowthState
from streams.operators.base import Operator
from streams.operators.output import Output
from streams.operators.trace import NEVER, WatermarkTrace, watermarks
from streams.state.checkpoint import Checkpoint
from streams.state.journal import Position
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
        self.steps = steps_of(config.tree, self.operators, config.gets, len(config.inputs))

    def on_batch(
        self,
        events: Events,
        offset_next: int,
        clock: Clock | None = None,
        leader_epoch: int = -1,
        input_number: int = 0,
    ) -> PartitionEffects:
        """Process this partition's decoded events of a micro-batch from one input: as `begin`, and all that follows."""
        [effects] = run_together([self.begin(events, offset_next, clock, leader_epoch, input_number)])
        return effects

    def begin(
        self,
        events: Events,
        offset_next: int,
        clock: Clock | None = None,
        leader_epoch: int = -1,
        input_number: int = 0,
    ) -> "Run":
        """Take this partition's decoded events of a micro-batch from one input, in log order.

        `clock` says which record timestamps are a time, and what stands in for the others; None takes all as they are.

        `offset_next` is the offset after the micro-batch's last record of this partition, rejected or not, and
        `leader_epoch` the one of that record.
        """
        watermark = self.positions[input_number].watermark
        if not len(events):
            self.positions[input_number] = Position(offset_next, watermark, leader_epoch)
            return Run(self, input_number, None)
        judged_by = events.timestamp_ms if clock is None else clock.judged_by(events.timestamp_ms)
        lateness_ms = self.config.inputs[input_number].bounds.lateness_ms
        course = watermarks(events.event_time, judged_by, start=watermark, lateness_ms=lateness_ms)
        trace = WatermarkTrace.of(watermark, course)
        self.positions[input_number] = Position(offset_next, trace.end, leader_epoch)
        return Run(self, input_number, Output(events, trace))

    def on_idle(self, watermark: int, input_number: int = 0) -> PartitionEffects:
        """Move the watermark of an input on although nothing came, and release what is due."""
        start = self.positions[input_number].watermark
        trace = WatermarkTrace.idle(start, max(start, watermark))
        return self._run(input_number, Events.none(self.config.inputs[input_number].fields), trace)

    def on_merged(
        self,
        events: Events,
        trace: WatermarkTrace,
        growth: GrowthState,
        offset_next: int,
        leader_epoch: int,
        input_number: int = 0,
    ) -> PartitionEffects:
        """Process events of an input and of its forwarded topic in the order in which they were merged.

        `trace` is over all merged records, `growth` says how far the forwarded topic is read then, and `offset_next`
        and `leader_epoch` are of the input itself.
        """
        watermark = self.positions[input_number].watermark
        self.growth, self.positions[input_number] = growth, Position(offset_next, watermark, leader_epoch)
        if not len(events) and trace.end <= watermark:
            return PartitionEffects(self.partition, input_number=input_number)
        return self._run(input_number, events, trace)

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
        layouts.enter(self.home, layout.epoch)
        for operator in self.operators.values():
            operator.keys_moved()
        self.forget_keys()
        self.identity = replace(self.identity, epoch=layout.epoch, partitions=layout.partitions)
        self._begin_log()

    def _begin_log(self) -> None:
        """An offset can be committed although no record was read yet."""
        self.positions[0] = replace(self.positions[0], offset_next=max(self.offset_next, self.first_offset))

    def next_timer(self, input_number: int = 0) -> int:
        """Watermark of an input at which something happens without an event; the end of time when nothing does.

        What several inputs are merged for happens only once the others are as far.
        """
        return min(
            (self._timer(name, operator, input_number) for name, operator in self.operators.items()), default=NEVER
        )

    def _timer(self, name: str, operator: Operator, input_number: int) -> int:
        numbers = self.config.gets[name]
        if input_number not in numbers:
            return NEVER
        timer = operator.next_timer()
        return timer if timer == NEVER or len(numbers) == 1 else timer + 1

    @property
    def is_overdue(self) -> bool:
        """Whether something that the watermark has passed is left: it was too much for one cycle."""
        return any(operator.is_overdue(self.watermark_of(name)) for name, operator in self.operators.items())

    def _run(self, input_number: int, events: Events, trace: WatermarkTrace) -> PartitionEffects:
        self.positions[input_number] = replace(self.positions[input_number], watermark=trace.end)
        [effects] = run_together([Run(self, input_number, Output(events, trace))])
        return effects

    def resting(self, input_number: int) -> Output:
        """Return the output of an input to which nothing has come."""
        watermark = self.positions[input_number].watermark
        fields = self.config.inputs[input_number].fields
        return Output(Events.none(fields), WatermarkTrace.idle(watermark, watermark))


@dataclass(slots=True)
class Run:
    """What one task has to process, of one input."""

    task: PartitionTask
    input_number: int
    given: Output | None
    """None: no events, and the watermark stands where it was."""
    outputs: list[Output | None] = field(default_factory=list)
    """Outputs of the inputs, then of each step that has been done; None where nothing has come."""

    def gives(self, step: Step) -> list[Output]:
        """Return the events that an operator is given."""
        found: list[Output] = []
        for number, at in enumerate(step.after):
            given = self.outputs[at]
            if given is None:  # of one that merges, whose givers follow the inputs
                given = self.task.resting(number)
            found.append(_as_taken(step.operator, given))
        return found

    def effects(self) -> PartitionEffects:
        """What has come of all steps."""
        task = self.task
        if self.given is None:
            return PartitionEffects(task.partition, input_number=self.input_number)
        misrouted, keys = task.keys.take_misrouted()
        outputs = self.outputs[len(task.positions) :]
        effects = collected(task.partition, self.input_number, task.steps, outputs, misrouted, keys)
        if task.named_partitions:
            effects = replace(effects, partitions=task.named_partitions, all_home=task.keys.all_home)
        task.has_output |= bool(effects.records or effects.refused)
        return effects


def run_together(runs: Sequence[Run]) -> list[PartitionEffects]:
    """Effects of runs of different tasks of one flow, all of one input; each operator gets those of all in one call."""
    busy = [run for run in runs if run.given is not None]
    if busy:
        task, number = busy[0].task, busy[0].input_number
        for run in busy:
            run.outputs = [None] * len(task.positions)
            run.outputs[number] = run.given
        for at, step in enumerate(task.steps):
            if number not in step.gets:
                for run in busy:
                    run.outputs.append(None)
                continue
            with task.config.stopwatch(step.operator.stage) if step.operator.stage else _UNTIMED:
                _take_step(at, step, busy)
    return [run.effects() for run in runs]


def _take_step(at: int, step: Step, runs: Sequence[Run]) -> None:
    if len(step.after) > 1:
        for run in runs:
            run.outputs.append(run.task.steps[at].operator.merge(run.gives(step)))
        return
    operators = [run.task.steps[at].operator for run in runs]
    given = [run.gives(step)[0] for run in runs]
    for run, output in zip(runs, type(step.operator).process_all(operators, given), strict=True):
        run.outputs.append(output)


def _as_taken(operator: Operator, given: Output) -> Output:
    """With bytes objects, unless the operator takes references to what the native library holds."""
    events = given.events if operator.takes_references else given.events.with_objects()
    return given if events is given.events else replace(given, events=events)
