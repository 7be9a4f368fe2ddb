"""PostgreSQL as a target: types, drift, refused rows, outages. A real server; no broker."""

import threading
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from streams.sink.reconcile.held_postgres import PostgresHeld
from streams.sinks.postgres.target import PostgresTarget
from streams.sinks.target import RowsRefused, TakenOver, TargetBatch, TargetColumn, TargetMismatch, TargetUnavailable
from tests.databases import Database, Postgres

ID = TargetColumn("id", "string", pa.string(), is_nullable=False)
COUNT = TargetColumn("count", "long", pa.int64())
EVERY = (
    ID,
    TargetColumn("b", "boolean", pa.bool_()),
    TargetColumn("i", "int", pa.int32()),
    TargetColumn("l", "long", pa.int64()),
    TargetColumn("f", "float", pa.float32()),
    TargetColumn("d", "double", pa.float64()),
    TargetColumn("x", "bytes", pa.binary()),
    TargetColumn("t", "timestamp", pa.timestamp("us", "UTC")),
    TargetColumn("lt", "local_timestamp", pa.timestamp("ms")),
    TargetColumn("day", "date", pa.date32()),
    TargetColumn("tm", "time", pa.time64("us")),
    TargetColumn("n", "decimal", pa.decimal128(10, 2), precision=10, scale=2),
    TargetColumn("j", "json", pa.string()),
)
NASTY = [
    '"',
    "",
    "a,b",
    "line\nline",
    "\\.",
    "x\n\\.\ny",
    "\r\\.",
    "\\N",
    "NULL",
    "tab\t",
    "Zürich \U0001f69a",
    "'; drop",
]


@pytest.fixture
def database(postgres: Postgres) -> Database:
    return postgres.database()


def target_of(
    database: Database, columns: Sequence[TargetColumn], *, key: Sequence[str] = (), url: str = ""
) -> PostgresTarget:
    return PostgresTarget(
        url or database.url, sink="s", topic="t", topic_id="x", table="things", columns=columns, key=key
    )


def batch(columns: Sequence[TargetColumn], rows: Sequence[Sequence[Any]], first: int = 0) -> TargetBatch:
    schema = pa.schema([pa.field(column.name, column.arrow) for column in columns])
    arrays = [pa.array([row[at] for row in rows], column.arrow) for at, column in enumerate(columns)]
    return TargetBatch(
        rows=pa.RecordBatch.from_arrays(arrays, schema=schema),
        partition=np.zeros(len(rows), dtype=np.int64),
        offset=np.arange(first, first + len(rows), dtype=np.int64),
        offsets={0: first + len(rows)},
    )


def opened(database: Database, columns: Sequence[TargetColumn], *, key: Sequence[str] = ()) -> PostgresTarget:
    target = target_of(database, columns, key=key)
    target.prepare()
    target.open([0])
    return target


@pytest.mark.parametrize("key", [(), ("id",)])
def test_every_type_comes_back_as_it_went(database: Database, key: tuple[str, ...]) -> None:
    full = [
        "a", True, -(2**31), 2**63 - 1, 0.1, 5e-324, b"\0\xff\\",
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1, 1, 1, 0, 0, 0, 1000, tzinfo=UTC).replace(tzinfo=None), date(1, 1, 1),
        time_of_day(23, 59, 59, 999999),
        Decimal("-99999999.99"),
        '{"a":[1,"\\u00e9",null]}',
    ]  # fmt: skip
    odd = ["b", None, None, -(2**63), float("inf"), float("nan"), b"", None, None, None, None, None, None]
    target = opened(database, EVERY, key=key)
    target.write(batch(EVERY, [full, odd]))
    first, second = database.rows("select * from things order by id")
    assert list(first[:4]) == full[:4]
    assert first[4] == pytest.approx(0.1)
    assert list(first[5:12]) == full[5:12]
    assert first[12] == {"a": [1, "é", None]}
    assert second[3] == -(2**63)
    assert second[4] == float("inf")
    assert second[5] != second[5]
    assert second[6] == b""
    assert list(second[7:13]) == [None] * 6
    target.close()
    held = PostgresHeld(database.url, sink="s", topic_id="x", table="things", columns=EVERY)
    wanted = list(map(repr, held.plain(batch(EVERY, [full, odd]))))
    assert wanted == list(map(repr, sorted(held.rows()))), "in one form, for `streams reconcile`"
    held.close()


@pytest.mark.parametrize("key", [(), ("id",)])
def test_text_of_any_kind_comes_back_as_it_went(database: Database, key: tuple[str, ...]) -> None:
    target = opened(database, (ID, COUNT), key=key)
    target.write(batch((ID, COUNT), [(text, None) for text in NASTY]))
    assert sorted(row[0] for row in database.rows("select id from things")) == sorted(NASTY)
    target.close()


def test_one_row_that_a_constraint_refuses_costs_itself(database: Database) -> None:
    database.run("create table things (id text primary key, count bigint check (count < 100))")
    target = opened(database, (ID, COUNT), key=["id"])
    rows = [(f"r{number}", 1000 if number in {3, 40} else number) for number in range(64)]
    with pytest.raises(RowsRefused) as refused:
        target.write(batch((ID, COUNT), rows))
    assert sorted(refused.value.rows) == [(0, 3), (0, 40)]
    assert "things_count_check" in refused.value.rows[0, 3]
    assert database.rows("select count(*) from things") == [(0,)]
    target.close()


def test_a_table_that_refuses_every_row_is_an_outage(database: Database) -> None:
    database.run("create table things (id text primary key, count bigint check (count < 0))")
    target = opened(database, (ID, COUNT), key=["id"])
    with pytest.raises(TargetUnavailable, match="every one of 16 rows"):
        target.write(batch((ID, COUNT), [(f"r{number}", number) for number in range(64)]))
    target.close()


def test_a_table_with_other_columns_is_refused_by_name_and_types(database: Database) -> None:
    database.run("create table things (id text primary key, count text, owner text not null)")
    with pytest.raises(TargetMismatch) as told:
        target_of(database, (ID, COUNT)).prepare()
    assert "column count is text, the schema's field needs bigint" in str(told.value)
    assert "column owner is not null" in str(told.value)
    assert [
        row[0]
        for row in database.rows(
            "select attname from pg_attribute where attrelid = 'things'::regclass and attnum > 0 order by attnum"
        )
    ] == ["id", "count", "owner"]


def test_a_field_that_a_later_version_adds_becomes_a_column(database: Database) -> None:
    first = opened(database, (ID, COUNT))
    first.write(batch((ID, COUNT), [("a", 1)]))
    first.close()
    later = (ID, COUNT, TargetColumn("altitude_m", "double", pa.float64()))
    second = target_of(database, later)
    second.prepare()
    assert second.open([0]) == {0: 1}
    second.write(batch(later, [("b", 2, 3.5)], first=1))
    assert database.rows("select id, altitude_m from things order by id") == [("a", None), ("b", 3.5)]
    second.close()


def test_a_table_without_a_unique_key_is_refused(database: Database) -> None:
    database.run("create table things (id text, count bigint)")
    with pytest.raises(TargetMismatch, match=r"no unique index on \(id\)"):
        target_of(database, (ID, COUNT), key=["id"]).prepare()


def test_a_column_that_is_dropped_meanwhile_is_said_by_name(database: Database) -> None:
    target = opened(database, (ID, COUNT))
    database.run("alter table things drop column count")
    with pytest.raises(TargetMismatch, match="count"):
        target.write(batch((ID, COUNT), [("a", 1)]))
    target.close()


def test_a_table_that_is_gone_is_not_made_again_without_its_rows(database: Database) -> None:
    target = opened(database, (ID, COUNT))
    target.write(batch((ID, COUNT), [("a", 1)]))
    target.close()
    database.run("alter table things rename to hidden")
    again = target_of(database, (ID, COUNT))
    with pytest.raises(TargetMismatch, match=r"table things is gone, .* rows of streams_sinks with sink = 's'"):
        again.prepare()
    database.run("alter table hidden rename to things")
    again.prepare()
    assert again.open([0]) == {0: 1}
    database.run("drop table things; delete from streams_sinks where sink = 's'")
    again.prepare()
    assert again.open([0]) == {0: -1}
    again.close()


def test_wrong_credentials_are_said_without_the_password(database: Database) -> None:
    target = target_of(database, (ID,), url="postgresql://nobody:hunter2@127.0.0.1:1/db")
    with pytest.raises(TargetUnavailable) as told:
        target.prepare()
    assert "hunter2" not in str(told.value)


def test_an_unknown_role_is_an_outage_with_its_name(database: Database) -> None:
    target = target_of(database, (ID,), url=database.url.replace("postgres:@", "stranger:@"))
    with pytest.raises(TargetUnavailable, match="stranger"):
        target.prepare()


def test_sessions_that_the_server_ends_are_made_again(database: Database) -> None:
    target = opened(database, (ID, COUNT))
    database.rows(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = current_database() and pid <> pg_backend_pid()"
    )
    with pytest.raises(TargetUnavailable):
        target.write(batch((ID, COUNT), [("a", 1)]))
    assert target.positions([0]) == {0: -1}
    target.write(batch((ID, COUNT), [("a", 1)]))
    assert database.rows("select count(*) from things") == [(1,)]
    target.close()


def test_a_frozen_server_keeps_a_write_waiting_and_nothing_is_lost(postgres: Postgres, database: Database) -> None:
    target = opened(database, (ID, COUNT))
    writing = threading.Thread(target=target.write, args=[batch((ID, COUNT), [("a", 1)])], daemon=True)
    with postgres.frozen():
        writing.start()
        time.sleep(0.5)
        assert writing.is_alive()
    writing.join(10)
    assert database.rows("select id, streams_offset from things") == [("a", 0)]
    assert target.positions([0]) == {0: 1}
    target.close()


def test_a_zombie_that_stood_still_in_its_transaction_writes_nothing(database: Database) -> None:
    """It has written its rows, is frozen before its offsets, and another process takes over meanwhile."""
    zombie = opened(database, (ID, COUNT), key=["id"])
    frozen, thawed = threading.Event(), threading.Event()
    advance = zombie._advance

    def standing_still(*given: Any) -> None:
        frozen.set()
        thawed.wait(20)
        advance(*given)

    zombie._advance = standing_still  # type: ignore[method-assign,assignment]
    ended: list[BaseException] = []

    def write() -> None:
        try:
            zombie.write(batch((ID, COUNT), [("a", 1), ("b", 1)]))
        except (TakenOver, TargetUnavailable) as error:
            ended.append(error)

    writing = threading.Thread(target=write, daemon=True)
    writing.start()
    assert frozen.wait(10)
    owner = target_of(database, (ID, COUNT), key=["id"])
    owner.prepare()
    assert owner.open([0]) == {0: -1}
    thawed.set()
    writing.join(10)
    assert isinstance(ended[0], TakenOver)
    owner.write(batch((ID, COUNT), [("a", 2)]))
    assert database.rows("select id, count from things") == [("a", 2)]
    zombie.close()
    owner.close()
