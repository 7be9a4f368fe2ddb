"""What the demo with sinks says at its end when it is ended before the sinks have written."""

from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from deltalake import DeltaTable, Schema, write_deltalake

from streams.demo.sinks import Targets
from streams.errors import StreamsError
from tests.databases import Postgres


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (psycopg.errors.UndefinedTable('relation "vehicles" does not exist\nLINE 1: select ..\n  ^'), "nothing yet"),
        (psycopg.OperationalError("the server is gone\nIs it running?"), "cannot be read: the server is gone"),
    ],
)
def test_tables_that_cannot_be_asked_are_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: psycopg.Error, says: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(psycopg, "connect", refuse)
    targets = Targets.__new__(Targets)
    targets.url, targets.lake = "postgresql://", tmp_path
    with pytest.raises(StreamsError, match=says) as raised:
        targets.answer()
    assert "\n" not in str(raised.value)


def test_a_table_that_has_no_row_yet_is_nothing_to_query(postgres: Postgres, tmp_path: Path) -> None:
    """A sink makes its table before it writes the first row."""
    database = postgres.database()
    database.run("create table vehicles (device_id text, events bigint, odometer_km double precision)")
    targets = Targets.__new__(Targets)
    targets.url, targets.lake = database.url, tmp_path
    with pytest.raises(StreamsError, match="nothing yet"):
        targets.answer()
    database.run("insert into vehicles values ('van-1', 3, 1.5)")
    minutes = pa.schema([("device_id", pa.string()), ("window_start", pa.int64()), ("distance_km", pa.float64())])
    DeltaTable.create(str(tmp_path / "minutes"), Schema.from_arrow(minutes))
    with pytest.raises(StreamsError, match="nothing yet"):
        targets.answer()
    write_deltalake(str(tmp_path / "minutes"), pa.table([["van-1"], [0], [1.25]], schema=minutes), mode="append")
    assert "van-1" in targets.answer()
