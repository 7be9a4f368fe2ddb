"""Whether the rows that a flow writes fit the Avro schema of their topic.

A fold or an operator gives columns of Arrow types; the encoder turns them into Avro by name and type. A type that does
not fit stops the worker with the first event; a null where the schema has none is written as 0; a column that the
schema lacks is left out. So all of it is compared before: by `streams schemas check`, by what registers schemas, and by
a worker's start.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyruhvro

from streams.avro.matching import named_types
from streams.batch.rows import empty_rows
from streams.flow.declaration import Pipeline, Table, Window
from streams.operators.spec import OutputTopic
from streams.schemas.catalog import SchemaVersion
from streams.schemas.gate.findings import Finding, Rule

_AVRO: Final[Mapping[pa.DataType, tuple[str, frozenset[str]]]] = {
    pa.bool_(): ("boolean", frozenset({"boolean"})),
    pa.int32(): ("int", frozenset({"int"})),
    pa.int64(): ("long", frozenset({"long"})),
    pa.float64(): ("double", frozenset({"double"})),
    pa.string(): ("string", frozenset({"string", "enum"})),
    pa.float32(): ("float", frozenset({"float"})),
    pa.date32(): ("date", frozenset({"date"})),
    pa.timestamp("ms"): ("timestamp-millis", frozenset({"timestamp-millis"})),
    pa.timestamp("ms", "UTC"): ("timestamp-millis", frozenset({"timestamp-millis"})),
    pa.timestamp("us"): ("timestamp-micros", frozenset({"timestamp-micros"})),
    pa.timestamp("us", "UTC"): ("timestamp-micros", frozenset({"timestamp-micros"})),
}
"""Types of simple columns: the Avro type of each in words, and what the schema may have there."""
_KEY: Final = b"key"
_GUIDE: Final = "docs/add-a-stream.md lists the Avro type of each column"


def unfit_rows(version: SchemaVersion, flows: Iterable[Pipeline]) -> list[Finding]:
    """Columns that the flows publish under a version's subject and that do not fit the version."""
    return [
        Finding(
            version.subject, version.version, Rule.ROW_SCHEMA, message, field=name, file=version.path,
            breaks=f"flow {flow.name}: its worker would stop with the first row of {written.topic}",
            fix=f"{fix}; {_GUIDE}", line=_line(version, name),
        )
        for flow in flows
        for written in flow.row_outputs
        if written.subject == version.subject
        for name, message, fix in (
            *_misfits(version.parsed, _sample(written), _giver(written)),
            *_missing_symbols(version.parsed, _symbols(written), _giver(written)),
        )
    ]  # fmt: skip


def _misfits(schema: Mapping[str, Any], rows: pa.RecordBatch, giver: str) -> list[tuple[str, str, str]]:
    """Name of each field that does not fit, what is wrong with it, and what to do."""
    fields = {str(field["name"]): field["type"] for field in schema["fields"]}
    named = {str(each["name"]).rpartition(".")[2]: each for each in named_types(schema)}
    columns = dict(zip(rows.schema.names, rows.columns, strict=True))
    found = []
    for name, column in columns.items():
        if name not in fields:
            found.append((name, f"missing: {giver} gives a column {name!r} ({_words(column)})", f"add {name}"))
        elif (said := _misfit(fields[name], column, named, giver)) is not None:
            found.append((name, *said))
    for name in fields:
        if name not in columns:
            fix = f"add a column {name!r} to {giver}, or take the field away"
            found.append((name, f"{giver} gives no such column", fix))
    return found or _refused(schema, rows, giver)


def _misfit(schema: Any, column: pa.Array, named: Mapping[str, Any], giver: str) -> tuple[str, str] | None:
    kinds = [_kind(branch, named) for branch in (schema if isinstance(schema, list) else [schema])]
    plain = [kind for kind in kinds if kind != "null"]
    said = " or ".join(kinds)
    if column.null_count and "null" not in kinds:
        return f"{giver} gives null where no value is known, the schema says {said}", f"make it null or {said}"
    if pa.types.is_nested(column.type):
        return None  # the encoder is asked
    if column.type not in _AVRO:
        allowed = ", ".join(str(each) for each in _AVRO)
        return f"{giver} gives {column.type}, which is no type of a published column", f"make it one of {allowed}"
    wanted, fitting = _AVRO[column.type]
    if len(plain) != 1 or len(kinds) > 2 or plain[0] not in fitting:
        null = "null or " if "null" in kinds else ""
        return f"{giver} gives {wanted}, the schema says {said}", f"make it {null}{wanted}"
    return None


def _missing_symbols(
    schema: Mapping[str, Any], published: Mapping[str, Sequence[str]], giver: str
) -> list[tuple[str, str, str]]:
    """Enums that lack a symbol which is published."""
    named = {str(each["name"]).rpartition(".")[2]: each for each in named_types(schema)}
    found = []
    for field in schema["fields"]:
        branches = field["type"] if isinstance(field["type"], list) else [field["type"]]
        for branch in branches:
            enum = named.get(branch.rpartition(".")[2], {}) if isinstance(branch, str) else branch
            missing = [one for one in published.get(field["name"], ()) if one not in enum.get("symbols", (one,))]
            if missing:
                said = ", ".join(missing)
                found.append((str(field["name"]), f"{giver} gives symbols that the enum lacks: {said}", f"add {said}"))
    return found


def _refused(schema: Mapping[str, Any], rows: pa.RecordBatch, giver: str) -> list[tuple[str, str, str]]:
    """The encoder's error about lists, maps and structs: it checks types, whatever the values."""
    nested = {each.name: each.type for each in rows.schema if pa.types.is_nested(each.type)}
    if not nested:
        return []
    try:
        pyruhvro.serialize_record_batch(rows, json.dumps(schema), 1)
    except ValueError as error:
        given = ", ".join(f"{name} as {kind}" for name, kind in nested.items())
        return [(next(iter(nested)), f"{giver} gives {given}, which does not fit: {error}", "make it what is given")]
    return []


def _kind(schema: Any, named: Mapping[str, Any]) -> str:
    """A type as one says it: the logical type, if it has one."""
    if isinstance(schema, str):
        found = named.get(schema.rpartition(".")[2])
        return schema if found is None else str(found["type"])
    if isinstance(schema, list):
        return "a union"
    if "logicalType" in schema:
        return str(schema["logicalType"])
    return _kind(schema["type"], named)


def _words(column: pa.Array) -> str:
    wanted = _AVRO[column.type][0] if column.type in _AVRO else str(column.type)
    return f"null or {wanted}" if column.null_count else wanted


def _giver(written: Table | Window | OutputTopic) -> str:
    return "the operator" if isinstance(written, OutputTopic) else "the fold"


def _symbols(written: Table | Window | OutputTopic) -> Mapping[str, Sequence[str]]:
    if isinstance(written, OutputTopic):
        return written.symbols
    found: Mapping[str, Sequence[str]] = getattr(written.aggregate, "symbols", {})
    return found


def _sample(written: Table | Window | OutputTopic) -> pa.RecordBatch:
    """A row of one key without events, to know the columns; of no key, if the fold cannot make it."""
    try:
        return _published(written, 1)
    except (ArithmeticError, LookupError, TypeError, ValueError, pa.ArrowException):
        return _published(written, 0)


def _published(written: Table | Window | OutputTopic, count: int) -> pa.RecordBatch:
    keys = np.array([_KEY] * count, dtype=object)
    if isinstance(written, OutputTopic):
        assert written.columns is not None  # noqa: S101 - `row_outputs` are those that have both
        assert written.empty is not None  # noqa: S101
        return written.columns(keys, np.repeat(written.empty, count))
    state = empty_rows(written.aggregate.dtype, count)
    if isinstance(written, Table):
        return written.aggregate.table(keys, state)
    zeros = np.zeros(count, dtype=np.int64)
    return written.aggregate.table(keys, zeros, zeros, zeros, state)


def _line(version: SchemaVersion, name: str) -> int:
    field = next((each for each in version.parsed["fields"] if each["name"] == name), None)
    return int(getattr(field, "line", 1))
