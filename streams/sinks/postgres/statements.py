"""SQL of a sink's table and of the table of offsets: pure, names quoted by psycopg."""

from collections.abc import Sequence
from typing import Final

from psycopg import sql

from streams.sinks.target import TargetColumn

OFFSETS: Final = "streams_sinks"
"""Table of all sinks of a schema: where each stands, and who may write."""
STAGING: Final = "streams_staging"
PARTITION: Final = "streams_partition"
OFFSET: Final = "streams_offset"
_TYPES: Final = {
    "boolean": "boolean",
    "int": "integer",
    "long": "bigint",
    "float": "real",
    "double": "double precision",
    "string": "text",
    "bytes": "bytea",
    "timestamp": "timestamp with time zone",
    "local_timestamp": "timestamp without time zone",
    "date": "date",
    "time": "time without time zone",
    "json": "jsonb",
}
PLACE: Final = {PARTITION: "integer", OFFSET: "bigint"}
"""Columns that every table has, with their types."""


def type_of(column: TargetColumn) -> str:
    """The column's type, as `format_type` of PostgreSQL names it."""
    if column.kind == "decimal":
        return f"numeric({column.precision},{column.scale})"
    return _TYPES[column.kind]


class Statements:
    """The statements of one table."""

    def __init__(self, table: str, columns: Sequence[TargetColumn], key: Sequence[str]) -> None:
        schema, _, name = table.rpartition(".")
        self.parts = (schema or None, name)
        self.table = sql.Identifier(schema, name) if schema else sql.Identifier(name)
        self.offsets = sql.Identifier(schema, OFFSETS) if schema else sql.Identifier(OFFSETS)
        self._columns, self._key = columns, key
        self._names = [*(column.name for column in columns), PARTITION, OFFSET]

    def create(self) -> sql.Composed:
        """The table, unless it is there."""
        parts = [self._defined(column) for column in self._columns]
        parts += [sql.SQL("{} {} not null").format(sql.Identifier(n), sql.SQL(t)) for n, t in PLACE.items()]
        if self._key:
            parts.append(sql.SQL("primary key ({})").format(_names(self._key)))
        return sql.SQL("create table if not exists {} ({})").format(self.table, sql.SQL(", ").join(parts))

    def create_offsets(self) -> sql.Composed:
        """The table of offsets, unless it is there."""
        return sql.SQL(
            "create table if not exists {} (sink text not null, topic text not null, topic_id text not null, "
            "partition integer not null, epoch bigint not null, offset_next bigint not null, "
            "updated_at timestamp with time zone not null, primary key (sink, topic_id, partition))"
        ).format(self.offsets)

    def written(self) -> sql.Composed:
        """How many partitions of a sink's topic records were written of."""
        return sql.SQL("select count(*) from {} where sink = %s and topic_id = %s and offset_next > 0").format(
            self.offsets
        )

    def add(self, column: TargetColumn | str) -> sql.Composed:
        """A column that the table lacks; rows that are there have null in it."""
        if isinstance(column, str):
            defined = sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(PLACE[column]))
        else:
            defined = sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(type_of(column)))
        return sql.SQL("alter table {} add column {}").format(self.table, defined)

    def stage(self) -> sql.Composed:
        """A temporary table of the same columns, empty after each transaction."""
        parts = [sql.SQL("{} {}").format(sql.Identifier(c.name), sql.SQL(type_of(c))) for c in self._columns]
        parts += [sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(t)) for n, t in PLACE.items()]
        return sql.SQL("create temporary table if not exists {} ({}) on commit delete rows").format(
            sql.Identifier(STAGING), sql.SQL(", ").join(parts)
        )

    def copy(self) -> sql.Composed:
        """COPY of rows as CSV: into the staging table where there is a key, else into the table itself."""
        into = sql.Identifier(STAGING) if self._key else self.table
        return sql.SQL("copy {} ({}) from stdin (format csv)").format(into, _names(self._names))

    def insert_one(self) -> sql.Composed:
        """A row with its values as text, to the same place as `copy`."""
        into = sql.Identifier(STAGING) if self._key else self.table
        types = [*(type_of(column) for column in self._columns), *PLACE.values()]
        values = sql.SQL(", ").join(sql.SQL("%s::text::{}").format(sql.SQL(kind)) for kind in types)
        return sql.SQL("insert into {} ({}) values ({})").format(into, _names(self._names), values)

    def upsert(self) -> sql.Composed:
        """From the staging table into the table. A row of a higher partition stays: the key has moved there."""
        changed = [name for name in self._names if name not in self._key]
        return sql.SQL(
            "insert into {table} as t ({names}) select {names} from {staging} on conflict ({key}) do update set "
            "{changed} where excluded.{partition} >= t.{partition} or t.{partition} is null"
        ).format(
            table=self.table,
            names=_names(self._names),
            staging=sql.Identifier(STAGING),
            key=_names(self._key),
            changed=sql.SQL(", ").join(
                sql.SQL("{name} = excluded.{name}").format(name=sql.Identifier(name)) for name in changed
            ),
            partition=sql.Identifier(PARTITION),
        )

    def delete(self) -> sql.Composed:
        """Rows of keys (first parameter), each read in a partition (second one)."""
        return sql.SQL(
            "delete from {table} as t using unnest(%s::text[], %s::integer[]) as d(k, p) "
            "where t.{key} = d.k and (t.{partition} <= d.p or t.{partition} is null)"
        ).format(table=self.table, key=sql.Identifier(self._key[0]), partition=sql.Identifier(PARTITION))

    def take_over(self) -> sql.Composed:
        """A higher epoch for partitions (sink, topic, topic id, partitions): each with its epoch and offset."""
        return sql.SQL(
            "insert into {offsets} as o (sink, topic, topic_id, partition, epoch, offset_next, updated_at) "
            "select %s, %s, %s, p, 1, -1, now() from unnest(%s::integer[]) as p order by p "
            "on conflict (sink, topic_id, partition) do update set epoch = o.epoch + 1, updated_at = now() "
            "returning partition, epoch, offset_next"
        ).format(offsets=self.offsets)

    def stand(self) -> sql.Composed:
        """Epoch and offset of partitions (sink, topic id, partitions)."""
        return sql.SQL(
            "select partition, epoch, offset_next from {offsets} "
            "where sink = %s and topic_id = %s and partition = any(%s::integer[])"
        ).format(offsets=self.offsets)

    def advance(self) -> sql.Composed:
        """New offsets (partitions, epochs, offsets; sink, topic id), of those partitions whose epoch is still that."""
        return sql.SQL(
            "update {offsets} as o set offset_next = n.offset_next, updated_at = now() "
            "from unnest(%s::integer[], %s::bigint[], %s::bigint[]) as n(partition, epoch, offset_next) "
            "where o.sink = %s and o.topic_id = %s and o.partition = n.partition and o.epoch = n.epoch "
            "returning o.partition"
        ).format(offsets=self.offsets)

    def _defined(self, column: TargetColumn) -> sql.Composed:
        return sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(type_of(column)))


def _names(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
