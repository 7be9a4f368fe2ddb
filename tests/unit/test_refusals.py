"""What becomes of an event that an output has refused: of this micro-batch, held from an earlier one, or late."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest

from logistics.flows.gps import GPS
from streams.avro.decode import Decoder
from streams.batch.refs import byte_values
from streams.batch.rejects import Reason
from streams.deadletters.letter.audit import Outcome
from streams.engine.config import TaskConfig
from streams.engine.effects import Effects, PartitionEffects
from streams.engine.engine import Engine, MicroBatch
from streams.engine.refusals import Refusals
from streams.engine.task import PartitionTask
from streams.flow.bounds import Bounds
from streams.kafka.partitioner import partitions_of
from streams.sinks.base import Refused
from streams.sources.base import Idle
from streams.state.memory import MemoryStore
from tests.effects import duplicates, late
from tests.unit.test_decode import KNOWN, NOW, framed, records

TABLE, WINDOW = GPS.tables[0].topic, GPS.windows[0].topic


@pytest.fixture
def engine() -> Engine:
    config = TaskConfig(
        replace(GPS, bounds=Bounds(1_000, idle_ms=1_000, quarantine_rejects=0)),
        lambda _: nullcontext(),
        partial(partitions_of, partitions=1),
    )
    made = Engine(config, Decoder(GPS, record_bytes_max=10_000, skew_ms_max=60_000))
    made.learn(KNOWN)
    made.install(PartitionTask(config, 0, MemoryStore(), None))
    return made


def event(number: int, at_ms: int = 0) -> bytes:
    return framed(event_id=f"e-{number}", sequence=number, event_time=NOW + at_ms)


def refuse(engine: Engine, value: bytes, topic: str = GPS.clean, key: bytes = b"d", partition: int | None = 0) -> None:
    engine.refusals.note([Refused(topic, key, value, partition, "Broker: it does not want it")])


def clean(effects: Effects) -> list[bytes]:
    return [
        value
        for part in effects.partitions
        for records in part.of(Outcome.CLEAN)
        for value in byte_values(records.events.value)
    ]


def letters(effects: Effects) -> list[tuple[Reason, bytes | None, int]]:
    return [(each.reject.reason, each.value, each.offset) for each in effects.dead_letters]


def process(engine: Engine, *values: bytes, start: int = 0, idle: dict[int, Idle] | None = None) -> Effects:
    batch = records(list(values), timestamp=NOW + 60_000) if values else None
    if batch is not None:
        batch.offset[:] += start
    return engine.process(MicroBatch(batch, NOW + 10_000_000, idle or {}))


def test_a_refused_event_of_this_batch_becomes_a_dead_letter_with_its_place(engine: Engine) -> None:
    refuse(engine, event(2))
    effects = process(engine, event(1), event(2), event(3), event(4, at_ms=5_000), start=70)
    assert [event(1), event(3)] == clean(effects)
    assert [(Reason.REFUSED_BY_OUTPUT, event(2), 71)] == letters(effects)
    assert f"{GPS.clean} refuses it: Broker: it does not want it" == effects.dead_letters[0].reject.message


def test_a_refused_event_that_is_held_becomes_a_dead_letter_when_it_is_due(engine: Engine) -> None:
    assert [] == clean(process(engine, event(1), event(2)))
    refuse(engine, event(1))
    effects = process(engine, event(3, at_ms=5_000), start=2)
    assert [event(2)] == clean(effects)
    assert [(Reason.REFUSED_BY_OUTPUT, event(1), -1)] == letters(effects)


def test_a_refused_event_that_is_held_becomes_a_dead_letter_by_idle_time_too(engine: Engine) -> None:
    process(engine, event(1))
    refuse(engine, event(1))
    effects = process(engine, idle={0: Idle(NOW, NOW + 10_000_000)})
    assert [] == clean(effects)
    assert [(Reason.REFUSED_BY_OUTPUT, event(1), -1)] == letters(effects)
    assert engine.close_cycle() is not None


def test_a_copy_of_a_refused_event_is_a_duplicate(engine: Engine) -> None:
    refuse(engine, event(1))
    assert 1 == len(process(engine, event(1)).dead_letters)
    effects = process(engine, event(1), start=1)
    assert [] == letters(effects)
    assert 1 == duplicates(effects.partitions[0])


def test_no_event_is_late_because_of_one_that_was_refused(engine: Engine) -> None:
    process(engine, event(5), start=0)
    refuse(engine, event(5))
    process(engine, event(9, at_ms=10_000), start=1)
    effects = process(engine, event(3, at_ms=-10), start=2)
    assert [] == late(effects.partitions[0])
    assert [event(3, at_ms=-10)] == clean(effects)


def test_an_event_that_the_late_topic_refuses_becomes_a_dead_letter(engine: Engine) -> None:
    process(engine, event(5), event(9, at_ms=10_000))
    behind = event(3, at_ms=-10)
    refuse(engine, behind, topic=GPS.late)
    effects = process(engine, behind, start=2)
    assert [] == late(effects.partitions[0])
    assert [(Reason.REFUSED_BY_OUTPUT, behind, 2)] == letters(effects)


def test_an_event_beyond_the_horizon_that_the_late_topic_refuses_becomes_a_dead_letter(engine: Engine) -> None:
    process(engine, event(9))
    old = event(3, at_ms=-90_000_000)
    refuse(engine, old, topic=GPS.late)
    effects = process(engine, old, start=2)
    assert [] == late(effects.partitions[0])
    assert [(Reason.REFUSED_BY_OUTPUT, old, 2)] == letters(effects)


@pytest.mark.parametrize("topic", [TABLE, WINDOW])
def test_where_a_row_is_refused_the_events_of_its_key_become_dead_letters(engine: Engine, topic: str) -> None:
    refuse(engine, b"a row", topic=topic)
    effects = process(engine, event(1), event(2, at_ms=5_000))
    assert [] == clean(effects)
    assert [event(1), event(2, at_ms=5_000)] == [value for _, value, _ in letters(effects)]
    assert {} == engine.refusals.stopped


def test_a_row_that_is_refused_without_events_of_its_key_stops_the_partition(engine: Engine) -> None:
    refuse(engine, b"a row", topic=WINDOW, partition=None)
    refuse(engine, b"a row", topic=WINDOW, partition=None)
    assert {0} == engine.refusals.stopped.keys()


@pytest.mark.parametrize("topic", [GPS.dlq, GPS.journal, GPS.audit])
def test_a_record_for_which_nothing_stands_in_stops_its_partition_in_words(topic: str) -> None:
    refusals = Refusals(GPS, partial(partitions_of, partitions=1))
    refusals.note([Refused(topic, None, b"x", 7, "Broker: Message size too large")])
    assert {7} == refusals.stopped.keys()
    assert f"{GPS.source}-7 stands still: {topic} refuses a record (Broker: Message size" in refusals.stopped[7]
    refusals.start_again([7])
    assert {} == refusals.stopped


def test_refusals_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.engine.refusals.REFUSALS_KEPT_MAX", 3)
    refusals = Refusals(GPS, partial(partitions_of, partitions=1))
    refusals.note([Refused(GPS.clean, b"k", b"%d" % number, 0, "no") for number in range(10)])
    assert 3 == len(refusals._events)


def test_effects_without_refusals_name_none() -> None:
    assert [] == PartitionEffects(0).refused
    assert not Refusals(GPS, partial(partitions_of, partitions=1))
    assert len(PartitionEffects(0).refused) == 0
