"""Delta Lake as a target: types, drift, days, compaction beside a writer. No broker."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from streams.errors import StreamsError, UsageError
from streams.sinks.delta.maintenance import compact, vacuum
from streams.sinks.delta.target import DeltaTarget
from streams.sinks.target import TargetBatch, TargetColumn, TargetMismatch, TargetUnavailable

ID = TargetColumn("id", "string", pa.string(), is_nullable=False)
COUNT = TargetColumn("count", "long", pa.int64())
AT = TargetColumn("at", "timestamp", pa.timestamp("ms", "UTC"))
EVERY = (
    ID,
    AT,
    TargetColumn("b", "boolean", pa.bool_()),
    TargetColumn("i", "int", pa.int32()),
    TargetColumn("l", "long", pa.int64()),
    TargetColumn("f", "float", pa.float32()),
    TargetColumn("d", "double", pa.float64()),
    TargetColumn("x", "bytes", pa.binary()),
    TargetColumn("lt", "local_timestamp", pa.timestamp("ms")),
    TargetColumn("on", "date", pa.date32()),
    TargetColumn("tm", "time", pa.time64("us")),
    TargetColumn("n", "decimal", pa.decimal128(10, 2), precision=10, scale=2),
    TargetColumn("j", "json", pa.string()),
)


def target_of(url: str, columns: Sequence[TargetColumn], *, key: Sequence[str] = (), day_of: str = "") -> DeltaTarget:
    return DeltaTarget(url, sink="s", topic_id="x", columns=columns, key=key, day_of=day_of)


def opened(url: str, columns: Sequence[TargetColumn], *, key: Sequence[str] = (), day_of: str = "") -> DeltaTarget:
    target = target_of(url, columns, key=key, day_of=day_of)
    target.prepare()
    target.open([0])
    return target


def batch(columns: Sequence[TargetColumn], rows: Sequence[Sequence[Any]], first: int = 0) -> TargetBatch:
    schema = pa.schema([pa.field(column.name, column.arrow) for column in columns])
    arrays = [pa.array([row[at] for row in rows], column.arrow) for at, column in enumerate(columns)]
    return TargetBatch(
        rows=pa.RecordBatch.from_arrays(arrays, schema=schema),
        partition=np.zeros(len(rows), dtype=np.int64),
        offset=np.arange(first, first + len(rows), dtype=np.int64),
        offsets={0: first + len(rows)},
    )


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "lake" / "things")


@pytest.mark.parametrize("key", [(), ("id",)])
def test_every_type_comes_back_as_it_went(url: str, key: tuple[str, ...]) -> None:
    at = datetime(1969, 12, 31, 23, 0, tzinfo=UTC)
    full = [
        "a\0b", at, True, -(2**31), 2**63 - 1, 0.5, 5e-324, b"\0\xff",
        datetime(1, 1, 1, tzinfo=UTC).replace(tzinfo=None),
        date(9999, 12, 31), time(23, 59, 59, 999999), Decimal("-99999999.99"), '{"a":1}',
    ]  # fmt: skip
    odd = ["b", None, None, None, None, float("inf"), float("nan"), b"", None, None, None, None, None]
    target = opened(url, EVERY, key=key, day_of="at")
    target.write(batch(EVERY, [full, odd]))
    first, second = pl.read_delta(url).sort("id").rows(named=True)
    assert first["id"] == "a\0b"
    assert (first["at"], first["day"]) == (at, date(1969, 12, 31))
    assert [first[name] for name in ("l", "d", "x", "on", "tm", "n")] == [
        2**63 - 1, 5e-324, b"\0\xff", date(9999, 12, 31), "23:59:59.999999", Decimal("-99999999.99"),
    ]  # fmt: skip
    assert second["d"] != second["d"]
    assert second["day"] is None


def test_an_append_is_in_the_folder_of_its_day_and_duckdb_reads_it(url: str) -> None:
    target = opened(url, (ID, AT), day_of="at")
    target.write(batch((ID, AT), [("a", datetime(2026, 1, 1, tzinfo=UTC)), ("b", datetime(2026, 1, 2, tzinfo=UTC))]))
    assert {path.parent.name for path in Path(url).rglob("*.parquet") if "_delta_log" not in path.parts} == {
        "day=2026-01-01", "day=2026-01-02",
    }  # fmt: skip
    things = DeltaTable(url).to_pyarrow_dataset()
    assert duckdb.execute("select id from things where day = date '2026-01-02'").fetchall() == [("b",)]
    assert len(things.files) == 2


def test_a_field_that_a_later_version_adds_becomes_a_column(url: str) -> None:
    opened(url, (ID,)).write(batch((ID,), [("a",)]))
    later = target_of(url, (ID, COUNT))
    later.prepare()
    assert later.open([0]) == {0: 1}
    later.write(batch((ID, COUNT), [("b", 2)], first=1))
    assert pl.read_delta(url).sort("id").select("id", "count").rows() == [("a", None), ("b", 2)]


def test_a_table_with_other_columns_is_refused_by_name_and_types(url: str) -> None:
    opened(url, (ID, TargetColumn("count", "string", pa.string())))
    with pytest.raises(TargetMismatch, match="column count is string, the schema's field needs long"):
        target_of(url, (ID, COUNT)).prepare()
    with pytest.raises(TargetMismatch, match="partitioned by nothing"):
        target_of(url, (ID, AT), day_of="at").prepare()


@pytest.mark.parametrize("day_of", ["id", "nothing"])
def test_a_day_of_no_time_is_refused(url: str, day_of: str) -> None:
    with pytest.raises(TargetMismatch, match=day_of):
        target_of(url, (ID, AT), day_of=day_of)


def test_a_folder_that_cannot_be_written_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(TargetUnavailable, match="file"):
        target_of(str(tmp_path / "file" / "things"), (ID,)).prepare()


def test_a_table_that_is_gone_is_said(url: str) -> None:
    target = opened(url, (ID,))
    Path(url).rename(f"{url}.gone")
    with pytest.raises((TargetMismatch, TargetUnavailable), match="things"):
        target.write(batch((ID,), [("a",)]))


def test_compaction_keeps_rows_and_offsets_and_a_writer_goes_on(url: str) -> None:
    target = opened(url, (ID, COUNT))
    for number in range(5):
        target.write(batch((ID, COUNT), [(f"r{number}", number)], first=number))
    done = compact(url)
    assert (done.files_before, done.files_after) == (5, 1)
    target.write(batch((ID, COUNT), [("r5", 5)], first=5))
    assert target.positions([0]) == {0: 6}
    assert pl.read_delta(url)["id"].to_list() == [f"r{number}" for number in range(6)] or len(pl.read_delta(url)) == 6
    assert vacuum(url, retention_hours=1, dry_run=True) == []
    with pytest.raises(UsageError, match="1 hour"):
        vacuum(url, retention_hours=0, dry_run=False)
    with pytest.raises(StreamsError):
        compact(f"{url}.nothing")


def test_two_processes_append_to_one_table(url: str) -> None:
    first, second = opened(url, (ID,)), target_of(url, (ID,))
    second.prepare()
    second.open([1])
    for number in range(3):
        first.write(batch((ID,), [(f"a{number}",)], first=number))
        other = batch((ID,), [(f"b{number}",)], first=number)
        second.write(TargetBatch(other.rows, other.partition + 1, other.offset, {1: number + 1}))
    assert sorted(pl.read_delta(url)["id"]) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert first.positions([0]) == {0: 3}
