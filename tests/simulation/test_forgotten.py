"""A key is forgotten while workers crash, lose partitions and hear late of requests: once, whole, and no other key.

The production core, restore and committer over an in-memory Kafka, as in `run.py`.
"""

import random
import uuid
from collections import Counter
from dataclasses import replace

import pytest

from logistics.flows.gps import GPS
from streams.deadletters.letter.audit import Actor
from streams.engine.changelog_rows import FORGOTTEN_HEADER
from streams.engine.forget import ForgetRequest, OpenRequests
from streams.kafka.memory import MemoryChangelog, MemoryKafka
from streams.kafka.partitioner import partition_of
from streams.sources.base import Idle
from streams.worker.core import Ports
from streams.worker.ports import AskedToForget
from tests.simulation.run import _drained, _rebalance, _rebalance_in_flight, decode_row
from tests.simulation.traffic import NOW_MS, encode, fill
from tests.simulation.worker import SimulatedWorker

KEY = b"device-5"
TABLE = "vehicles.state.v1"
LATER = 3
"""Events of the key after it was forgotten."""
SEEDS = 20


class MemoryForgets:
    """`ForgetNews` of one process: reads the requests now and then, so that what it says is of some time ago."""

    def __init__(self, worker: "ForgettingWorker") -> None:
        self._worker = worker
        self._requests = OpenRequests(GPS, MemoryChangelog(worker.kafka))
        self._asked: AskedToForget | None = None

    def asked(self) -> AskedToForget | None:
        if self._worker.rng.random() < 0.3:
            read_at_s = self._worker.clock.monotonic_s()
            self._asked = AskedToForget(read_at_s, self._requests.read())
        return self._asked


class ForgettingWorker(SimulatedWorker):
    def _ports(self) -> Ports:
        return replace(super()._ports(), forgets=MemoryForgets(self))


class World:
    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.kafka = kafka = MemoryKafka(2)
        kafka.counts[GPS.forget] = 1
        fill(kafka, GPS.source, random.Random(seed), events=150, devices=6, lateness_ms=300)
        self.partition = partition_of(KEY, 2)
        self.in_flight: list[SimulatedWorker] = []
        self.team: list[SimulatedWorker] = []
        self.team += [
            ForgettingWorker(
                f"worker-{number}", kafka, rng, lateness_ms=300, horizon_ms=20_000, batch_records_max=20, faults=True,
                meanwhile=self.meanwhile,
            )
            for number in range(2)
        ]  # fmt: skip
        for partition, worker in enumerate(self.team):
            worker.assign(partition)

    def meanwhile(self, worker: SimulatedWorker, moment: str) -> None:
        chance = 0.7 if moment == "answer lost" else 0.03
        if worker.faults and not self.in_flight and not worker.is_zombie and self.rng.random() < chance:
            self.in_flight.append(worker)
            _rebalance_in_flight(self.rng, self.team, worker)
            self.in_flight.clear()

    def ask(self) -> None:
        after = len(self.kafka.log(GPS.source, self.partition))
        request = ForgetRequest(uuid.UUID(int=self.rng.getrandbits(128)).hex, KEY, (after,), Actor("me", "why", "run"))
        self.kafka.append(GPS.forget, 0, request.id.encode(), request.pack(), NOW_MS)

    @property
    def is_open(self) -> bool:
        return bool(OpenRequests(GPS, MemoryChangelog(self.kafka)).read())

    def work(self, *, faults: bool) -> None:
        for worker in self.team:
            worker.faults = faults
        worker = self.rng.choice(self.team)
        worker.note()
        worker.step()
        if faults and self.rng.random() < 0.03:
            _rebalance(self.rng, self.team, self.kafka, 2)

    def idle(self) -> None:
        """All that is held is released."""
        for worker in self.team:
            worker.faults = False
            worker.note()
            worker.catch_up()
            for until_ms in (0, 400_000):
                worker.poll(dict.fromkeys(worker.position, Idle(0, until_ms)))
                worker.process()
            worker.catch_up()

    def send_later(self) -> None:
        for number in range(LATER):
            time = NOW_MS - 1_000 + number
            value = encode(
                {
                    "event_id": f"later-{number}", "device_id": KEY.decode(), "sequence": 10**6 + number,
                    "event_time": time, "latitude": 1.0, "longitude": 1.0, "speed_kmh": 50.0, "heading_deg": None,
                    "altitude_m": None,
                }
            )  # fmt: skip
            self.kafka.append(GPS.source, self.partition, KEY, value, time)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_key_is_forgotten_once_by_workers_that_run_and_whatever_fails(seed: int) -> None:
    world = World(seed)
    at = world.rng.randrange(150 if seed % 2 else 40)
    for step in range(100_000):
        if step == at:
            world.ask()
        world.work(faults=True)
        if step > at and _drained(world.team, world.kafka, range(2)):
            break
    world.idle()
    for _ in range(3_000):
        if not world.is_open:
            break
        world.work(faults=False)
    assert not world.is_open, "nobody has carried it out"
    kafka = world.kafka
    before = len([one for one in kafka.topic_rows(GPS.clean) if one.key == KEY])
    assert before
    world.send_later()
    for _ in range(3):
        world.idle()
    told = [one for one in kafka.topic_rows(GPS.audit) if b'"forgotten"' in (one.value or b"")]
    gone = [
        one for one in kafka.topic_rows(TABLE)
        if one.value is None and one.key == KEY and [name for name, _ in one.headers or ()] == [FORGOTTEN_HEADER]
    ]  # fmt: skip
    assert (len(told), len(gone)) == (1, 1)
    clean = Counter(one.key for one in kafka.topic_rows(GPS.clean))
    assert clean[KEY] == before + LATER
    newest = {one.key: one.value for one in kafka.topic_rows(TABLE)}
    events = {key: decode_row(value)["events"] for key, value in newest.items() if value is not None}
    assert events == {**clean, KEY: LATER}
