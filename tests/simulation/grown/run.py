"""One seeded run: workers run the real core over a flow that grows while producers change, and workers live and die."""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final
from unittest import mock

from loadtest.oracle.model import Event, PartitionModel, compare_rows
from streams.engine import coupled
from streams.kafka.partitioner import partition_of
from tests.simulation.grown.worker import GrownKafka, GrownWorker
from tests.simulation.grown.world import GrowingFlow, Grown
from tests.simulation.run import MINUTES, decode_row
from tests.simulation.traffic import encode
from tests.simulation.worker import PIPELINE

TABLE: Final = PIPELINE.tables[0].topic
LATENESS_MS: Final = 300
STEPS: Final = 400


@dataclass(slots=True)
class Producer:
    """Hashes by the number of partitions that it last heard of."""

    keys: list[bytes]
    partitions: int
    is_slow: bool
    """It hears of new partitions when everybody else has long changed."""


@dataclass(slots=True)
class World(GrowingFlow):
    """A flow of one input, and its producers."""

    producers: list[Producer]
    sent: list[Event] = field(default_factory=list)
    """In the order in which they were appended, copies as often as they were sent."""
    exempt: set[bytes] = field(default_factory=set)
    """Events of producers that have changed late: they may be late."""
    sequences: Counter[bytes] = field(default_factory=Counter)

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
    world.live(steps, world.send)
    _check(world)
    kafka = world.kafka
    return Grown(
        (kafka.partitions, *world.targets), len(world.sent), world.forwarded, len(kafka.topic_rows(PIPELINE.late)),
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
    return World(rng, kafka, team, targets, PIPELINE, producers)


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
