"""What drives a sink, over twins in memory: outages, lost answers, rebalances, zombies, refused rows."""

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from structlog.testing import capture_logs

from streams.batch.rejects import DeadLetter
from streams.errors import StreamsError
from streams.kafka.memory import MemoryChangelog, MemoryKafka
from streams.resilience.breaker import Guard, Limits, State
from streams.schemas.client import RegistryUnavailable
from streams.sink.core import SinkCore, SinkLimits
from streams.sink.guarded import GuardedTarget
from streams.sink.metrics import SinkMetrics
from streams.sink.writing import Writer
from streams.sinks.memory_target import MemoryStore, MemoryTarget
from streams.sinks.target import TargetMismatch, TargetUnavailable
from streams.sources.memory import MemorySource
from tests.unit.test_sink_rows import SIMPLE, decoder_of, framed, simple

TOPIC = "things"
PARTITIONS = 4


class Clock:
    def __init__(self) -> None:
        self.at_s = 1_000.0

    def now_s(self) -> float:
        return self.at_s

    def now_ms(self) -> int:
        return int(self.at_s * 1000)


class Letters:
    def __init__(self) -> None:
        self.sent: list[DeadLetter] = []

    def send(self, letters: Sequence[DeadLetter]) -> None:
        self.sent += letters

    def close(self) -> None:
        """Nothing."""


def at_once(work: Callable[[], Any]) -> "Future[Any]":
    done: Future[Any] = Future()
    try:
        done.set_result(work())
    except Exception as error:  # noqa: BLE001 - raised where the result is asked for
        done.set_exception(error)
    return done


class World:
    """A topic in memory, a store, and processes of a sink."""

    def __init__(self, *, key: tuple[str, ...] = ("id",)) -> None:
        self.kafka, self.store, self.clock, self.letters = MemoryKafka(PARTITIONS), MemoryStore(), Clock(), Letters()
        self.key = key
        self.why: str | None = None
        self.answer_is_lost = False
        self.refuses: Callable[[Any], str | None] = lambda _: None
        self.committed: dict[int, int] = {}
        self.made = 0

    def put(self, partition: int, number: int, name: str | None = None) -> None:
        row = simple(number) if name is None else simple(number, id=name)
        self.kafka.append(TOPIC, partition, row["id"].encode(), framed(SIMPLE, row), 1_000_000)

    def process(self) -> "Process":
        self.made += 1
        return Process(self, f"m{self.made}")

    def rows(self) -> list[tuple[int, int]]:
        rows = [*self.store.rows, *self.store.table.values()]
        return sorted((row["streams_partition"], row["streams_offset"]) for row in rows)


class Process:
    def __init__(
        self,
        world: World,
        member: str,
        submit: Callable[[Callable[[], Any]], "Future[Any]"] = at_once,
        *,
        failures_max: int = 1_000,
    ) -> None:
        self._world = world
        self.target = MemoryTarget(
            world.store, key=world.key, fails=lambda: world.why, answer_is_lost=lambda: world.answer_is_lost,
            refuses=lambda row: world.refuses(row),  # noqa: PLW0108 - a test sets it later
        )  # fmt: skip
        self.metrics = SinkMetrics("s")
        decoder = decoder_of(SIMPLE, has_tombstones=bool(world.key))
        self.guard = Guard("s", limits=Limits(failures_max=failures_max), clock=world.clock.now_s)
        target = GuardedTarget(self.target, self.guard)
        self.core = SinkCore(
            "s", target, Writer(target, decoder, world.letters, key=world.key),
            bounds=lambda p: MemoryChangelog(world.kafka).bounds(TOPIC, p), submit=submit,
            limits=SinkLimits(rows=7, bytes_max=1 << 20, linger_ms=100), metrics=self.metrics,
            commit=world.committed.update, now_s=world.clock.now_s, wall_ms=world.clock.now_ms,
        )  # fmt: skip
        self.source = MemorySource(
            world.kafka, topic=TOPIC, member=member, listener=self.core, now_ms=world.clock.now_ms, batch_records_max=5
        )
        self.core.attach(self.source)
        self.source.subscribe()

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self._world.clock.at_s += 0.05
            self.core.step()

    def settle(self) -> None:
        """Long enough for every pause."""
        for _ in range(60):
            self._world.clock.at_s += 1
            self.core.step()


def test_every_record_is_a_row_and_the_group_hears_of_it() -> None:
    world = World(key=())
    for number in range(20):
        world.put(number % PARTITIONS, number)
    process = world.process()
    process.settle()
    assert world.rows() == [(p, o) for p in range(PARTITIONS) for o in range(5)]
    assert world.committed == world.store.offsets == dict.fromkeys(range(PARTITIONS), 5)
    assert process.core.unready() is None


def test_a_target_that_is_away_keeps_records_waiting_and_then_gets_each_once() -> None:
    world = World(key=())
    process = world.process()
    process.settle()
    world.why = "disk full"
    for number in range(40):
        world.put(number % PARTITIONS, number)
    process.settle()
    assert world.rows() == []
    assert process.core.unready() == "disk full"
    assert process.metrics.registry.get_sample_value("streams_paused_partitions", {"reason": "target"}) == PARTITIONS
    assert process.metrics.registry.get_sample_value("streams_sink_unwritten_seconds", {"sink": "s"}) > 10  # type: ignore[operator]
    world.why = None
    process.settle()
    assert world.rows() == [(p, o) for p in range(PARTITIONS) for o in range(10)]
    assert process.core.unready() is None
    assert process.metrics.registry.get_sample_value("streams_sink_unwritten_seconds", {"sink": "s"}) == 0


def test_a_target_that_stays_away_is_left_alone_by_its_breaker() -> None:
    """After a failed write it is asked where it stands, again and again: these calls count too."""
    world = World(key=())
    process = Process(world, "m1", failures_max=5)
    process.settle()
    world.why = "gone"
    world.put(0, 1)
    process.settle()
    assert str(process.guard.state) != str(State.CLOSED)
    assert process.core.unready() == "gone"
    world.why = None
    process.settle()
    assert str(process.guard.state) == str(State.CLOSED)
    assert world.rows() == [(0, 0)]


def test_a_target_that_answers_questions_and_refuses_every_write_is_left_alone_too() -> None:
    """Such as an endpoint that answers 500, or a full disk: it used to be tried four times a second, for ever."""
    world = World(key=())
    process = Process(world, "m1", failures_max=5)
    process.settle()
    write, tried = process.target.write, list[float]()

    def full(_: object) -> None:
        tried.append(world.clock.at_s)
        raise TargetUnavailable("disk full")

    process.target.write = full  # type: ignore[method-assign, assignment]
    world.put(0, 1)
    troubles = set[str | None]()
    for _ in range(1_200):  # a minute
        process.step()
        if len(tried) > 1:
            troubles.add(process.core.unready())
    assert troubles == {"disk full"}, "it is said without a break"
    assert 5 <= len(tried) <= 12
    assert str(process.guard.state) != str(State.CLOSED)
    process.target.write = write  # type: ignore[method-assign]
    process.settle()
    assert str(process.guard.state) == str(State.CLOSED)
    assert process.core.unready() is None
    assert world.rows() == [(0, 0)]


def test_a_lost_answer_doubles_nothing() -> None:
    world = World(key=())
    process = world.process()
    process.settle()
    world.answer_is_lost = True
    for number in range(8):
        world.put(0, number)
    process.step(4)
    assert world.rows()
    world.answer_is_lost = False
    process.settle()
    assert world.rows() == [(0, o) for o in range(8)]


def test_a_row_that_the_target_refuses_is_a_dead_letter_once() -> None:
    world = World(key=())
    world.refuses = lambda row: "odd" if row["count"] == 2**63 - 4 else None
    for number in range(10):
        world.put(0, number)
    process = world.process()
    process.settle()
    assert world.rows() == [(0, o) for o in range(10) if o != 3]
    assert [(one.partition, one.offset, one.reject.reason) for one in world.letters.sent] == [
        (0, 3, "refused_by_output")
    ]
    assert (
        process.metrics.registry.get_sample_value("streams_sink_records_total", {"sink": "s", "outcome": "rejected"})
        == 1
    )


def test_a_second_process_takes_its_part_and_writes_on() -> None:
    world = World(key=())
    for number in range(20):
        world.put(number % PARTITIONS, number)
    first = world.process()
    first.settle()
    second = world.process()
    for number in range(20):
        world.put(number % PARTITIONS, number)
        first.step()
        second.step()
    first.settle()
    second.settle()
    assert world.rows() == [(p, o) for p in range(PARTITIONS) for o in range(10)]
    assert world.store.epochs == {0: 1, 1: 2, 2: 1, 3: 2}


def test_who_is_fenced_by_a_zombie_takes_the_partition_back() -> None:
    world = World(key=())
    owner = world.process()
    owner.settle()
    zombie = MemoryTarget(world.store)
    zombie.open([0])
    for number in range(6):
        world.put(0, number)
    owner.settle()
    assert world.rows() == [(0, o) for o in range(6)]
    assert owner.metrics.registry.get_sample_value("streams_fenced_total") == 1


def test_what_was_gathered_is_written_before_the_end() -> None:
    world = World(key=())
    process = world.process()
    process.settle()
    world.put(0, 1)
    process.core.step()
    assert world.rows() == []
    process.core.drain(world.clock.at_s + 5)
    process.source.close()
    assert world.rows() == [(0, 0)]


def test_a_target_of_another_shape_ends_the_start_and_stalls_what_runs() -> None:
    world = World(key=())
    process = world.process()
    process.settle()

    def mismatch(*_: object) -> None:
        raise TargetMismatch("column count is text")

    write, process.target.write = process.target.write, mismatch  # type: ignore[method-assign,assignment]
    world.put(0, 1)
    process.step(10)
    assert process.core.unready() == "column count is text"
    process.target.write = write  # type: ignore[method-assign]
    process.settle()
    assert world.rows() == [(0, 0)]
    other = world.process()
    other.target.prepare = mismatch  # type: ignore[method-assign]
    with pytest.raises(TargetMismatch):
        other.step(3)


def test_a_registry_that_is_away_is_waited_for() -> None:
    world = World(key=())
    process = world.process()
    world.put(0, 1)
    decoder = process.core._writer._decoder
    resolve = decoder._resolve

    def away(_: object) -> Any:
        raise RegistryUnavailable("no registry answers")

    decoder._resolve = away
    with capture_logs() as said:
        process.settle()
    assert {line["event"] for line in said if line["log_level"] == "warning"} == {
        "Kafka or the registry cannot be used now: records wait, nothing is lost"
    }, "the target is not blamed"
    assert process.core.unready() == "no registry answers"
    assert not world.letters.sent
    decoder._resolve = resolve
    process.settle()
    assert world.rows() == [(0, 0)]


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.thorough) for seed in range(3, 30))]
)
@pytest.mark.parametrize("key", [(), ("id",)])
def test_whatever_happens_nothing_is_lost_and_nothing_doubled(seed: int, key: tuple[str, ...]) -> None:
    """Processes come, die without a word, stand still and come back; the target fails, and loses answers."""
    chance = random.Random(seed)
    world = World(key=key)
    living, frozen = [world.process()], list[Process]()
    expected: dict[str, tuple[int, int]] = {}
    for number in range(200):
        partition = chance.randrange(PARTITIONS)
        name = f"k{partition}-{chance.randrange(5)}"
        world.put(partition, number, name)
        expected[name] = (partition, len(world.kafka.log(TOPIC, partition)) - 1)
        world.why = "away" if chance.random() < 0.2 else None
        world.answer_is_lost = chance.random() < 0.1
        match chance.randrange(20):
            case 0 if len(living) < 3:
                living.append(world.process())
            case 1 if len(living) > 1:  # killed: the group notices
                dead = living.pop(chance.randrange(len(living)))
                world.kafka.members.discard(dead.source._member)
                for one in [p for p, owner in world.kafka.owners.items() if owner == dead.source._member]:
                    world.kafka.take_back(one)
            case 2 if len(living) > 1:  # stands still for longer than the group waits
                still = next((one for one in living if one.core._gathered), living[0])  # with records in its hands
                living.remove(still)
                frozen.append(still)
                world.kafka.members.discard(still.source._member)
                for one in [p for p, owner in world.kafka.owners.items() if owner == still.source._member]:
                    world.kafka.take_back(one)
            case 3 if frozen:  # wakes up in the middle of a step
                woken = frozen.pop()
                woken.core._not_before_s = 0
                woken.core._begin(is_final=True)
                woken.core._finish()
            case _:
                pass
        world.clock.at_s += chance.choice([0.01, 0.05, 0.2, 3])
        for process in living:
            process.core.step()
    world.why, world.answer_is_lost = None, False
    for _ in range(100):
        world.clock.at_s += 2
        for process in living:
            process.core.step()
    if key:
        assert world.rows() == sorted(expected.values())
    else:
        everything = [(p, o) for p in range(PARTITIONS) for o in range(len(world.kafka.log(TOPIC, p)))]
        assert world.rows() == everything
    assert not world.letters.sent


def test_errors_of_the_target_are_of_no_other_kind() -> None:
    assert not issubclass(TargetUnavailable, StreamsError)
    assert issubclass(TargetMismatch, StreamsError)
