"""One seeded simulation: fill a log, let workers live and die over it, then compare everything with the model."""

import io
import json
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import fastavro

from loadtest.oracle.model import Event, PartitionModel, Reject, compare_rows
from logistics.flows.gps import GPS
from streams.kafka.memory import MemoryKafka
from streams.schemas.catalog import Catalog
from streams.sinks.memory import Refuses, refuses_nothing
from streams.sources.base import Idle
from tests.simulation.traffic import NOW_MS, fill
from tests.simulation.worker import COOLDOWN_MS, PIPELINE, REJECTS_MAX, SimulatedWorker
from tests.window_model import WindowModel

QUARANTINE_OF_MODEL: Mapping[str, Any] = {"quarantine_rejects": REJECTS_MAX, "quarantine_cooldown_ms": COOLDOWN_MS}
MINUTES = "vehicles.minutes.v1-value"


@dataclass(frozen=True)
class Outcome:
    """What the outputs hold: equal for equal logs, however they were processed (I8)."""

    clean: dict[bytes, list[bytes]]
    late: list[tuple[bytes, bytes, bytes, bytes]]
    dead: list[tuple[str, bytes, bytes]]
    table: dict[bytes, bytes]
    windows: dict[bytes, list[bytes]]
    """Of each device its rows, in order."""
    crashes: int


P = ParamSpec("P")


def _says_its_seed(run: Callable[Concatenate[int, P], Outcome]) -> Callable[Concatenate[int, P], Outcome]:
    """Whatever it fails of, it says how to run it again."""

    @wraps(run)
    def running(seed: int, /, *rest: P.args, **options: P.kwargs) -> Outcome:
        try:
            return run(seed, *rest, **options)
        except Exception as error:
            error.add_note(f"failed: make simulate SEED={seed}")
            raise

    return running


@_says_its_seed
def simulate(
    seed: int,
    *,
    events: int = 400,
    partitions: int = 2,
    workers: int = 2,
    batch_records_max: int = 30,
    faults: bool = True,
    lateness_ms: int = 300,
    horizon_ms: int = 20_000,
    traffic_seed: int | None = None,
    refuses: Refuses = refuses_nothing,
    checked: bool = True,
    drained: Collection[int] | None = None,
) -> Outcome:
    """Run one simulation to the end of its log and check it against the model; AssertionError names the seed.

    `drained`: partitions that must come to their end; None: all.
    """
    rng = random.Random(seed)
    kafka = MemoryKafka(partitions)
    fed = fill(
        kafka,
        GPS.source,
        random.Random(seed if traffic_seed is None else traffic_seed),
        events=events,
        devices=6,
        lateness_ms=lateness_ms,
    )
    team: list[SimulatedWorker] = []
    in_flight: list[SimulatedWorker] = []

    def meanwhile(worker: SimulatedWorker, moment: str) -> None:
        """While a commit of `worker` is in flight, another one may take a partition over and commit its own cycles."""
        chance = 0.7 if moment == "answer lost" else 0.03
        # One at a time: a worker hears of a new generation by a poll, which also tells it what it has lost before that.
        if worker.faults and not in_flight and not worker.is_zombie and rng.random() < chance:
            in_flight.append(worker)
            _rebalance_in_flight(rng, team, worker)
            in_flight.clear()

    team += [
        SimulatedWorker(
            f"worker-{i}",
            kafka,
            rng,
            lateness_ms=lateness_ms,
            horizon_ms=horizon_ms,
            batch_records_max=batch_records_max,
            faults=faults,
            meanwhile=meanwhile,
            refuses=refuses,
        )
        for i in range(workers)
    ]
    for partition in range(partitions):
        team[partition % workers].assign(partition)
    for _ in range(100_000):
        worker = rng.choice(team)
        worker.note()
        worker.step()
        if faults and rng.random() < 0.03:
            _rebalance(rng, team, kafka, partitions)
        if worker.commits.is_under_way and rng.random() < 0.5:
            meanwhile(worker, "answer lost")
        if _drained(team, kafka, range(partitions) if drained is None else drained):
            break
    else:
        raise AssertionError(f"not drained: make simulate SEED={seed}")
    _finish(team, kafka)
    outcome = _outcome(kafka, sum(worker.crashes for worker in team))
    if not checked:
        return outcome
    _check(seed, outcome, fed, lateness_ms, horizon_ms, lambda event: refuses(GPS.clean, event.key, event.raw))
    return outcome


class RefusingModel(PartitionModel):
    """The model of a partition of which outputs refuse events: dead letters that have no effect on their key."""

    refuses: Callable[[Event], bool]
    refused: list[Reject]

    def _judge(self, event: Event) -> None:  # type: ignore[override]
        if not self.refuses(event):
            super()._judge(event)
        elif event.event_time_ms >= self.watermark - self.horizon_ms and event.identity in self._seen:
            self.duplicates.append(event)
        else:
            self._seen.add(event.identity)
            self.refused.append(Reject(event.offset, event.key, event.raw, "refused_by_output"))


def _rebalance(rng: random.Random, team: list[SimulatedWorker], kafka: MemoryKafka, partitions: int) -> None:
    partition = rng.randrange(partitions)
    owner = next(worker for worker in team if worker.name == kafka.owners[partition])
    other = rng.choice(team)
    if rng.random() < 0.7:
        owner.revoke(partition)
        if kafka.owners[partition] == owner.name:  # it may have gone elsewhere while the last commit was in flight
            other.assign(partition)
        if rng.random() < 0.5:  # who takes over is faster than the release, should that be still under way
            other.note()
            other.work_and_commit()
        for _ in range(rng.randint(0, 6)):  # the release may be under way; the owner polls on
            worker = rng.choice((owner, owner, other))
            worker.note()
            worker.step()
    elif other is not owner:
        # A zombie: it does not know yet, and goes on until its commit is fenced.
        other.assign(partition)
        owner.is_zombie = True
        for _ in range(rng.randint(0, 3)):
            owner.step()
        owner.is_zombie = False
        owner.lose(partition)


def _rebalance_in_flight(rng: random.Random, team: list[SimulatedWorker], owner: SimulatedWorker) -> None:
    mine = sorted(p for p, name in owner.kafka.owners.items() if name == owner.name)
    others = [worker for worker in team if worker is not owner]
    if not others or not mine:
        return
    partition, other = rng.choice(mine), rng.choice(others)
    other.assign(partition)
    for _ in range(rng.randint(1, 3)):
        other.note()
        other.work_and_commit()
    comes_back = rng.random() < 0.5
    if comes_back:
        other.lose(partition)
    owner.lose(partition)
    if comes_back:
        owner.assign(partition)
    owner.note()


def _drained(team: list[SimulatedWorker], kafka: MemoryKafka, partitions: Collection[int]) -> bool:
    return all(
        any(
            kafka.owners[p] == worker.name and worker.position.get(p, -1) >= len(kafka.log(GPS.source, p))
            for worker in team
        )
        for p in partitions
    )


def _finish(team: list[SimulatedWorker], kafka: MemoryKafka) -> None:
    """Let idle partitions release what they hold, commit without further faults, stop cleanly."""
    for worker in team:
        worker.faults = False
    for worker in team:
        worker.note()
        worker.catch_up()
        reloads = -1
        while reloads != worker.reloads:  # an output may refuse what is released last, too
            reloads = worker.reloads
            for until_ms in (0, 10**14):
                for _ in range(2):
                    worker.poll(dict.fromkeys(worker.position, Idle(0, until_ms)))
                    worker.process()
            worker.catch_up()
        for partition in list(worker.position):
            worker.revoke(partition)


def _outcome(kafka: MemoryKafka, crashes: int) -> Outcome:
    clean: dict[bytes, list[bytes]] = {}
    for entry in kafka.topic_rows(GPS.clean):
        clean.setdefault(entry.key or b"", []).append(entry.value or b"")
    late = sorted(
        (
            e.key or b"",
            e.value or b"",
            dict(e.headers or [])["late.reason"] or b"",
            dict(e.headers or [])["late.by_ms"] or b"",
        )
        for e in kafka.topic_rows(GPS.late)
    )
    dead = sorted(
        ((dict(e.headers or [])["dlq.reason"] or b"").decode(), e.key or b"", e.value or b"")
        for e in kafka.topic_rows(GPS.dlq)
    )
    table = {entry.key or b"": entry.value or b"" for entry in kafka.topic_rows("vehicles.state.v1")}
    windows: dict[bytes, list[bytes]] = {}
    for entry in kafka.topic_rows("vehicles.minutes.v1"):
        windows.setdefault(entry.key or b"", []).append(entry.value or b"")
    return Outcome(clean, late, dead, table, windows, crashes)


def _check(
    seed: int,
    outcome: Outcome,
    fed: dict[int, list[Event | Reject]],
    lateness_ms: int,
    horizon_ms: int,
    refuses: Callable[[Event], bool],
) -> None:
    again = f"failed: make simulate SEED={seed}"
    models = []
    windows: dict[str, list[dict[str, object]]] = {}
    for records in fed.values():
        model = RefusingModel(lateness_ms, horizon_ms, 60_000, 1 << 20, **QUARANTINE_OF_MODEL, now_ms=NOW_MS)
        model.refuses, model.refused = refuses, []
        window = PIPELINE.windows[0]
        stepwise = WindowModel(model, size_ms=window.size_ms, grace_ms=window.grace_ms)
        for record in records:
            stepwise.feed(record)
        stepwise.idle(float("inf"))
        models.append(model)
        windows |= stepwise.rows
    expected_clean: dict[bytes, list[bytes]] = {}
    for model in models:
        for event in model.clean:
            expected_clean.setdefault(event.entity.encode(), []).append(event.raw)
    clean_ids = Counter(raw for raws in outcome.clean.values() for raw in raws)
    assert not [raw for raw, count in clean_ids.items() if count > 1], f"I2 duplicated in clean; {again}"
    assert outcome.clean == expected_clean, f"I1/I3 clean differs; {again}"
    expected_late = sorted(
        (late.event.key or b"", late.event.raw, late.reason.encode(), str(late.by_ms).encode())
        for model in models
        for late in model.late
    )
    assert outcome.late == expected_late, f"late differs; {again}"
    expected_dead = sorted(
        (r.reason, r.key or b"", r.raw) for model in models for r in (*model.rejected, *model.refused)
    )
    assert outcome.dead == expected_dead, f"I6 dead letters differ; {again}"
    rows = {device.encode(): row for model in models for device, row in model.table.items()}
    assert outcome.table.keys() == rows.keys(), f"I4 table keys differ; {again}"
    for device, row in rows.items():
        assert not compare_rows(row, decode_row(outcome.table[device])), f"I4 row of {device!r} differs; {again}"
    found = {k.decode(): [decode_row(raw, MINUTES) for raw in raws] for k, raws in outcome.windows.items()}
    assert found == windows, f"windows differ; {again}"


def decode_row(value: bytes, subject: str = "vehicles.state.v1-value") -> dict[str, object]:
    schema = json.loads(Catalog.load().latest(subject).text)
    for field in schema["fields"]:
        field["type"] = _plain(field["type"])
    record = fastavro.schemaless_reader(io.BytesIO(value[5:]), fastavro.parse_schema(schema), None)
    assert isinstance(record, dict)
    return record


def _plain(kind: object) -> object:
    if isinstance(kind, list):
        return [_plain(branch) for branch in kind]
    return kind["type"] if isinstance(kind, dict) else kind
