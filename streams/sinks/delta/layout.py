"""Rows as a Delta table holds them, and what differs between one that is there and the one declared: pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from streams.sinks.target import TargetBatch, TargetColumn, TargetMismatch

PARTITION: Final = "streams_partition"
OFFSET: Final = "streams_offset"
DELETED: Final = "streams_deleted"
DAY: Final = "day"
_STORED: Final[Mapping[str, Any]] = {
    "timestamp": pa.timestamp("us", "UTC"),
    "local_timestamp": pa.timestamp("us"),
    "time": pa.string(),
}
"""Types of columns that Delta has no type for: times are in microseconds, a time of day is text."""


def schema_of(columns: Sequence[TargetColumn], day_of: str) -> pa.Schema:
    """The table's columns: those declared, where each row was read, and the day that it is partitioned by.

    Raises:
        TargetMismatch: `day_of` is no field of a time, or a field is called as a column that is added.

    """
    taken = {PARTITION, OFFSET, DELETED, *([DAY] if day_of else [])}
    for column in columns:
        if column.name in taken:
            raise TargetMismatch(f"the field {column.name} has the name of a column that the Delta table gets")
    if day_of and not any(column.name == day_of and column.kind in {"timestamp", "date"} for column in columns):
        raise TargetMismatch(f"day_of names {day_of!r}, which is no field of a time")
    fields = [pa.field(column.name, _STORED.get(column.kind, column.arrow)) for column in columns]
    fields += [pa.field(PARTITION, pa.int32()), pa.field(OFFSET, pa.int64())]
    return pa.schema([*fields, pa.field(DAY, pa.date32())] if day_of else fields)


def table_of(batch: TargetBatch, schema: pa.Schema, day_of: str) -> pa.Table:
    """The rows with all columns of `schema`."""
    rows = batch.rows
    arrays = []
    for field in schema:
        match field.name:
            case name if name == PARTITION:
                arrays.append(pa.array(batch.partition, field.type))
            case name if name == OFFSET:
                arrays.append(pa.array(batch.offset, field.type))
            case name if name == DAY and day_of:
                arrays.append(_day(rows.column(day_of)))
            case name:
                arrays.append(rows.column(name).cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def changes_of(batch: TargetBatch, schema: pa.Schema, key: Sequence[str], day_of: str) -> pa.Table:
    """Rows and deletions for a merge: the rows' columns, and whether it is a deletion."""
    rows = table_of(batch, schema, day_of)
    whole = rows.append_column(DELETED, pa.array([False] * len(rows), pa.bool_()))
    if not batch.deleted or batch.deleted_partition is None or batch.deleted_offset is None:
        return whole
    count = len(batch.deleted)
    known = {
        key[0]: pa.array(batch.deleted, pa.string()),
        PARTITION: pa.array(batch.deleted_partition, pa.int32()),
        OFFSET: pa.array(batch.deleted_offset, pa.int64()),
        DELETED: pa.array([True] * count, pa.bool_()),
    }
    gone = pa.Table.from_arrays(
        [known[field.name] if field.name in known else pa.nulls(count, field.type) for field in whole.schema],
        schema=whole.schema,
    )
    return pa.concat_tables([whole, gone])


def missing_fields(path: str, there: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Names of columns that the table lacks; both by name, with their types in words.

    Raises:
        TargetMismatch: a column is of another type.

    """
    wrong = [
        f"column {name} is {there[name]}, the schema's field needs {kind}"
        for name, kind in wanted.items()
        if name in there and there[name] != kind
    ]
    if wrong:
        raise TargetMismatch(
            f"the Delta table {path} is not as the sink needs it: {'; '.join(wrong)}. Give the sink another path"
        )
    return [name for name in wanted if name not in there]


def _day(values: pa.Array) -> pa.Array:
    """Days in UTC: of a time before 1970 the day that it is in, not the next one."""
    if pa.types.is_date(values.type):
        return values
    return pc.floor_temporal(values, unit="day").cast(pa.date32())
