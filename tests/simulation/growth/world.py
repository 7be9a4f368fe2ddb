"""The world of the model: producers that change when they will, workers that die, and the command that grows a flow."""

import random
from dataclasses import dataclass, field

from streams.growth import control
from streams.growth.control import AddPartitions, Await, Over, Write
from streams.growth.layout import Growth, Layout
from streams.growth.plan import Kind, TopicCount, Under, plan_growth
from streams.growth.stages import Duty, Phase, is_over
from tests.simulation.growth.broker import Broker, Fenced, Record
from tests.simulation.growth.task import LATENESS, QUIET, Task, hash_of

DELAYS = (
    (0, 1, 2),
    (0, 1, LATENESS // 2, LATENESS - 1, LATENESS, 3 * LATENESS),
    (0, 0, LATENESS - 10, LATENESS - 2, LATENESS - 1),
)
CHANGE_MAX = QUIET // 2
"""Steps after which every producer but sleepers has heard of the new partitions."""


@dataclass
class Producer:
    """Hashes by the number of partitions that it last heard of."""

    keys: list[int]
    partitions: int
    is_sleeper: bool = False
    is_foreign: bool = False
    """Has another partitioner."""
    sleeps_until: int = 0
    slept_for: int = 0
    """The number of partitions that it has slept through the coming of."""
    left: int = 0
    """Records that it sends before it hears of them."""


@dataclass
class World:
    """Everything, and what happens next."""

    rng: random.Random
    broker: Broker
    producers: list[Producer]
    targets: list[int]
    """Numbers of partitions to grow to, one after the other."""
    now: int = 0
    tasks: dict[int, Task] = field(default_factory=dict)
    away_until: dict[int, int] = field(default_factory=dict)
    sequences: dict[int, int] = field(default_factory=dict)
    all_sent: list[Record] = field(default_factory=list)
    kills: int = 0
    grown_at: int = 0
    hears: float = 0.03
    """How soon a producer that sends hears of new partitions."""
    delays: tuple[int, ...] = (0,)
    """How old an event is when it is sent."""
    commits: float = 0.3
    """How often a task commits, of what it does."""
    dies: float = 0.02
    """How often the task of a partition dies, and how often it is replaced and does not know."""
    tidies: float = 1.0
    """How soon children clear their parents' tables."""
    deaf_until: dict[int, int] = field(default_factory=dict)
    """Tasks that do not look at the growth topic until then."""
    is_by_hand: bool = False
    """Somebody adds partitions to the source before the command is asked."""

    # --- producers ---

    def send(self) -> None:
        """One producer sends one record: disorder, stragglers of its own, copies."""
        producer = self.rng.choice(self.producers)
        self._hear(producer)
        if producer.sleeps_until > self.now:
            return
        is_outdated = producer.partitions != self.broker.counts["source"]
        exempt = producer.is_foreign or (producer.is_sleeper and is_outdated)
        copies = [one for one in self.all_sent[-60:] if one.key in producer.keys]
        self.broker.appended += 1
        if copies and self.rng.random() < 0.1:
            old = self.rng.choice(copies)
            record = Record(
                old.ident, self.broker.appended, old.key, old.key_hash, old.event_time, old.sequence, is_exempt=exempt
            )
        else:
            record = self._fresh(self.rng.choice(producer.keys), is_exempt=exempt)
        self.all_sent.append(record)
        to = record.key_hash % producer.partitions
        if producer.is_foreign and self.rng.random() < 0.7:
            to = self.rng.randrange(producer.partitions)
        self.broker.append(to, record)

    def _fresh(self, key: int, *, is_exempt: bool) -> Record:
        self.sequences[key] = sequence = self.sequences.get(key, 0) + self.rng.choice((0, 1))
        delay = self.rng.choice(self.delays)
        number = self.broker.appended
        return Record(number, number, key, hash_of(key), self.now - delay, sequence, is_exempt=is_exempt)

    def _hear(self, producer: Producer) -> None:
        count = self.broker.counts["source"]
        if producer.partitions == count:
            return
        if producer.is_sleeper:
            if producer.slept_for != count:  # it sleeps through the change, and sends a few as before
                producer.slept_for, producer.sleeps_until, producer.left = count, self.now + 3 * QUIET, 5
            elif producer.sleeps_until <= self.now:
                producer.left -= 1
                producer.partitions = producer.partitions if producer.left else count
            return
        late = self.now - self.grown_at >= CHANGE_MAX
        if late or self.rng.random() < self.hears:
            producer.partitions = count

    # --- the command ---

    def command(self) -> None:
        """One step of the command, which remembers nothing between two: it may have been killed in between."""
        broker = self.broker
        goal = self._goal()
        if goal is None:
            return
        plan = plan_growth(
            "model",
            broker.growth.after if broker.growth and self._is_over() else broker.layout,
            [TopicCount(name, kind, broker.counts[name]) for name, kind in TOPICS.items()],
            goal,
            under=Under(broker.growth, broker.phase or Phase.PLANNED, is_over=self._is_over())
            if broker.growth
            else None,
        )
        phase = broker.phase if plan.is_resumed else None
        step = control.next_step(plan, phase, broker.standings, broker.settled if plan.is_resumed else set())
        self._carry_out(plan.growth, step)

    def add_by_hand(self) -> None:
        """Somebody gives the source its partitions with another tool."""
        goal = self._goal()
        if goal is not None and self.is_by_hand and self.broker.counts["source"] < goal:
            self.broker.counts["source"], self.grown_at = goal, self.now

    def _carry_out(self, growth: Growth, step: control.Step) -> None:
        broker = self.broker
        if isinstance(step, Write):
            if step.phase is Phase.BEGUN and self.rng.random() < 0.5:
                self.deaf_until[self.rng.randrange(growth.before.partitions)] = self.now + 3 * LATENESS
            if broker.growth != growth:
                broker.settled = set()
            broker.growth, broker.phase = growth, step.phase
        elif isinstance(step, AddPartitions):
            for addition in step.additions[: self.rng.randint(1, len(step.additions))]:
                broker.counts[addition.topic] = addition.after
                if addition.kind is Kind.SOURCE:
                    self.grown_at = self.now
        else:
            assert isinstance(step, Await | Over)

    def _is_over(self) -> bool:
        growth = self.broker.growth
        return growth is not None and is_over(growth, self.broker.standings, self.broker.settled)

    def _goal(self) -> int | None:
        """The number of partitions that is asked for now."""
        growth = self.broker.growth
        if growth is not None and not self._is_over():
            return growth.after.partitions
        done = growth.after.partitions if growth else self.broker.layout.partitions
        return next((target for target in self.targets if target > done), None)

    @property
    def is_grown(self) -> bool:
        """Whether all growths are over."""
        return self._goal() is None

    # --- workers ---

    def task(self, partition: int) -> Task:
        if partition not in self.tasks:
            self.broker.terms[partition] = self.broker.terms.get(partition, 0) + 1
            self.tasks[partition] = Task(self.broker, partition, self.broker.terms[partition], self.now)
        return self.tasks[partition]

    def work(self) -> None:
        """The task of one partition does one thing, or dies."""
        partition = self.rng.randrange(self.broker.counts["source"])
        if self.away_until.get(partition, 0) > self.now:
            return
        chance = self.rng.random()
        if chance < self.dies:
            self.tasks.pop(partition, None)
            self.kills += 1
            if self.rng.random() < 0.3:
                self.away_until[partition] = self.now + self.rng.randint(1, 80)
            return
        if chance < 2 * self.dies and partition in self.tasks:  # a former owner, which does not know yet
            former = self.tasks.pop(partition)
            self.task(partition)
            self._act(former)
            return
        self._act(self.task(partition))

    def _act(self, task: Task) -> None:
        try:
            self._one_thing(task)
        except Fenced:
            if self.tasks.get(task.partition) is task:
                raise

    def _one_thing(self, task: Task) -> None:
        duty = task.duty
        chance = self.rng.random()
        if duty is Duty.ADOPT and chance < 0.8:
            task.adopt()
        elif duty is Duty.ADOPT:
            task.learn()
            task.tidy()
        elif duty in {Duty.AWAIT_CUT, Duty.REFUSE} or chance < 0.1:
            if self.deaf_until.get(task.partition, 0) <= self.now:
                task.learn()
        elif chance < 0.2:
            task.ask()
        elif chance < 0.9 - self.commits:
            task.process(self.rng.choice((1, 2, 5, 20)), self.now)
        elif chance < 0.9:
            task.commit(self.now)
            if self.rng.random() < 0.8:
                task.cut(self.now)
        elif chance < 0.94 and self.rng.random() < self.tidies:
            task.tidy()
        elif chance < 0.97:
            task.idle(all_are=False)
        elif self.rng.random() < 0.5:
            task.truncate()

    def finish(self) -> None:
        """Nothing more is sent: everything is read, and idle time releases what is held."""
        self.away_until.clear()
        for _ in range(60):
            for partition in range(self.broker.counts["source"]):
                task = self.task(partition)
                task.learn()
                while task.duty is Duty.ADOPT:
                    task.adopt()
                task.is_idle = True
                task.ask()
                for _ in range(3):
                    if task.duty not in {Duty.AWAIT_CUT, Duty.REFUSE}:
                        task.process(1_000, self.now)
                        task.idle(all_are=True)
                        task.commit(self.now)
                        task.cut(self.now)
                task.tidy()
            self.command()
            self.now += QUIET
            if self.is_drained:
                return
        raise AssertionError("the world does not come to an end")

    @property
    def is_drained(self) -> bool:
        partitions = range(self.broker.counts["source"])
        read = all(
            task.own_next == len(self.broker.source.get(task.partition, []))
            and task.forwarded_next == len(self.broker.forwarded.get(task.partition, []))
            and not task.held
            for task in self.tasks.values()
        )
        return self.is_grown and read and len(self.tasks) == len(partitions)


TOPICS = {
    "clean": Kind.OUTPUT,
    "late": Kind.OUTPUT,
    "journal": Kind.STATE,
    "table": Kind.STATE,
    "forwarded": Kind.FORWARDED,
    "source": Kind.SOURCE,
}


def new_world(rng: random.Random) -> World:
    """A world of one to three partitions that grows once or twice."""
    first = rng.choice((1, 2, 3))
    targets = [first * rng.choice((2, 3, 4))]
    if rng.random() < 0.4:
        targets.append(targets[0] * 2)
    broker = Broker(Layout(1, first), dict.fromkeys(TOPICS, first))
    keys = list(range(rng.choice((4, 10, 24))))
    producers = [
        Producer(
            keys=rng.sample(keys, max(1, len(keys) // rng.choice((1, 2, 3)))),
            partitions=first,
            is_sleeper=rng.random() < 0.15,
            is_foreign=rng.random() < 0.1,
        )
        for _ in range(rng.choice((1, 3, 6)))
    ]
    return World(
        rng,
        broker,
        producers,
        targets,
        hears=rng.choice((0.03, 0.5)),
        delays=rng.choice(DELAYS),
        commits=rng.choice((0.05, 0.3)),
        dies=rng.choice((0.02, 0.002)),
        tidies=rng.choice((1.0, 0.01)),
        is_by_hand=rng.random() < 0.1,
    )
