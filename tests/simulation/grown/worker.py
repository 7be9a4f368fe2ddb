"""A simulated worker of a flow that grows: what it hears of the growth, and its reader of the forwarded topic."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

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
from tests.simulation.worker import PIPELINE, SimulatedWorker


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

    def start(self, partition: int, offset_next: int) -> None:
        self.position[partition] = offset_next

    def stop(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self.position.pop(partition, None)

    def pause_only(self, partitions: frozenset[int]) -> None:
        self.paused = partitions

    def poll(self) -> tuple[Records | None, dict[int, Idle]]:
        kafka, rng = self.worker.kafka, self.worker.rng
        rows: list[Row] = []
        idle: dict[int, Idle] = {}
        for partition in sorted(self.position.keys() - self.paused):
            log = kafka.log(PIPELINE.forwarded_of(0), partition)
            end = kafka.stable_end(PIPELINE.forwarded_of(0), partition)
            end = min(end, self.position[partition] + rng.choice((1, 3, 50)))
            rows += [
                (partition, entry.offset, entry.timestamp_ms, entry.key, entry.value, entry.headers)
                for entry in log[self.position[partition] : end]
                if entry.is_committed
            ]
            self.position[partition] = max(end, self.position[partition])
            if self.position[partition] == len(log):
                idle[partition] = Idle(kafka.ticks(), kafka.ticks())
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
        return {partition: standing_of(found) for partition, found in self.kafka.group.items()}

    def want_ends(self, partitions: frozenset[int]) -> None:
        self._wanted = partitions

    def ends(self) -> Ends | None:
        if self._wanted and self.rng.random() < 0.5:
            offsets = {partition: len(self.kafka.log(PIPELINE.source, partition)) for partition in self._wanted}
            self._ends = Ends(self.kafka.ticks(), offsets)
        return self._ends

    # --- polls ---

    def _batch(self, records: Records | None, idle: dict[int, Idle]) -> Polled:
        kafka = self.kafka
        at_end = {
            partition: Idle(kafka.tick, kafka.ticks())
            for partition, at in self.intake.position.items()
            if partition not in self.intake.paused and at >= len(kafka.log(PIPELINE.source, partition))
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
        kafka = self.kafka
        forwarded = all(at >= len(kafka.log(PIPELINE.forwarded_of(0), p)) for p, at in self.forwarded.position.items())
        waits = self.engine.own_waiting or self.engine.forwarded_waiting or self.engine.adopting
        return super().is_caught_up and forwarded and not waits
