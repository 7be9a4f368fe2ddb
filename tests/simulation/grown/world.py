"""What a simulated growth is made of, whatever the flow: its topics, the command, the group, and how it all ends."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from streams.batch.lanes import input_of
from streams.flow.declaration import Pipeline
from streams.growth import control
from streams.growth.committed import standing_of
from streams.growth.control import AddPartitions, Over, Write
from streams.growth.plan import Kind, TopicCount, Under, plan_growth
from streams.growth.stages import Phase, Standing, is_over
from streams.sources.base import Idle
from tests.simulation.grown.worker import GrownKafka, GrownWorker
from tests.simulation.traffic import START_MS

ROUNDS_MAX: Final = 400


@dataclass(frozen=True, slots=True)
class Grown:
    """What a run has shown."""

    partitions: tuple[int, ...]
    sent: int
    forwarded: int
    late: int
    crashes: int


def kinds_of(flow: Pipeline) -> dict[str, Kind]:
    """Every topic of a flow that a growth is about."""
    kinds = {topic.name: Kind.OUTPUT for topic in flow.topics()}
    kinds |= dict.fromkeys(flow.changelogs, Kind.STATE)
    kinds |= dict.fromkeys(flow.forwarded_topics, Kind.FORWARDED)
    return kinds | {one.topic: Kind.INPUT for one in flow.inputs} | {flow.source: Kind.SOURCE}


@dataclass(slots=True)
class GrowingFlow:
    """Everything but the producers, and what happens next."""

    rng: random.Random
    kafka: GrownKafka
    team: list[GrownWorker]
    targets: list[int]
    flow: Pipeline
    now: int = field(default=START_MS, kw_only=True)

    @property
    def forwarded(self) -> int:
        """How many records were forwarded."""
        found = (entry for topic in self.flow.forwarded_topics for entry in self.kafka.topic_rows(topic))
        return sum(entry.key is not None for entry in found)

    def live(self, steps: int, send: Callable[[], None]) -> None:
        """Let all happen that can, in any order, and then come to an end."""
        rng = self.rng
        first = self.kafka.partitions
        for partition in range(first):
            self.team[partition % len(self.team)].assign(partition)
        begins_at, backlog = rng.randint(0, steps // 3), rng.random() < 0.3
        for step in range(steps):
            for _ in range(rng.choice((0, 1, 1))):
                send()
            if backlog and begins_at - 100 < step < begins_at:
                continue  # nobody works
            if step > begins_at and rng.random() < 0.2:
                self.command()
            for _ in range(rng.choice((1, 2))):
                worker = rng.choice(self.team)
                worker.note()
                worker.step()
            if worker.faults and rng.random() < 0.02:
                self.rebalance()
            if worker.faults and rng.random() < 0.01:
                rng.choice(self.team).crash()
        self.finish()

    # --- the command ---

    def command(self) -> bool:
        """One step of the command, which keeps nothing between two; whether all is over."""
        kafka, rng = self.kafka, self.rng
        layouts = kafka.layouts
        growth, standings = layouts.growth, self.standings()
        settled = {one for one, found in standings.items() if growth is not None and found.settled >= growth.epoch}
        over = growth is not None and is_over(growth, standings, settled)
        done = layouts.known[0].partitions if growth is None else (growth.after if over else growth.before).partitions
        goal = next((one for one in self.targets if one > done), None)
        if goal is None:
            return True
        under = None if growth is None else Under(growth, layouts.phase or Phase.PLANNED, is_over=over)
        layout = layouts.known[-1] if growth is None or over else growth.before
        counts = [TopicCount(name, kind, kafka.count_of(name)) for name, kind in kinds_of(self.flow).items()]
        plan = plan_growth(self.flow.name, layout, counts, goal, under=under)
        step = control.next_step(plan, layouts.phase if plan.is_resumed else None, standings, settled)
        if isinstance(step, Write):
            known = layouts if plan.is_resumed else layouts.grown(goal, Phase.PLANNED)
            kafka.layouts = type(known)(known.known, step.phase)
        elif isinstance(step, AddPartitions):
            for addition in step.additions[: rng.randint(1, len(step.additions))]:
                kafka.counts[addition.topic] = addition.after
                if addition.kind is Kind.SOURCE:
                    for partition in range(addition.before, addition.after):
                        self._give(partition)
        return isinstance(step, Over)

    def standings(self) -> dict[int, Standing]:
        return {lane: standing_of(found) for lane, found in self.kafka.group.items() if not input_of(lane)}

    # --- the group ---

    def _give(self, partition: int) -> None:
        worker = self.rng.choice(self.team)
        worker.assign(partition)
        for one in self.team:
            one.note()

    def rebalance(self) -> None:
        """A partition goes to another worker, or comes back to the same one."""
        partition = self.rng.choice(sorted(self.kafka.owners))
        owner = next(worker for worker in self.team if worker.name == self.kafka.owners[partition])
        owner.revoke(partition)
        if self.kafka.owners[partition] == owner.name:
            self._give(partition)

    # --- the end ---

    def finish(self) -> None:
        """Nothing more is sent: all is read, the growths end, and idle time releases what is held."""
        for worker in self.team:
            worker.faults, worker.growth_quiet_ms = False, 0
            worker.crash()
        for _ in range(ROUNDS_MAX):
            over = self.command()
            for worker in self.team:
                worker.note()
                worker.work_and_commit()
            if over and all(worker.is_caught_up for worker in self.team):
                break
        else:
            raise AssertionError(f"no end: {self.kafka.layouts}, {self.standings()}")
        for until_ms in (0, 10**14, 10**14):
            for worker in self.team:
                worker.note()
                worker.poll(dict.fromkeys(worker.position, Idle(0, until_ms)))
                worker.commit()
                worker.catch_up()
        for worker in self.team:
            for partition in list(worker.position):
                worker.revoke(partition)
