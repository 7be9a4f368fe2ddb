"""A simulated worker of a flow that grows: what it hears of the growth, and its reader of the forwarded topic."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from streams.batch.lanes import all_lanes, input_of, partition_of_lane
from streams.batch.records import Records
from streams.engine.engine import MicroBatch
from streams.engine.telling import Ends
from streams.growth.committed import standing_of
from streams.growth.layouts import Layouts
from streams.growth.stages import Standing
from streams.kafka.memory import MemoryKafka
from streams.sources.base import Idle
from streams.worker.core import Ports
from streams.worker.ownership import Polled
from tests.simulation.ports import Row, records_of
from tests.simulation.traffic import NOW_MS
from tests.simulation.worker import SimulatedWorker


class GrownKafka(MemoryKafka):
    """The broker, with the growth topic as those see it who read it now, and a clock of its own."""

    def __init__(self, partitions: int) -> None:
        super().__init__(partitions)
        self.layouts = Layouts.first(partitions)
        self.tick = 0

    def ticks(self) -> int:
        """A later time with each call."""
        self.tick += 1
        return self.tick


@dataclass(slots=True)
class MemoryForwarded:
    """`ForwardedCommands`, and the reader of the forwarded topic."""

    worker: "GrownWorker"
    position: dict[int, int]
    paused: frozenset[int] = frozenset()

    def start(self, lane: int, offset_next: int) -> None:
        self.position[lane] = offset_next

    def stop(self, partitions: Iterable[int]) -> None:
        for lane in all_lanes(partitions, len(self.worker.flow.pipeline.inputs)):
            self.position.pop(lane, None)

    def pause_only(self, lanes: frozenset[int]) -> None:
        self.paused = lanes

    def place(self, lane: int) -> tuple[str, int]:
        """Topic and partition of what is forwarded to a lane."""
        return self.worker.flow.pipeline.forwarded_of(input_of(lane)), partition_of_lane(lane)

    def poll(self) -> tuple[Records | None, dict[int, Idle]]:
        kafka, rng = self.worker.kafka, self.worker.rng
        rows: list[Row] = []
        idle: dict[int, Idle] = {}
        for lane in sorted(self.position.keys() - self.paused):
            log, end = kafka.log(*self.place(lane)), kafka.stable_end(*self.place(lane))
            end = min(end, self.position[lane] + rng.choice((1, 3, 50)))
            rows += [
                (lane, entry.offset, entry.timestamp_ms, entry.key, entry.value, entry.headers)
                for entry in log[self.position[lane] : end]
                if entry.is_committed
            ]
            self.position[lane] = max(end, self.position[lane])
            if self.position[lane] == len(log):
                idle[lane] = Idle(kafka.ticks(), kafka.ticks())
        return (records_of(rows) if rows else None), idle


class GrownWorker(SimulatedWorker):
    """It hears of a phase when it looks, and it looks now and then."""

    kafka: GrownKafka
    _known: Layouts | None = None
    _wanted: frozenset[int] = frozenset()
    _ends: Ends | None = None

    def start(self) -> None:
        self._known, self._wanted, self._ends = None, frozenset(), None
        super().start()

    def _ports(self) -> Ports:
        self.forwarded = MemoryForwarded(self, {})
        return replace(super()._ports(), growth=self, forwarded=self.forwarded)

    # --- GrowthNews ---

    def layouts(self) -> Layouts | None:
        """What the worker knows; a restore reads it anew (`hear` is called before each)."""
        if self._known is None or self.rng.random() < 0.2:
            self._known = self.kafka.layouts
        return self._known

    def standings(self) -> Mapping[int, Standing]:
        return {lane: standing_of(found) for lane, found in self.kafka.group.items() if not input_of(lane)}

    def want_ends(self, lanes: frozenset[int]) -> None:
        self._wanted = lanes

    def ends(self) -> Ends | None:
        if self._wanted and self.rng.random() < 0.5:
            self._ends = Ends(self.kafka.ticks(), {lane: len(self.intake.log(lane)) for lane in self._wanted})
        return self._ends

    # --- polls ---

    def _batch(self, records: Records | None, idle: dict[int, Idle]) -> Polled:
        kafka = self.kafka
        at_end = {
            lane: Idle(kafka.tick, kafka.ticks())
            for lane, at in self.intake.position.items()
            if lane not in self.intake.paused and at >= len(self.intake.log(lane))
        }
        forwarded, forwarded_idle = self.forwarded.poll() if self.is_polling else (None, {})
        batch = MicroBatch(
            records, 0, {**at_end, **idle} if self.is_polling else {}, self.intake.generation,
            NOW_MS + self.rng.randint(0, 60_000), forwarded, forwarded_idle, kafka.ticks(),
        )  # fmt: skip
        return self.core.polled(batch)

    is_polling = False

    def poll(self, idle: dict[int, Idle] | None = None) -> None:
        self.is_polling = True
        super().poll(idle)
        self.is_polling = False

    @property
    def is_caught_up(self) -> bool:
        place = self.forwarded.place
        forwarded = all(at >= len(self.kafka.log(*place(lane))) for lane, at in self.forwarded.position.items())
        waits = self.engine.own_waiting or self.engine.forwarded_waiting or self.engine.adopting
        return super().is_caught_up and forwarded and not waits
