"""Schema ids: what is kept of them, which are looked up, and how many at once."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import pytest

from logistics.flows.gps import GPS
from streams.avro.decode import Decoder
from streams.avro.known import KnownSchemas
from streams.avro.resolve import Plan, build_plan
from streams.batch.records import Records
from streams.batch.rejects import DeadLetter, Reason, Reject
from streams.engine.config import TaskConfig
from streams.engine.engine import Engine, MicroBatch
from streams.engine.task import PartitionTask
from streams.flow.bounds import Bounds
from streams.kafka.partitioner import partitions_of
from streams.limits import SCHEMA_LOOKUPS_AT_ONCE, SCHEMA_LOOKUPS_MAX
from streams.resilience.breaker import Guard
from streams.resilience.retry import Retrier
from streams.schemas.client import Registry, UnknownSchema
from streams.state.memory import MemoryStore
from streams.worker import schemas
from streams.worker.schemas import SchemaLookup
from tests.threads import beside
from tests.unit.test_decode import TEXT, framed

NOW = 1_750_000_000_000


def unknown(schema_id: int) -> Reject:
    return Reject(-1, Reason.UNKNOWN_SCHEMA, "no such schema", schema_id)


def plan(schema_id: int) -> Plan:
    return build_plan(schema_id, TEXT, TEXT)


def test_the_least_recently_used_are_forgotten_first_plans_and_rejects_apart() -> None:
    known = KnownSchemas(plans_max=2, rejects_max=2)
    known.learn({number: plan(number) for number in (1, 2, 3)})
    known.learn({number: unknown(number) for number in (11, 12, 13)})
    known.used([1, 11, 99])
    assert 6 == len(known)
    known.trim()
    assert [3, 1, 13, 11] == list(known)
    assert known.get(2) is None
    assert 1 in known


def test_an_id_that_was_unknown_and_has_a_plan_now_is_known_once() -> None:
    known = KnownSchemas()
    known.learn({1: unknown(1)})
    known.learn({1: plan(1)})
    assert [1] == list(known)
    assert plan(1) == known[1]
    known.forget(1)
    assert [] == list(known)


def engine(rejects_max: int = 100) -> Engine:
    config = TaskConfig(
        replace(GPS, bounds=Bounds(0, idle_ms=1_000, quarantine_rejects=rejects_max)),
        lambda _: nullcontext(),
        partial(partitions_of, partitions=1),
    )
    made = Engine(config, Decoder(GPS, record_bytes_max=10_000, skew_ms_max=60_000))
    for partition in (0, 1):
        made.install(PartitionTask(config, partition, MemoryStore(), None))
    return made


def batch(ids: list[int] | range, *, key: bytes = b"d", partition: int = 0) -> MicroBatch:
    count = len(ids)
    values: list[bytes | None] = [
        framed(schema_id=schema_id, event_id=f"e{number}") for number, schema_id in enumerate(ids)
    ]
    where = np.full(count, partition)
    return MicroBatch(Records(where, np.arange(count), np.full(count, NOW), [key] * count, values), NOW)


def drain(
    subject: Engine, known: Callable[[Any], Plan | Reject] = unknown
) -> tuple[list[DeadLetter], int, list[int | str]]:
    """Answer every look-up until nothing waits; dead letters, events, and ids that were asked for."""
    letters: list[DeadLetter] = []
    asked: list[int | str] = []
    events = 0
    while subject.missing_schemas:
        assert len(subject.missing_schemas) <= SCHEMA_LOOKUPS_MAX
        asked += subject.missing_schemas
        subject.learn({schema_id: known(schema_id) for schema_id in subject.missing_schemas})
        effects = subject.process(MicroBatch(None, NOW))
        letters += effects.dead_letters
        events += effects.records
    return letters, events, asked


def test_a_device_that_sends_junk_ids_is_quarantined_before_all_of_them_are_looked_up() -> None:
    subject = engine()
    subject.process(batch(range(1_000, 6_000)))
    letters, _, asked = drain(subject)
    assert 5_000 == len(letters)
    assert len(asked) <= 2 * SCHEMA_LOOKUPS_MAX


def test_junk_ids_of_a_device_that_is_not_quarantined_are_looked_up_once_each_in_rounds() -> None:
    subject = engine(rejects_max=0)
    subject.process(batch(range(1_000, 2_000)))
    letters, _, asked = drain(subject)
    assert 1_000 == len(letters)
    assert sorted(map(int, asked)) == list(range(1_000, 2_000))


@pytest.mark.thorough
def test_good_records_of_more_schemas_than_are_kept_all_come_through() -> None:
    subject = engine()
    subject._inputs[0].known = KnownSchemas(plans_max=SCHEMA_LOOKUPS_MAX)
    subject.process(batch([*range(1, 301), *range(1, 301)]))
    letters, records, _ = drain(subject, plan)
    assert ([], 600) == (letters, records)
    assert len(subject._inputs[0].known) <= SCHEMA_LOOKUPS_MAX


def test_a_partition_with_junk_does_not_keep_the_ids_of_another_one_from_being_looked_up() -> None:
    subject = engine(rejects_max=0)
    mine, others = batch(range(1_000, 2_000)).records, batch([7], partition=1).records
    assert mine is not None
    assert others is not None
    subject.process(MicroBatch(Records.concat([mine, others]), NOW))
    assert 7 in subject.missing_schemas


class _Registry:
    """Knows nothing, and notes how many ask at once."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.at_once = self.at_once_max = 0
        self._lock = threading.Lock()

    def schema_by_id(self, schema_id: int) -> None:
        with self._lock:
            self.at_once += 1
            self.at_once_max = max(self.at_once, self.at_once_max)
            self.asked.append(schema_id)
        with self._lock:
            self.at_once -= 1
        raise UnknownSchema(f"no {schema_id}")


@pytest.fixture
def registry() -> _Registry:
    return _Registry()


@pytest.fixture
def lookup(registry: _Registry) -> SchemaLookup:
    guard = Guard("registry")
    return SchemaLookup(cast("Registry", registry), TEXT, guard=guard, retrier=Retrier(threading.Event()))


def test_every_id_is_asked_for_once_and_not_too_many_at_the_same_time(
    lookup: SchemaLookup, registry: _Registry
) -> None:
    learned: dict[int | str, object] = {}
    asyncio.run(lookup.resolve(frozenset(range(500)), learned.update))
    assert list(range(500)) == sorted(registry.asked)
    assert set(range(500)) == learned.keys()
    assert registry.at_once_max <= SCHEMA_LOOKUPS_AT_ONCE


def test_unknown_ids_are_remembered_up_to_a_bound_and_those_dropped_are_asked_for_again(
    lookup: SchemaLookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "UNKNOWN_SCHEMAS_MAX", 3)
    asyncio.run(lookup.resolve(frozenset(range(5)), lambda _: None))
    assert 2 == len(lookup.expired())
    assert [] == lookup.expired()


def test_unknown_ids_are_noted_while_another_thread_takes_those_that_are_due(
    lookup: SchemaLookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "UNKNOWN_SCHEMA_TTL_MS", 1)
    with beside(lookup.expired):
        asyncio.run(lookup.resolve(frozenset(range(2_000)), lambda _: None))
