"""What a table of PostgreSQL holds."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import psycopg
from psycopg import sql

from streams.errors import StreamsError
from streams.masking import masked
from streams.sink.reconcile.compare import HeldRow
from streams.sink.reconcile.held import plain_values, rows_of
from streams.sinks.postgres.statements import OFFSET, PARTITION, Statements
from streams.sinks.target import TargetBatch, TargetColumn

_FETCHED_ROWS: Final = 5_000


class PostgresHeld:
    """A table of PostgreSQL, in one transaction that sees nothing of what is committed meanwhile."""

    def __init__(self, url: str, *, sink: str, topic_id: str, table: str, columns: Sequence[TargetColumn]) -> None:
        """Connect.

        Raises:
            StreamsError: it cannot be had.

        """
        self._sink, self._topic_id, self._table, self._columns = sink, topic_id, table, tuple(columns)
        self._sql = Statements(table, columns, ())
        try:
            self._connection = psycopg.connect(url, connect_timeout=10, options="-c timezone=UTC")
            self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            self._connection.read_only = True
        except psycopg.Error as error:
            raise self._unread(error) from None

    def positions(self, partitions: Collection[int]) -> Mapping[int, int]:
        """As `Held`."""
        statement = sql.SQL("select partition, offset_next from {} where sink = %s and topic_id = %s").format(
            self._sql.offsets
        )
        try:
            found: dict[int, int] = dict(self._connection.execute(statement, [self._sink, self._topic_id]).fetchall())
        except psycopg.Error as error:
            raise self._unread(error) from None
        return {one: max(0, found.get(one, 0)) for one in partitions}

    def rows(self) -> Iterator[HeldRow]:
        """As `Held`."""
        names = [sql.Identifier(PARTITION), sql.Identifier(OFFSET), *map(_selected, self._columns)]
        statement = sql.SQL("select {} from {}").format(sql.SQL(", ").join(names), self._sql.table)
        jsons = [at for at, column in enumerate(self._columns) if column.kind == "json"]
        try:
            with self._connection.cursor(name="streams_reconcile") as cursor:
                cursor.itersize = _FETCHED_ROWS
                cursor.execute(statement)
                for partition, offset, *values in cursor:
                    for at in jsons:
                        values[at] = None if values[at] is None else json.loads(values[at])
                    yield HeldRow(partition, offset, tuple(values))
        except psycopg.Error as error:
            raise self._unread(error) from None

    def plain(self, batch: TargetBatch) -> Iterator[HeldRow]:
        """As `Held`."""
        values = [
            plain_values(batch.rows.column(column.name), is_json=column.kind == "json") for column in self._columns
        ]
        return rows_of(batch.partition.tolist(), batch.offset.tolist(), values)

    def close(self) -> None:
        """As `Held`."""
        self._connection.close()

    def _unread(self, error: psycopg.Error) -> StreamsError:
        text = masked(str(error).strip().partition("\n")[0])
        return StreamsError(f"table {self._table} of PostgreSQL cannot be read: {text}")


def _selected(column: TargetColumn) -> sql.Composable:
    """The column as a plain value."""
    name = sql.Identifier(column.name)
    match column.kind:
        case "timestamp" | "local_timestamp" | "time":
            return sql.SQL("(extract(epoch from {}) * 1000000)::bigint").format(name)
        case "date":
            return sql.SQL("{} - date '1970-01-01'").format(name)
        case "json":
            return sql.SQL("{}::text").format(name)
        case "float":
            return sql.SQL("{}::double precision").format(name)
        case _:
            return name
