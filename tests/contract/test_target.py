"""One contract over the targets of sinks: the twin in memory, PostgreSQL, Delta Lake."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from streams.sinks.delta.target import DeltaTarget
from streams.sinks.memory_target import MemoryStore, MemoryTarget
from streams.sinks.postgres.target import PostgresTarget
from streams.sinks.target import RowsRefused, TakenOver, Target, TargetBatch, TargetColumn
from tests.databases import Postgres

COLUMNS = (
    TargetColumn("id", "string", pa.string(), is_nullable=False),
    TargetColumn("count", "long", pa.int64()),
    TargetColumn("speed", "double", pa.float64()),
    TargetColumn("at", "timestamp", pa.timestamp("ms", "UTC")),
)
SCHEMA = pa.schema([pa.field(column.name, column.arrow) for column in COLUMNS])
AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


class Subject(Protocol):
    """A target that can be made several times over the same store, and what is in it."""

    def target(self, *, key: Sequence[str] = ()) -> Target: ...

    def rows(self) -> list[tuple[Any, ...]]:
        """(id, count, partition, offset), sorted."""


class MemorySubject:
    def __init__(self) -> None:
        self._store = MemoryStore()

    def target(self, *, key: Sequence[str] = ()) -> Target:
        return MemoryTarget(self._store, key=tuple(key), refuses=lambda row: "NUL" if "\0" in row["id"] else None)

    def rows(self) -> list[tuple[Any, ...]]:
        found = [*self._store.rows, *self._store.table.values()]
        return sorted((row["id"], row["count"], row["streams_partition"], row["streams_offset"]) for row in found)


class PostgresSubject:
    def __init__(self, postgres: Postgres) -> None:
        self._database = postgres.database()

    def target(self, *, key: Sequence[str] = ()) -> Target:
        return PostgresTarget(
            self._database.url, sink="s", topic="t", topic_id="x", table="positions", columns=COLUMNS, key=key
        )

    def rows(self) -> list[tuple[Any, ...]]:
        return self._database.rows(
            'select id, "count", streams_partition, streams_offset from positions order by 1, 2, 3, 4'
        )


class DeltaSubject:
    def __init__(self, folder: Path) -> None:
        self._url = str(folder / "positions")

    def target(self, *, key: Sequence[str] = ()) -> Target:
        return DeltaTarget(self._url, sink="s", topic_id="x", columns=COLUMNS, key=key, day_of="" if key else "at")

    def rows(self) -> list[tuple[Any, ...]]:
        positions = DeltaTable(self._url).to_pyarrow_table()
        found = duckdb.execute(
            "select id, count, streams_partition, streams_offset from positions order by all"
        ).fetchall()
        assert len(found) == len(positions)
        return found


@pytest.fixture(params=["memory", "postgres", "delta"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    if request.param == "memory":
        return MemorySubject()
    if request.param == "delta":
        return DeltaSubject(tmp_path)
    return PostgresSubject(request.getfixturevalue("postgres"))


def batch(
    rows: Sequence[tuple[str, int | None]],
    *,
    partition: int = 0,
    first: int = 0,
    offsets: Mapping[int, int] | None = None,
    deleted: Sequence[str] = (),
) -> TargetBatch:
    columns = [[row[0] for row in rows], [row[1] for row in rows], [1.5] * len(rows), [AT] * len(rows)]
    count = len(rows) + len(deleted)
    return TargetBatch(
        rows=pa.RecordBatch.from_arrays(
            [pa.array(values, each.type) for values, each in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
        ),
        partition=np.full(len(rows), partition, dtype=np.int64),
        offset=np.arange(first, first + len(rows), dtype=np.int64),
        offsets=offsets or {partition: first + count},
        deleted=deleted,
        deleted_partition=np.full(len(deleted), partition, dtype=np.int64),
        deleted_offset=np.arange(first + len(rows), first + count, dtype=np.int64),
    )


def opened(subject: Subject, *partitions: int, key: Sequence[str] = ()) -> Target:
    made = subject.target(key=key)
    made.prepare()
    made.open(partitions)
    return made


def test_rows_and_offsets_are_there_together(subject: Subject) -> None:
    target = opened(subject, 0, 1)
    assert target.positions([0, 1]) == {0: -1, 1: -1}
    target.write(batch([("a", 1), ("b", None)]))
    target.write(batch([("a", 1)], partition=1, first=7))
    assert target.positions([0, 1]) == {0: 2, 1: 8}
    assert subject.rows() == [("a", 1, 0, 0), ("a", 1, 1, 7), ("b", None, 0, 1)]
    target.close()


def test_an_offset_may_move_without_rows(subject: Subject) -> None:
    target = opened(subject, 0)
    target.write(batch([], offsets={0: 12}))
    assert target.positions([0]) == {0: 12}
    target.close()


def test_who_comes_later_goes_on_where_the_other_one_stopped(subject: Subject) -> None:
    first = opened(subject, 0)
    first.write(batch([("a", 1)]))
    first.close()
    second = subject.target()
    second.prepare()
    assert second.open([0, 1]) == {0: 1, 1: -1}
    second.close()


def test_a_row_of_a_key_replaces_the_one_before(subject: Subject) -> None:
    target = opened(subject, 0, key=["id"])
    target.write(batch([("a", 1), ("b", 2)]))
    target.write(batch([("a", 3)], first=2, deleted=["b"]))
    assert subject.rows() == [("a", 3, 0, 2)]
    target.close()


def test_a_row_of_a_lower_partition_does_not_replace_one_of_a_higher(subject: Subject) -> None:
    target = opened(subject, 0, 3, key=["id"])
    target.write(batch([("a", 2)], partition=3))
    target.write(batch([("a", 1)], partition=0, first=40, deleted=["a"]))
    assert subject.rows() == [("a", 2, 3, 0)]
    target.close()


def test_a_deletion_of_what_is_not_there_is_none(subject: Subject) -> None:
    target = opened(subject, 0, key=["id"])
    target.write(batch([], deleted=["z"]))
    assert target.positions([0]) == {0: 1}
    target.close()


def test_a_zombie_writes_nothing_once_another_has_taken_over(subject: Subject) -> None:
    zombie = opened(subject, 0, 1)
    zombie.write(batch([("a", 1)]))
    owner = opened(subject, 0)
    with pytest.raises(TakenOver) as told:
        zombie.write(batch([("zombie", 1)], first=1, offsets={0: 2, 1: 9}))
    assert told.value.partitions == {0}
    with pytest.raises(TakenOver):
        zombie.positions([0])
    assert zombie.positions([1]) == {1: -1}
    owner.write(batch([("b", 2)], first=1))
    assert [row[0] for row in subject.rows()] == ["a", "b"]
    zombie.close()
    owner.close()


def test_a_partition_that_was_not_opened_cannot_be_written(subject: Subject) -> None:
    target = opened(subject, 0, 1)
    target.release([1])
    with pytest.raises(TakenOver):
        target.write(batch([("a", 1)], partition=1))
    assert subject.rows() == []
    target.close()


def test_rows_that_the_target_cannot_hold_are_named_and_nothing_is_written(subject: Subject) -> None:
    target = opened(subject, 0)
    refused = _refused(target, batch([("a", 1), ("b\0c", 2), ("d", 3)]))
    if refused is None:
        assert len(subject.rows()) == 3
    else:
        assert list(refused) == [(0, 1)]
        assert "NUL" in refused[0, 1]
        assert subject.rows() == []
        assert target.positions([0]) == {0: -1}
    target.close()


def _refused(target: Target, rows: TargetBatch) -> dict[tuple[int, int], str] | None:
    try:
        target.write(rows)
    except RowsRefused as refused:
        return refused.rows
    return None
