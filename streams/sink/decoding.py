"""Decodes a topic's records to rows of a target: a whole batch at once; records that are not rows become rejects.

As with a worker's decoder, a batch that the columnar path refuses is halved until the records concerned stand alone,
and those are judged one by one by fastavro: one bad record costs one record.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa

from streams.avro.framing import FRAME_BYTES, NOT_FRAMED, SchemaKey, id_in_frame, key_in_headers
from streams.avro.known import KnownSchemas
from streams.avro.resolve import Plan, column_kind
from streams.avro.values import decode_fields, decode_one
from streams.batch.columns import Int64
from streams.batch.moved import is_moved
from streams.batch.records import Records
from streams.batch.rejects import Reason, Reject
from streams.sink.fit import misfits
from streams.sink.shape import as_json_text
from streams.sinks.target import TargetColumn

Resolve = Callable[[SchemaKey], Plan | Reject]
"""How a schema id or GUID is read; may raise `RegistryUnavailable`."""

_EXACT_RECORDS_MAX: Final = 16
_NO_VALUE: Final = "the record has no value, and the sink has no key by which it would delete a row"
_DIGITS: Final = Context(prec=100_000)
_Part = tuple[Int64, pa.RecordBatch]


@dataclass(frozen=True, slots=True)
class DecodedRows:
    """Result for a micro-batch: rows, in batch order; records without a value; records that are not rows.

    Tombstones of rows that moved to another partition are left out (docs/adr/0070).
    """

    rows: pa.RecordBatch
    row: Int64
    """Of each row: the record that it comes from."""
    tombstones: Int64
    """Records without a value, where these delete rows."""
    rejects: list[Reject]


class RowDecoder:
    """Decoder of a sink. One thread."""

    def __init__(self, columns: Sequence[TargetColumn], resolve: Resolve, *, has_tombstones: bool) -> None:
        """`has_tombstones`: a record without a value deletes a row; else it is a reject."""
        self._columns = tuple(columns)
        self._names = [column.name for column in columns]
        self._schema = pa.schema([pa.field(column.name, column.arrow) for column in columns])
        self._resolve = resolve
        self._known = KnownSchemas()
        self._has_tombstones = has_tombstones

    def decode(self, records: Records) -> DecodedRows:
        """Decode all of them.

        Raises:
            RegistryUnavailable: a schema is not known yet, and the registry does not answer.

        """
        rejects: list[Reject] = []
        tombstones: list[int] = []
        parts: list[_Part] = []
        groups = self._by_schema(records, rejects, tombstones)
        for (key, is_framed), rows in groups.items():
            plan = self._plan(key)
            if isinstance(plan, Reject):
                rejects += [Reject(row, plan.reason, plan.message, plan.schema_id) for row in rows]
                continue
            values = [records.value[row] for row in rows]
            sizes = np.fromiter(map(len, values), dtype=np.int64, count=len(values))  # type: ignore[arg-type]
            self._halve(plan, values, sizes, np.array(rows, dtype=np.int64), parts, rejects, framed=is_framed)
        self._known.used({key for key, _ in groups})
        self._known.trim()
        row, batch = self._joined(parts)
        found = misfits(batch, self._columns)
        if found:
            rejects += [Reject(int(row[at]), Reason.INVALID, why) for at, why in found.items()]
            kept = np.setdiff1d(np.arange(len(row)), np.fromiter(found, dtype=np.int64, count=len(found)))
            row, batch = row[kept], batch.take(pa.array(kept))
        rejects.sort(key=lambda reject: reject.row)
        return DecodedRows(batch, row, np.array(tombstones, dtype=np.int64), rejects)

    def _by_schema(
        self, records: Records, rejects: list[Reject], tombstones: list[int]
    ) -> dict[tuple[SchemaKey, bool], list[int]]:
        groups: dict[tuple[SchemaKey, bool], list[int]] = defaultdict(list)
        by_frame: dict[bytes, list[int]] = defaultdict(list)
        headers = records.headers
        for row, value in enumerate(records.value):
            if value is None:
                if headers is not None and is_moved(headers[row]):
                    continue  # the row has moved to another partition; nothing is deleted
                if self._has_tombstones:
                    tombstones.append(row)
                else:
                    rejects.append(Reject(row, Reason.NOT_FRAMED, _NO_VALUE))
                continue
            key = key_in_headers(headers[row]) if headers is not None else None
            if key is not None:
                groups[key, False].append(row)
            else:
                by_frame[value[:FRAME_BYTES]].append(row)
        for frame, rows in by_frame.items():
            schema_id = id_in_frame(frame)
            if schema_id is not None:
                groups[schema_id, True] += rows
            else:
                rejects += [Reject(row, Reason.NOT_FRAMED, NOT_FRAMED) for row in rows]
        return groups

    def _plan(self, key: SchemaKey) -> Plan | Reject:
        if key not in self._known:
            found = self._resolve(key)
            if isinstance(found, Reject) and found.reason is Reason.UNKNOWN_SCHEMA:
                return found  # it may be registered by the time of the next batch
            self._known.learn({key: found})
        return self._known[key]

    def _halve(
        self,
        plan: Plan,
        values: list[Any],
        sizes: Int64,
        rows: Int64,
        parts: list[_Part],
        rejects: list[Reject],
        *,
        framed: bool,
    ) -> None:
        is_columnar = plan.framed_json is not None and all(column_kind(each["type"]) for each in plan.reader["fields"])
        fields = decode_fields(plan, values, sizes, self._names, framed=framed) if is_columnar else None
        if fields is not None:
            parts.append((rows, self._of_columns(plan, fields)))
        elif len(values) <= _EXACT_RECORDS_MAX or not is_columnar:
            self._exactly(plan, values, rows, parts, rejects, framed=framed)
        else:
            middle = len(values) // 2
            for half in (slice(None, middle), slice(middle, None)):
                self._halve(plan, values[half], sizes[half], rows[half], parts, rejects, framed=framed)

    def _of_columns(self, plan: Plan, fields: Mapping[str, pa.Array]) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays(
            [_typed(fields[column.name], column, plan.symbols.get(column.name)) for column in self._columns],
            schema=self._schema,
        )

    def _exactly(
        self, plan: Plan, values: list[Any], rows: Int64, parts: list[_Part], rejects: list[Reject], *, framed: bool
    ) -> None:
        good: list[int] = []
        columns: list[list[Any]] = [[] for _ in self._columns]
        for row, value in zip(rows.tolist(), values, strict=True):
            found = decode_one(plan, value[FRAME_BYTES:] if framed else value)
            if not isinstance(found, dict):
                rejects.append(Reject(row, found[0], found[1], plan.schema_id))
                continue
            try:
                made = [_value(found[column.name], column) for column in self._columns]
            except _NoValue as why:
                rejects.append(Reject(row, Reason.INVALID, str(why), plan.schema_id))
                continue
            good.append(row)
            for values_of, each in zip(columns, made, strict=True):
                values_of.append(each)
        if good:
            arrays = [_from_stored(values_of, column) for values_of, column in zip(columns, self._columns, strict=True)]
            parts.append((np.array(good, dtype=np.int64), pa.RecordBatch.from_arrays(arrays, schema=self._schema)))

    def _joined(self, parts: list[_Part]) -> _Part:
        if not parts:
            nothing = [pa.array([], each.type) for each in self._schema]
            return np.empty(0, dtype=np.int64), pa.RecordBatch.from_arrays(nothing, schema=self._schema)
        if len(parts) == 1 and (np.diff(parts[0][0]) > 0).all():
            return parts[0]
        rows = np.concatenate([row for row, _ in parts])
        order = np.argsort(rows, kind="stable")
        joined = pa.Table.from_batches([batch for _, batch in parts]).combine_chunks().to_batches()[0]
        return rows[order], joined.take(pa.array(order))


class _NoValue(Exception):
    """A value does not fit its column; the message says why."""


def _typed(stored: pa.Array, column: TargetColumn, symbols: Sequence[str] | None) -> pa.Array:
    """A column as the decoder gives it, as the target's: enums by their symbols, times by their units."""
    if symbols is not None:
        indices = stored.cast(pa.int32())
        return pa.DictionaryArray.from_arrays(indices, pa.array(symbols, pa.string())).cast(pa.string())
    stored_type = _STORED.get(column.kind)
    if stored_type is not None and stored.type != column.arrow:
        width = pa.int32() if column.arrow in {pa.date32(), pa.time32("ms")} else pa.int64()
        return stored.cast(width).cast(column.arrow)
    return stored.cast(column.arrow)


_STORED: Final = dict.fromkeys(("timestamp", "local_timestamp", "date", "time"), "number")
_INT: Final = (-(2**31), 2**31 - 1)
_LONG: Final = (-(2**63), 2**63 - 1)


def _value(value: Any, column: TargetColumn) -> Any:
    """A value as fastavro gives it (logical types off), as it is put into a column.

    Raises:
        _NoValue: it does not fit.

    """
    if value is None:
        return None
    if column.kind == "json":
        return as_json_text(value)
    if column.precision:
        return _decimal(value, column)
    if isinstance(value, int) and not isinstance(value, bool):
        low, high = _INT if column.kind in {"int", "date"} or column.arrow == pa.time32("ms") else _LONG
        if column.kind not in {"float", "double"} and not low <= value <= high:
            raise _NoValue(f"{column.name} is {value}, which does not fit into {column.kind}")
    if column.kind in {"float", "double"}:
        return float(value)
    return value


def _decimal(value: bytes, column: TargetColumn) -> Any:
    number = Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-column.scale, _DIGITS)
    if len(number.as_tuple().digits) > column.precision:
        raise _NoValue(f"{column.name} has more than the {column.precision} digits that its schema allows")
    return format(number, "f") if column.kind == "string" else number


def _from_stored(values: list[Any], column: TargetColumn) -> pa.Array:
    if column.kind in _STORED:
        width = pa.int32() if column.arrow in {pa.date32(), pa.time32("ms")} else pa.int64()
        return pa.array(values, width).cast(column.arrow)
    return pa.array(values, column.arrow)
