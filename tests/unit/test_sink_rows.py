"""Records to rows of a target: every type, one bad record costs itself, the last row of each key."""

import io
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from streams.avro.framing import SchemaKey
from streams.avro.resolve import Plan, build_plan
from streams.batch.moved import MOVED_HEADER
from streams.batch.records import Records
from streams.batch.rejects import Reason, Reject
from streams.errors import UsageError
from streams.sink.batches import prepared
from streams.sink.decoding import DecodedRows, RowDecoder
from streams.sink.shape import columns_of

SIMPLE: dict[str, Any] = {
    "type": "record",
    "name": "Row",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "count", "type": "long"},
        {"name": "speed", "type": ["null", "double"], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
        {"name": "is_open", "type": "boolean"},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None},
        {"name": "part", "type": "float"},
    ],
}
RICH: dict[str, Any] = {
    "type": "record",
    "name": "Row",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}},
        {"name": "blob", "type": ["null", "bytes"], "default": None},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "more", "type": ["null", "string", "long"], "default": None},
        {"name": "huge", "type": {"type": "bytes", "logicalType": "decimal", "precision": 50, "scale": 1}},
    ],
}


def framed(schema: Mapping[str, Any], value: Mapping[str, Any], schema_id: int = 1) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(dict(schema)), dict(value))
    return b"\0" + schema_id.to_bytes(4, "big") + out.getvalue()


def records_of(
    values: Sequence[bytes | None], *, keys: Sequence[bytes | None] | None = None, partition: int = 0
) -> Records:
    count = len(values)
    return Records(
        partition=np.full(count, partition, dtype=np.int64),
        offset=np.arange(count, dtype=np.int64),
        timestamp_ms=np.full(count, 1_700_000_000_000, dtype=np.int64),
        key=list(keys or [None] * count),
        value=list(values),
    )


def decoder_of(schema: Mapping[str, Any], *, has_tombstones: bool = False) -> RowDecoder:
    text = json.dumps(schema)

    def resolve(key: SchemaKey) -> Plan | Reject:
        if key != 1:
            return Reject(-1, Reason.UNKNOWN_SCHEMA, f"no schema {key}")
        return build_plan(1, text, text)

    return RowDecoder(columns_of(text), resolve, has_tombstones=has_tombstones)


def simple(number: int, **changed: Any) -> dict[str, Any]:
    row = {
        "id": f"v-{number % 3}",
        "count": 2**63 - 1 - number,
        "speed": None if number % 2 else number / 3,
        "at": 1_700_000_000_000 + number,
        "kind": "AB"[number % 2],
        "is_open": number % 2 == 0,
        "day": number,
        "part": 0.5,
    }
    return {**row, **changed}


def test_every_simple_type_comes_as_it_was_written() -> None:
    wanted = [simple(at) for at in range(50)]
    found = decoder_of(SIMPLE).decode(records_of([framed(SIMPLE, row) for row in wanted]))
    assert not found.rejects
    rows = found.rows.to_pylist()
    assert [row["count"] for row in rows] == [row["count"] for row in wanted]
    assert [row["speed"] for row in rows] == [row["speed"] for row in wanted]
    assert [row["kind"] for row in rows] == [row["kind"] for row in wanted]
    assert [round(row["at"].timestamp() * 1000) for row in rows] == [row["at"] for row in wanted]
    assert [row["day"].toordinal() - 719_163 for row in rows] == [row["day"] for row in wanted]
    assert found.rows.schema.field("part").type == pa.float32()


def test_types_of_several_parts_are_json_and_decimals_keep_their_digits() -> None:
    row = {
        "id": "a",
        "price": Decimal("-12.34"),
        "blob": b"\0\xff",
        "tags": ["x", "y"],
        "more": 7,
        "huge": Decimal("12345678901234567890123456789012345678901.5"),
    }
    (found,) = decoder_of(RICH).decode(records_of([framed(RICH, row)])).rows.to_pylist()
    assert found["price"] == Decimal("-12.34")
    assert found["blob"] == b"\0\xff"
    assert json.loads(found["tags"]) == ["x", "y"]
    assert json.loads(found["more"]) == 7
    assert found["huge"] == "12345678901234567890123456789012345678901.5"


def test_a_decimal_with_more_digits_than_declared_is_a_reject_of_its_own() -> None:
    good = framed(
        RICH, {"id": "a", "price": Decimal("1.00"), "blob": None, "tags": [], "more": None, "huge": Decimal(0)}
    )
    wide = {**RICH}
    wide["fields"] = [{**each} for each in RICH["fields"]]
    wide["fields"][1]["type"] = {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}
    bad = framed(
        wide, {"id": "b", "price": Decimal("123456789.00"), "blob": None, "tags": [], "more": None, "huge": Decimal(0)}
    )
    found = decoder_of(RICH).decode(records_of([good, bad, good]))
    assert found.row.tolist() == [0, 2]
    assert [(each.row, each.reason) for each in found.rejects] == [(1, Reason.INVALID)]
    assert "price" in found.rejects[0].message


@pytest.mark.parametrize("bad", [b"", b"\1\0\0\0\1x", b"\0\0\0\0\1", b"\0\0\0\0\7abc"])
def test_one_bad_record_costs_itself(bad: bytes) -> None:
    values = [framed(SIMPLE, simple(at)) for at in range(40)]
    values[17] = bad
    found = decoder_of(SIMPLE).decode(records_of(values))
    assert found.row.tolist() == [at for at in range(40) if at != 17]
    assert [each.row for each in found.rejects] == [17]


def test_a_time_that_is_no_date_is_a_reject() -> None:
    values = [framed(SIMPLE, simple(0)), framed(SIMPLE, simple(1, at=2**60)), framed(SIMPLE, simple(2, day=2**30))]
    found = decoder_of(SIMPLE).decode(records_of(values))
    assert found.row.tolist() == [0]
    assert ["at is" in found.rejects[0].message, "day is" in found.rejects[1].message] == [True, True]


def test_a_field_with_a_name_of_ours_is_refused() -> None:
    taken = {**SIMPLE, "fields": [{"name": "streams_offset", "type": "long"}]}
    with pytest.raises(UsageError, match="streams_offset"):
        columns_of(json.dumps(taken))


def _decoded(values: Sequence[bytes | None], keys: Sequence[bytes | None]) -> tuple[Records, DecodedRows]:
    records = records_of(values, keys=keys)
    return records, decoder_of(SIMPLE, has_tombstones=True).decode(records)


def test_the_last_row_or_deletion_of_each_key_remains() -> None:
    values: list[bytes | None] = [framed(SIMPLE, simple(at)) for at in range(6)]
    values[4:4] = [None]
    keys = [b"v-0", b"v-1", b"v-2", b"v-0", b"v-0", b"v-1", b"v-2"]
    records, decoded = _decoded(values, keys)
    found = prepared(records, decoded, ["id"])
    assert found.batch.offset.tolist() == [5, 6]
    assert found.batch.deleted == ["v-0"]
    assert found.batch.offsets == {0: 7}


def test_a_refused_row_gives_way_to_the_one_before_it() -> None:
    records, decoded = _decoded([framed(SIMPLE, simple(at)) for at in (0, 3)], [b"v-0", b"v-0"])
    assert prepared(records, decoded, ["id"]).batch.offset.tolist() == [1]
    found = prepared(records, decoded, ["id"], without={(0, 1): "too long"})
    assert found.batch.offset.tolist() == [0]
    assert [(each.row, each.reason) for each in found.rejects] == [(1, Reason.REFUSED_BY_OUTPUT)]


def test_of_two_partitions_the_higher_one_has_the_newer_row() -> None:
    values = [framed(SIMPLE, simple(0, count=1)), framed(SIMPLE, simple(0, count=2))]
    records = records_of(values, keys=[b"v-0", b"v-0"])
    records = Records(np.array([3, 0]), np.array([5, 900]), records.timestamp_ms, records.key, records.value)
    decoded = decoder_of(SIMPLE, has_tombstones=True).decode(records)
    assert prepared(records, decoded, ["id"]).batch.rows.column("count").to_pylist() == [1]


@pytest.mark.parametrize("has_tombstones", [True, False])
def test_a_tombstone_of_a_row_that_has_moved_to_another_partition_deletes_nothing(*, has_tombstones: bool) -> None:
    records = replace(records_of([None, None], keys=[b"v-0", b"v-1"]), headers=[[(MOVED_HEADER, b"2:4")], None])
    found = decoder_of(SIMPLE, has_tombstones=has_tombstones).decode(records)
    assert found.tombstones.tolist() == ([1] if has_tombstones else [])
    assert [each.row for each in found.rejects] == ([] if has_tombstones else [1])
    if has_tombstones:
        batch = prepared(records, found, ["id"]).batch
        assert (batch.deleted, batch.offsets) == (["v-1"], {0: 2})


def test_a_key_that_is_no_text_deletes_nothing() -> None:
    records, decoded = _decoded([None], [uuid.UUID(int=2**127 + 255).bytes])
    found = prepared(records, decoded, ["id"])
    assert not found.batch.deleted
    assert [each.reason for each in found.rejects] == [Reason.INVALID]
