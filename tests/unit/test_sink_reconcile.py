"""A target against its topic: PostgreSQL and Delta Lake, written by their sinks and then damaged."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from deltalake import DeltaTable, write_deltalake

from streams.batch.records import Records
from streams.errors import StreamsError, UsageError
from streams.reconcile.differences import Findings, Kind, Unchecked
from streams.settings import Settings
from streams.sink.batches import Place, prepared
from streams.sink.declared import DeclaredSink
from streams.sink.reconcile.compare import LETTERS, RECORDS, ROWS, Demanded, Reach, Shape, compare
from streams.sink.reconcile.demand import TopicRows
from streams.sink.reconcile.held import Held
from streams.sink.reconcile.held_delta import DeltaHeld
from streams.sink.reconcile.held_postgres import PostgresHeld
from streams.sink.reconcile.targets import held_of
from streams.sink.shape import columns_of
from streams.sinks.delta.target import DeltaTarget
from streams.sinks.postgres.target import PostgresTarget
from streams.sinks.spec import http
from streams.sinks.target import Target
from tests.databases import Database, Postgres
from tests.unit.test_sink_rows import SIMPLE, decoder_of, framed, records_of, simple

COLUMNS = columns_of(json.dumps(SIMPLE))
NAMES = tuple(column.name for column in COLUMNS)
Row = dict[str, Any]


class Subject(Protocol):
    """A target that can be written, read, and damaged."""

    def target(self, key: Sequence[str]) -> Target: ...

    def held(self) -> Held: ...

    def lose(self, where: str) -> None: ...

    def change(self, where: str) -> None:
        """Another `count`."""

    def double(self, where: str) -> None: ...


class InPostgres:
    def __init__(self, database: Database) -> None:
        self._database = database

    def target(self, key: Sequence[str]) -> Target:
        return PostgresTarget(
            self._database.url, sink="s", topic="t", topic_id="x", table="rows", columns=COLUMNS, key=key
        )

    def held(self) -> Held:
        return PostgresHeld(self._database.url, sink="s", topic_id="x", table="rows", columns=COLUMNS)

    def lose(self, where: str) -> None:
        self._database.run("delete from rows where " + where)  # noqa: S608 - of the test

    def change(self, where: str) -> None:
        self._database.run("update rows set count = 7 where " + where)  # noqa: S608 - of the test

    def double(self, where: str) -> None:
        self._database.run("insert into rows select * from rows where " + where)  # noqa: S608 - of the test


class InDelta:
    def __init__(self, folder: Path) -> None:
        self._url = str(folder / "rows")

    def target(self, key: Sequence[str]) -> Target:
        return DeltaTarget(self._url, sink="s", topic_id="x", columns=COLUMNS, key=key)

    def held(self) -> Held:
        return DeltaHeld(self._url, sink="s", topic_id="x", columns=COLUMNS)

    def lose(self, where: str) -> None:
        DeltaTable(self._url).delete(where)

    def change(self, where: str) -> None:
        DeltaTable(self._url).update(updates={"count": "7"}, predicate=where)

    def double(self, where: str) -> None:
        table = DeltaTable(self._url)
        column, _, value = where.partition(" = ")
        kept = table.to_pyarrow_table(filters=[(column, "=", value.strip("'") if "'" in value else int(value))])
        write_deltalake(table, kept, mode="append")


@pytest.fixture(params=["postgres", "delta"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    if request.param == "delta":
        return InDelta(tmp_path)
    postgres: Postgres = request.getfixturevalue("postgres")
    return InPostgres(postgres.database())


class Topic:
    """Records of two partitions, and a sink that has read them up to `read`."""

    def __init__(self, place: Subject, key: Sequence[str] = ()) -> None:
        self.place, self.key = place, tuple(key)
        self.decoder = decoder_of(SIMPLE, has_tombstones=bool(key))
        self.records = [
            records_of(
                [framed(SIMPLE, simple(at, id=f"v{partition}-{at % 4}")) for at in range(20)], partition=partition
            )
            for partition in range(2)
        ]
        self.read = {0: 20, 1: 20}
        self.low = {0: 0, 1: 0}
        self.letters: frozenset[Place] = frozenset()

    def append(self, partition: int, value: bytes | None, key: bytes = b"") -> None:
        before = self.records[partition]
        self.records[partition] = replace(
            before,
            partition=np.append(before.partition, partition),
            offset=np.append(before.offset, len(before)),
            timestamp_ms=np.append(before.timestamp_ms, before.timestamp_ms[-1]),
            key=[*before.listed_keys(), key],
            value=[*before.listed_values(), value],
        )
        self.read[partition] += 1

    def copy(self, without: dict[Place, str] | None = None) -> None:
        """As the process of the sink does, in two batches a partition."""
        target = self.place.target(self.key)
        target.prepare()
        target.open(self.read)
        for each in self.records:
            for part in (slice(0, 9), slice(9, None)):
                some = self._upto(each.take(np.arange(len(each))[part]))
                if len(some):
                    target.write(prepared(some, self.decoder.decode(some), self.key, without=without).batch)
        target.close()

    def _upto(self, records: Records) -> Records:
        return records.take(np.flatnonzero(records.offset < self.read[int(records.partition[0])]))

    def findings(self, slices: int = 1) -> Findings:
        held, found = self.place.held(), Findings()
        read = held.positions(range(2))
        assert self.read == read
        reach = Reach(self.low, read, self.letters)
        for number in range(slices):
            demanded = Demanded(Shape("t", NAMES, self.key), number, slices)
            for each in self.records:
                there = each.take(np.flatnonzero(each.offset >= self.low[int(each.partition[0])]))
                TopicRows(self.decoder, held).take(demanded, there, reach)
            compare(demanded, held.rows(), reach, found)
        held.close()
        return found


def said(found: Findings) -> list[tuple[str, bytes | None, int]]:
    return sorted((str(each.kind), each.key, each.event.offset if each.event else -1) for each in found.differences)


@pytest.mark.parametrize("key", [(), ("id",)])
def test_nothing_is_found_in_what_a_sink_has_written(place: Subject, key: tuple[str, ...]) -> None:
    topic = Topic(place, key)
    if key:
        topic.append(0, None, b"v0-1")
    topic.copy()
    found = topic.findings(slices=3)
    assert not found.differences
    assert not found.unchecked
    assert found.checked[ROWS] == (7 if key else 40)
    assert found.checked[RECORDS] == 3 * (41 if key else 40)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda place: place.lose("streams_offset = 5 and streams_partition = 1"), "is not in the target"),
        (
            lambda place: place.change("streams_offset = 5 and streams_partition = 1"),
            "not what the record says (count)",
        ),
    ],
)
def test_of_rows_without_a_key_a_lost_or_changed_one_is_named_by_its_record(
    place: Subject, damage: Callable[[Subject], None], text: str
) -> None:
    topic = Topic(place)
    topic.copy()
    damage(place)
    (found,) = topic.findings(slices=2).differences
    assert found.event is not None
    assert (Kind.SINK, None, 1, 5) == (found.kind, found.key, found.event.partition, found.event.offset)
    assert text in found.text


def test_of_rows_without_a_key_a_doubled_one_is_named(place: Subject) -> None:
    topic = Topic(place)
    topic.copy()
    place.double("streams_offset = 6")
    found = topic.findings()
    assert [(0, 6), (1, 6)] == sorted(each.event[:2] for each in found.differences if each.event)
    assert all("is in the target 2 times" in each.text for each in found.differences)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda place: place.lose("id = 'v1-3'"), "its row is not in the target"),
        (lambda place: place.change("id = 'v1-3'"), "not what the record says (count)"),
    ],
)
def test_of_keys_a_lost_or_changed_row_is_named_by_its_key_and_its_newest_record(
    place: Subject, damage: Callable[[Subject], None], text: str
) -> None:
    topic = Topic(place, ("id",))
    topic.copy()
    damage(place)
    found = topic.findings()
    assert said(found) == [(Kind.SINK, b"v1-3", 19)]
    assert text in found.differences[0].text


def test_the_columns_of_a_changed_row_say_what_is_expected(place: Subject) -> None:
    topic = Topic(place, ("id",))
    topic.copy()
    place.change("id = 'v0-2'")
    (found,) = topic.findings().differences
    assert [("count", 2**63 - 1 - 18, 7)] == [tuple(column) for column in found.columns]


def test_a_row_that_the_topic_has_deleted_or_never_had_is_found(place: Subject) -> None:
    topic = Topic(place, ("id",))
    topic.copy()
    topic.records[0].value[17] = None  # type: ignore[index]
    topic.records[0].key[17] = b"v0-1"  # type: ignore[index]
    for at in (2, 6, 10, 14, 18):
        topic.records[1].value[at] = framed(SIMPLE, simple(at, id="v1-1"))  # type: ignore[index]
    found = {each.key: each.text for each in topic.findings().differences}
    assert "the topic has deleted it" in found[b"v0-1"]
    assert "the topic has no record of it" in found[b"v1-2"]


def test_a_row_of_which_the_record_is_gone_is_not_judged_and_counted(place: Subject) -> None:
    topic = Topic(place)
    topic.copy()
    topic.low = {0: 8, 1: 0}
    found = topic.findings()
    assert not found.differences
    assert found.unchecked == {Unchecked.TARGET_BEFORE: 8}


def test_a_key_whose_record_was_compacted_away_after_a_later_one_is_no_difference(place: Subject) -> None:
    topic = Topic(place, ("id",))
    topic.copy()
    for at in range(3, 20, 4):  # what the target has read of v1-3 is gone
        topic.records[1].value[at] = framed(SIMPLE, simple(at, id="v1-1"))  # type: ignore[index]
    topic.append(1, framed(SIMPLE, simple(3, id="v1-3")))
    topic.read[1] -= 1  # this one the target has not read
    found = topic.findings()
    assert [b"v1-1"] == [each.key for each in found.differences], "a record that the test has put there"
    assert found.unchecked == {Unchecked.IN_MOTION: 1}


def test_a_record_that_the_target_refuses_has_a_letter_or_is_missed(place: Subject) -> None:
    topic = Topic(place)
    topic.append(0, b"junk")
    topic.copy(without={(1, 4): "refused"})
    missed = topic.findings()
    assert [(Kind.MISSING_LETTER, 20), (Kind.SINK, 4)] == sorted(
        (each.kind, each.event.offset) for each in missed.differences if each.event
    )
    topic.letters = frozenset({(0, 20), (1, 4)})
    told = topic.findings()
    assert not told.differences
    assert told.checked[LETTERS] == 2


def test_rows_of_another_topic_of_the_same_name_are_found(place: Subject) -> None:
    topic = Topic(place)
    topic.copy()
    place.lose("streams_partition = 0")
    topic.records[1] = topic.records[1].take(np.arange(10))
    topic.read = {0: 20, 1: 20}
    found = topic.findings()
    assert found.counts[Kind.SINK] == 20 + 10


def test_what_keeps_no_rows_and_what_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    declared = DeclaredSink(
        http("http://x/y", name="hook", topic="t"), "g", "d", "{}", COLUMNS, (), has_tombstones=False
    )
    with pytest.raises(UsageError, match="keeps no rows that could be compared"):
        held_of(declared, Settings(), "x")
    with pytest.raises(StreamsError, match=r"the Delta table .* cannot be read"):
        InDelta(tmp_path).held()
    with pytest.raises(StreamsError, match="table rows of PostgreSQL cannot be read"):
        PostgresHeld("postgresql://127.0.0.1:1/none", sink="s", topic_id="x", table="rows", columns=COLUMNS)


def test_a_table_that_is_missing_is_said_in_words(postgres: Postgres) -> None:
    held = InPostgres(postgres.database()).held()
    with pytest.raises(StreamsError, match="does not exist"):
        held.positions([0])
    held.close()
