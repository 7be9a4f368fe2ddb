"""One seeded run: workers run the real core over a flow that grows while producers change, and workers live and die."""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final
from unittest import mock

from loadtest.oracle.model import Event, PartitionModel, compare_rows
from streams.engine import coupled
from streams.growth import control
from streams.growth.committed import standing_of
from streams.growth.control import AddPartitions, Over, Write
from streams.growth.plan import Kind, TopicCount, Under, plan_growth
from streams.growth.stages import Phase, Standing, is_over
from streams.kafka.partitioner import partition_of
from streams.sources.base import Idle
from tests.simulation.grown.worker import GrownKafka, GrownWorker
from tests.simulation.run import MINUTES, decode_row
from tests.simulation.traffic import START_MS, encode
from tests.simulation.worker import PIPELINE

TABLE: Final = PIPELINE.tables[0].topic
TOPICS: Final = {
    PIPELINE.clean: Kind.OUTPUT,
    PIPELINE.late: Kind.OUTPUT,
    PIPELINE.dlq: Kind.OUTPUT,
    PIPELINE.windows[0].topic: Kind.OUTPUT,
    PIPELINE.journal: Kind.STATE,
    TABLE: Kind.STATE,
    PIPELINE.forwarded_of(0): Kind.FORWARDED,
    PIPELINE.source: Kind.SOURCE,
}
LATENESS_MS: Final = 300
ROUNDS_MAX: Final = 400
STEPS: Final = 400


@dataclass(frozen=True, slots=True)
class Grown:
    """What a run has shown."""

    partitions: tuple[int, ...]
    sent: int
    forwarded: int
    late: int
    crashes: int


@dataclass(slots=True)
class Producer:
    """Hashes by the number of partitions that it last heard of."""

    keys: list[bytes]
    partitions: int
    is_slow: bool
    """It hears of new partitions when everybody else has long changed."""


@dataclass(slots=True)
class World:
    """Everything, and what happens next."""

    rng: random.Random
    kafka: GrownKafka
    team: list[GrownWorker]
    producers: list[Producer]
    targets: list[int]
    now: int = START_MS
    sent: list[Event] = field(default_factory=list)
    """In the order in which they were appended, copies as often as they were sent."""
    exempt: set[bytes] = field(default_factory=set)
    """Events of producers that have changed late: they may be late."""
    sequences: Counter[bytes] = field(default_factory=Counter)

    # --- producers ---

    def send(self) -> None:
        """One producer sends one record: disorder within what is allowed, some late, some copies."""
        rng = self.rng
        self.now += rng.choice((0, 1, 7, 50))
        producer = rng.choice(self.producers)
        count = self.kafka.count_of(PIPELINE.source)
        if producer.partitions != count and rng.random() < (0.002 if producer.is_slow else 0.05):
            producer.partitions = count
        known = [event for event in self.sent[-60:] if event.key in producer.keys]
        event = rng.choice(known) if known and rng.random() < 0.1 else self._fresh(rng.choice(producer.keys))
        if producer.is_slow and producer.partitions != count:
            self.exempt.add(event.raw)
        event = event._replace(timestamp_ms=self.now + rng.randint(-3, 30))
        self.sent.append(event)
        key = event.key or b""
        self.kafka.append(PIPELINE.source, partition_of(key, producer.partitions), key, event.raw, event.timestamp_ms)

    def _fresh(self, key: bytes) -> Event:
        rng = self.rng
        self.sequences[key] += rng.choice((0, 1, 1))
        delay = rng.choice((0, 1, LATENESS_MS // 2, LATENESS_MS - 1, LATENESS_MS, rng.randint(0, 5 * LATENESS_MS)))
        fields: dict[str, Any] = {
            "event_id": f"event-{len(self.sent)}", "device_id": key.decode(), "sequence": self.sequences[key],
            "event_time": self.now - delay, "latitude": rng.uniform(-90, 90), "longitude": rng.uniform(-180, 180),
            "speed_kmh": rng.choice((None, 0.0, 55.123)), "heading_deg": None, "altitude_m": None,
        }  # fmt: skip
        return Event(
            offset=0, timestamp_ms=0, key=key, event_id=fields["event_id"], device_id=fields["device_id"],
            sequence=fields["sequence"], event_time_ms=fields["event_time"], latitude=fields["latitude"],
            longitude=fields["longitude"], speed_kmh=fields["speed_kmh"], raw=encode(fields), heading_deg=None,
        )  # fmt: skip

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
        counts = [TopicCount(name, kind, kafka.count_of(name)) for name, kind in TOPICS.items()]
        plan = plan_growth("gps", layout, counts, goal, under=under)
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
        return {partition: standing_of(found) for partition, found in self.kafka.group.items()}

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


def simulate_grown(seed: int, *, steps: int = STEPS) -> Grown:
    """Run one seed and check what came of it; an error names the seed."""
    try:
        return _run(seed, steps)
    except BaseException as error:
        error.add_note(f"failed: make simulate-grow SEED={seed}, with the core of the worker")
        raise


def _run(seed: int, steps: int) -> Grown:
    rng = random.Random(seed)
    with mock.patch.object(coupled, "COUPLED_RECORDS_MAX", rng.choice((1, 20, 20_000))):
        return _grown(rng, steps)


def _grown(rng: random.Random, steps: int) -> Grown:
    world = _world(rng)
    first = world.kafka.partitions
    for partition in range(first):
        world.team[partition % len(world.team)].assign(partition)
    begins_at, backlog = rng.randint(0, steps // 3), rng.random() < 0.3
    for step in range(steps):
        for _ in range(rng.choice((0, 1, 1))):
            world.send()
        if backlog and begins_at - 100 < step < begins_at:
            continue  # nobody works
        if step > begins_at and rng.random() < 0.2:
            world.command()
        for _ in range(rng.choice((1, 2))):
            worker = rng.choice(world.team)
            worker.note()
            worker.step()
        if worker.faults and rng.random() < 0.02:
            world.rebalance()
        if worker.faults and rng.random() < 0.01:
            rng.choice(world.team).crash()
    world.finish()
    _check(world)
    kafka = world.kafka
    stragglers = sum(entry.key is not None for entry in kafka.topic_rows(PIPELINE.forwarded_of(0)))
    return Grown(
        (first, *world.targets), len(world.sent), stragglers, len(kafka.topic_rows(PIPELINE.late)),
        sum(worker.crashes for worker in world.team),
    )  # fmt: skip


def _world(rng: random.Random) -> World:
    first = rng.choice((1, 2, 3))
    targets = [first * rng.choice((2, 3))]
    if rng.random() < 0.3:
        targets.append(targets[0] * 2)
    kafka = GrownKafka(first)
    team = [
        GrownWorker(
            f"worker-{number}", kafka, rng, lateness_ms=LATENESS_MS, horizon_ms=1_000_000, batch_records_max=30,
            faults=rng.random() < 0.9,
        )
        for number in range(rng.choice((1, 2)))
    ]  # fmt: skip
    keys = [b"device-%d" % number for number in range(rng.choice((4, 10, 24)))]
    producers = [
        Producer(rng.sample(keys, max(1, len(keys) // rng.choice((1, 2)))), first, rng.random() < 0.2)
        for _ in range(rng.choice((1, 3, 6)))
    ]
    return World(rng, kafka, team, producers, targets)


# --- what must have come of it --------------------------------------------------------------------------------------


def _check(world: World) -> None:
    kafka = world.kafka
    events = {event.raw: event for event in world.sent}
    clean: dict[bytes, list[Event]] = {}
    for entry in kafka.topic_rows(PIPELINE.clean):  # partitions in order: a key's later home has a higher number
        clean.setdefault(entry.key or b"", []).append(events[entry.value or b""])
    late = [entry.value or b"" for entry in kafka.topic_rows(PIPELINE.late)]
    came = Counter([event.raw for some in clean.values() for event in some] + late)
    assert not kafka.topic_rows(PIPELINE.dlq), "dead letters"
    assert came.keys() == events.keys(), f"I1: {len(events.keys() - came.keys())} lost"
    assert not [raw for raw, count in came.items() if count > 1], "I2: an event twice"
    for key, some in clean.items():
        order = [(event.event_time_ms, event.sequence, event.event_id.encode()) for event in some]
        assert order == sorted(order), f"I3: {key!r} is out of order"
    _check_tables(world, clean)
    in_time = _in_time(world)
    needless = [raw for raw in late if raw in in_time and raw not in world.exempt]
    assert not needless, f"late by the growth: {[events[raw] for raw in needless]}"


def _check_tables(world: World, clean: dict[bytes, list[Event]]) -> None:
    kafka = world.kafka
    partitions = kafka.count_of(TABLE)
    rows: dict[bytes, bytes] = {}
    for partition in range(partitions):
        newest = {entry.key or b"": entry.value for entry in kafka.committed_rows(TABLE, partition)}
        for key, value in newest.items():
            if value is not None:
                assert key not in rows, f"two rows of {key!r}"
                assert partition_of(key, partitions) == partition, f"{key!r} in partition {partition}"
                rows[key] = value
    assert rows.keys() == clean.keys(), "I4: keys of the table differ"
    window = PIPELINE.windows[0].topic
    closed: dict[str, list[dict[str, Any]]] = {}
    for entry in kafka.topic_rows(window):
        row = decode_row(entry.value or b"", MINUTES)
        closed.setdefault(str(row["device_id"]), []).append(row)
    for key, some in clean.items():
        model = PartitionModel(0, 10**12, 60_000, 1 << 20)
        for event in some:
            model.feed(event)
        model.idle(float("inf"))
        assert not compare_rows(model.table[key.decode()], decode_row(rows[key])), f"I4: row of {key!r} differs"
        mine = closed.get(key.decode(), [])
        assert sum(row["events"] for row in mine) == len(some), f"I4: windows of {key!r} differ"
        named = [(row["window_start"], row["revision"]) for row in mine]
        assert len(set(named)) == len(named), f"I4: a revision of {key!r} twice"


def _in_time(world: World) -> set[bytes]:
    """Events that are ahead of the watermark in the one log that they would have been in without the growth."""
    first = world.kafka.partitions
    watermarks: dict[int, float] = {}
    found = set()
    for event in world.sent:
        at = partition_of(event.key or b"", first)
        moved = min(event.event_time_ms, event.timestamp_ms) - LATENESS_MS
        watermarks[at] = max(watermarks.get(at, -1), moved)
        if event.event_time_ms > watermarks[at]:
            found.add(event.raw)
    return found
