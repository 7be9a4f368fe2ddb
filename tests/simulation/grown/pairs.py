"""One seeded run of a flow that joins two inputs: both grow together, and their producers change at different times.

The traffic has nothing that is late, so that what must come of it is a function of event times alone: for each key the
rows of the model of `tests.joined`, in their order, whatever the partitions.
"""

import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from unittest import mock

import fastavro

from streams.avro.resolve import build_plan
from streams.engine import coupled
from streams.engine.encode import RowEncoder
from streams.flow.builder import Flow
from streams.kafka.partitioner import partition_of
from streams.schemas.catalog import Catalog
from tests.joined import JOINED, Interval, Joined, Latest
from tests.merged import LATENESS_MS, NAMES, Fed
from tests.simulation.grown.run import Producer
from tests.simulation.grown.worker import GrownKafka, GrownWorker
from tests.simulation.grown.world import GrowingFlow, Grown
from tests.simulation.traffic import SCHEMA_ID
from tests.simulation.worker import SimulatedFlow

TIMES_MS: Final = (0, 200, 1_000, 4_000, 20_000)
END_MS: Final = 10**12
"""After all events, so that the model lets everything pass."""


def simulate_pair(seed: int, schemas: Path, *, steps: int) -> Grown:
    """Run one seed and check what came of it; an error names the seed."""
    rng = random.Random(seed)
    try:
        with mock.patch.object(coupled, "COUPLED_RECORDS_MAX", rng.choice((1, 20, 20_000))):
            return _run(rng, schemas, steps)
    except BaseException as error:
        error.add_note(f"failed: make simulate-grow SEED={seed}, two inputs")
        raise


def _run(rng: random.Random, schemas: Path, steps: int) -> Grown:
    model = _model(rng)
    world = _world(rng, model.flow(), schemas)
    world.live(steps, world.send)
    _check(world, model)
    kafka, flow = world.kafka, world.flow
    late = sum(len(kafka.topic_rows(one.late)) for one in flow.inputs)
    return Grown(
        (kafka.partitions, *world.targets), sum(map(len, world.sent.values())), world.forwarded, late,
        sum(worker.crashes for worker in world.team),
    )  # fmt: skip


@dataclass(slots=True)
class World(GrowingFlow):
    """The flow, and the producers of each input."""

    schema: str
    """Of the events of both inputs."""
    row_schema: str
    producers: dict[str, list[Producer]]
    sent: dict[str, list[Fed]] = field(default_factory=lambda: {name: [] for name in NAMES})
    """By input, in the order in which they were appended, copies as often as they were sent."""

    def send(self) -> None:
        """One producer sends one record into one of the inputs: disorder within what is allowed, some copies."""
        rng, number = self.rng, self.rng.randrange(len(NAMES))
        name, topic = NAMES[number], self.flow.inputs[number].topic
        self.now += rng.choice((0, 1, 100, 700))
        producer = rng.choice(self.producers[name])
        if rng.random() < 0.05:
            producer.partitions = self.kafka.count_of(topic)
        earlier = [one for one in self.sent[name][-20:] if one.key.encode() in producer.keys]
        if earlier and rng.random() < 0.1 and self.now - earlier[-1].time < LATENESS_MS // 2:
            one = earlier[-1]
        else:
            key = rng.choice(producer.keys).decode()
            one = Fed(name, key, self.now - rng.choice((0, 0, 300, LATENESS_MS // 2)), rng.randrange(7))
        self.sent[name].append(one)
        text = one.key.encode()
        self.kafka.append(topic, partition_of(text, producer.partitions), text, self._encode(one), self.now)

    def _encode(self, one: Fed) -> bytes:
        stream = io.BytesIO()
        stream.write(b"\0" + SCHEMA_ID.to_bytes(4, "big"))
        fastavro.schemaless_writer(stream, json.loads(self.schema), one.event())
        return stream.getvalue()


def _model(rng: random.Random) -> Latest | Interval:
    outer, grace_ms = rng.random() < 0.7, rng.choice(TIMES_MS)
    if rng.random() < 0.5:
        return Latest(rng.choice(TIMES_MS[1:]), grace_ms, outer)
    return Interval(rng.choice(TIMES_MS), rng.choice(TIMES_MS), grace_ms, outer, rng.choice((2, 100)))


def _world(rng: random.Random, flow: Flow, schemas: Path) -> World:
    catalog, pipeline = Catalog.load(schemas), flow.pipeline
    event, row = (catalog.latest(f"{topic}-value").text for topic in (pipeline.source, JOINED))
    simulated = SimulatedFlow(
        pipeline,
        tuple(build_plan(SCHEMA_ID, event, event) for _ in pipeline.inputs),
        lambda: [RowEncoder(JOINED, row, 9)],
    )
    first = rng.choice((1, 2, 3))
    targets = [first * rng.choice((2, 3))]
    if rng.random() < 0.3:
        targets.append(targets[0] * 2)
    kafka = GrownKafka(first)
    worker = type("PairWorker", (GrownWorker,), {"flow": simulated})
    team = [
        worker(
            f"worker-{number}", kafka, rng, lateness_ms=LATENESS_MS, horizon_ms=10**9, batch_records_max=30,
            faults=rng.random() < 0.9,
        )
        for number in range(rng.choice((1, 2)))
    ]  # fmt: skip
    keys = [b"key-%d" % number for number in range(rng.choice((4, 10, 24)))]

    def producers() -> list[Producer]:
        count = rng.choice((1, 3))
        return [Producer(rng.sample(keys, max(1, len(keys) // count)), first, is_slow=False) for _ in range(count)]

    return World(rng, kafka, team, targets, pipeline, event, row, {name: producers() for name in NAMES})


def _check(world: World, model: Latest | Interval) -> None:
    kafka = world.kafka
    for one in world.flow.inputs:
        assert not kafka.topic_rows(one.dlq), "dead letters"
        assert not kafka.topic_rows(one.late), f"late by the growth: {len(kafka.topic_rows(one.late))} of {one.topic}"
    found = _by_key(_rows(world))
    ends = {name: [Fed(name, "end", world.now + END_MS, 0)] for name in NAMES}
    wanted = _by_key(model.due({name: world.sent[name] + ends[name] for name in NAMES}, 1))
    assert found.keys() == wanted.keys(), f"{model}: keys differ"
    for key, rows in wanted.items():
        assert found[key] == rows, f"{model}: rows of {key}: {found[key]} and not {rows}"


def _rows(world: World) -> list[Joined]:
    schema = fastavro.parse_schema(json.loads(world.row_schema))
    rows = (
        fastavro.schemaless_reader(io.BytesIO((entry.value or b"")[5:]), schema, None)
        for entry in world.kafka.topic_rows(JOINED)  # partitions in order: a key's later home has a higher number
    )
    return [(row["key"], row["time"], row["sequence"], row["watermark"]) for row in rows]


def _by_key(rows: Sequence[Joined]) -> dict[str, list[Joined]]:
    found: dict[str, list[Joined]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    return found
