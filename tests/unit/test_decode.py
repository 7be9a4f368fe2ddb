import copy
import dataclasses
import io
import json
import re
import resource
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import fastavro
import numpy as np
import pytest

from logistics.flows.gps import GPS
from streams.avro.decode import Decoder
from streams.avro.decoded import Decoded
from streams.avro.framing import SCHEMA_ID_HEADER
from streams.avro.native import Native, choose
from streams.avro.resolve import Plan, build_plan
from streams.batch.clock import Clock
from streams.batch.records import Records
from streams.batch.rejects import Reason, Reject
from streams.limits import ID_BYTES_MAX, KEY_BYTES_MAX
from streams.schemas.catalog import Catalog

NOW = 1_700_000_000_000
TEXT = Catalog.load().latest("gps.positions.v1-value").text
V2 = json.loads(TEXT)
V1 = {**V2, "fields": [field for field in V2["fields"] if field["name"] != "altitude_m"]}
EVENT = {
    "event_id": "e-1",
    "device_id": "d",
    "sequence": 5,
    "event_time": NOW,
    "latitude": 48.5,
    "longitude": -11.25,
    "speed_kmh": None,
    "heading_deg": 7.5,
    "altitude_m": None,
}


def plan(schema: dict[str, Any] | list[Any], schema_id: int) -> Plan:
    return build_plan(schema_id, json.dumps(schema), TEXT)


KNOWN: dict[int | str, Plan | Reject] = {
    1: plan(V1, 1),
    2: plan(V2, 2),
    3: Reject(-1, Reason.UNKNOWN_SCHEMA, "no such schema", 3),
}


def body(schema: dict[str, Any] = V2, **changes: object) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), {**EVENT, **changes})
    return stream.getvalue()


def frame(schema_id: int = 2) -> bytes:
    return b"\0" + struct.pack(">i", schema_id)


def framed(schema: dict[str, Any] = V2, schema_id: int = 2, **changes: Any) -> bytes:
    return frame(schema_id) + body(schema, **changes)


def records(
    values: Sequence[bytes | None],
    *,
    keys: list[bytes | None] | None = None,
    headers: Sequence[Sequence[tuple[str, bytes | None]] | None] | None = None,
    headers_lost: dict[int, int] | None = None,
    timestamp: int = NOW,
) -> Records:
    count = len(values)
    return Records(
        np.zeros(count, np.int64),
        np.arange(count),
        np.full(count, timestamp),
        [b"d"] * count if keys is None else keys,
        [*values],
        None if headers is None else [None if each is None else [*each] for each in headers],
        headers_lost,
    )


@pytest.fixture(autouse=True, params=["off", pytest.param("on", marks=pytest.mark.native)])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs with the Python decoder and with the native one."""
    monkeypatch.setattr(sys.modules[__name__], "NATIVE", choose(request.param).native)


NATIVE: Native | None = None


def decoder(*, record_bytes_max: int = 10_000, skew_ms_max: int = 60_000) -> Decoder:
    return Decoder(GPS, record_bytes_max=record_bytes_max, skew_ms_max=skew_ms_max, native=NATIVE)


def decode(values: Sequence[bytes | None], known: Mapping[Any, Plan | Reject] = KNOWN, **options: Any) -> Decoded:
    return decoder().decode(records(values, **options), known)


def reasons(result: Decoded) -> list[tuple[int, Reason]]:
    return [(reject.row, reject.reason) for reject in result.rejects]


def only_reject(value: bytes | None, **options: Any) -> Reject:
    [reject] = decode([value], **options).rejects
    return reject


def test_an_event_becomes_a_row_of_columns() -> None:
    events = decode([framed()]).events
    assert (events.event_id[0], events.key[0], events.value[0]) == (b"e-1", b"d", framed())
    assert (events.sequence[0], events.event_time[0], events.timestamp_ms[0]) == (5, NOW, NOW)
    assert np.array_equal(events.payload[:, 0], [48.5, -11.25, np.nan, 7.5], equal_nan=True)


def test_what_is_said_of_a_record_that_is_cut_off_names_no_place_in_memory() -> None:
    message = only_reject(framed()[:-9]).message
    assert message == "not a value of schema 2: EOFError: cannot read double from the value"


def test_an_empty_batch_gives_nothing() -> None:
    result = decode([])
    assert (len(result.events), result.rejects, dict(result.unresolved)) == (0, [], {})


@pytest.mark.parametrize("value", [b"", b"\0", b"\0\0\0\0", b"\1\0\0\0\2abc", b'{"event_id": 1}'])
def test_what_does_not_begin_with_a_frame_is_not_framed(value: bytes) -> None:
    assert only_reject(value).reason == Reason.NOT_FRAMED


def test_a_record_without_value_is_not_framed() -> None:
    assert only_reject(None).reason == Reason.NOT_FRAMED


def test_a_record_without_value_costs_nobody_else() -> None:
    result = decode([framed(), None, framed(event_id="e-2")])
    assert reasons(result) == [(1, Reason.NOT_FRAMED)]
    assert result.events.row.tolist() == [0, 2]


def test_a_frame_without_a_value_is_malformed() -> None:
    assert only_reject(frame()).reason == Reason.MALFORMED


def test_a_known_unknown_schema_is_rejected_with_its_id() -> None:
    reject = only_reject(framed(schema_id=3))
    assert (reject.reason, reject.schema_id, reject.message) == (Reason.UNKNOWN_SCHEMA, 3, "no such schema")


def test_a_schema_that_nobody_has_asked_for_is_unresolved_and_no_reject() -> None:
    result = decode([framed(), framed(schema_id=9), framed(schema_id=-1), framed(schema_id=9)])
    assert result.unresolved == {9: [1, 3], -1: [2]}
    assert (result.rejects, result.events.row.tolist()) == ([], [0])


def test_schemas_mixed_in_one_batch_keep_the_order_of_the_log() -> None:
    values = [framed(V1, 1, event_id=f"e{i}") if i % 3 else framed(V2, 2, event_id=f"e{i}") for i in range(40)]
    subject = decoder()
    for _ in range(2):
        events = subject.decode(records(values), KNOWN).events
        assert events.event_id.tolist() == [b"e%d" % i for i in range(40)]
        assert events.row.tolist() == list(range(40))


def test_the_schema_id_may_be_in_a_header() -> None:
    headers = [[("x", b"y"), (SCHEMA_ID_HEADER, frame(1))], None, [(SCHEMA_ID_HEADER, b"\0\0")]]
    result = decode([body(V1), framed(), framed()], headers=headers)
    assert result.events.row.tolist() == [0, 1, 2]
    assert result.events.headers is not None
    assert result.events.headers.tolist() == headers


def test_a_header_wins_over_what_looks_like_a_frame() -> None:
    assert only_reject(framed(), headers=[[(SCHEMA_ID_HEADER, frame(2))]]).reason in (Reason.MALFORMED, Reason.INVALID)


def test_a_value_in_a_header_schema_may_be_shorter_than_a_frame() -> None:
    assert only_reject(b"", headers=[[(SCHEMA_ID_HEADER, frame(2))]]).reason == Reason.MALFORMED


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_record_that_is_cut_off_is_malformed(cut: int) -> None:
    assert only_reject(framed()[:-cut]).reason == Reason.MALFORMED


def test_bytes_behind_the_value_are_malformed() -> None:
    reject = only_reject(framed() + b"\0")
    assert (reject.reason, reject.schema_id) == (Reason.MALFORMED, 2)
    assert "1 byte after the end" in reject.message


@pytest.mark.parametrize("garbage", [b"\xff", b"\xff\xfe", b"a\xc3", b"\xed\xa0\x80"])
@pytest.mark.parametrize("others", [0, 40])
@pytest.mark.parametrize("field", ["event_id", "device_id"])
def test_text_that_is_not_utf_8_is_malformed_whatever_stands_beside_it(field: str, others: int, garbage: bytes) -> None:
    marker = "z" * len(garbage)
    changes: dict[str, Any] = {field: marker}
    value = framed(**changes).replace(marker.encode(), garbage)
    result = decode([*[framed()] * others, value], keys=[b"d"] * others + [garbage])
    assert reasons(result) == [(others, Reason.MALFORMED)]
    assert len(result.events) == others


@pytest.mark.parametrize("bad", [framed()[:-1], framed() + b"x", b"junk", framed(schema_id=3), framed(latitude=91.0)])
@pytest.mark.parametrize("at", [0, 1, 499, 999])
def test_one_bad_record_costs_one_record(bad: bytes, at: int) -> None:
    values = [framed(event_id=f"e{i}") for i in range(1000)]
    values[at] = bad
    result = decode(values)
    assert [reject.row for reject in result.rejects] == [at]
    assert result.events.row.tolist() == [row for row in range(1000) if row != at]
    assert result.events.event_id.tolist() == [b"e%d" % row for row in range(1000) if row != at]


def test_a_record_larger_than_the_bound_is_too_large_and_one_of_its_size_is_not() -> None:
    value = framed(event_id="x" * 50)
    at_bound = decoder(record_bytes_max=len(value)).decode(records([value]), KNOWN)
    beyond = decoder(record_bytes_max=len(value) - 1).decode(records([value, framed()]), KNOWN)
    assert len(at_bound.events) == 1
    assert reasons(beyond) == [(0, Reason.TOO_LARGE)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"event_id": ""}, "event id is empty"),
        ({"event_id": "x" * (ID_BYTES_MAX + 1)}, "longer than 128 bytes"),
        ({"event_id": "é" * (ID_BYTES_MAX // 2 + 1)}, "longer than 128 bytes"),
        ({"device_id": "é" * (KEY_BYTES_MAX // 2 + 1)}, "device_id is longer than 1024 bytes"),
        ({"device_id": ""}, "device_id is empty"),
        ({"event_time": -1}, "event_time is negative"),
        ({"latitude": 90.0001}, r"latitude is outside \[-90, 90\]"),
        ({"longitude": -180.0001}, r"longitude is outside \[-180, 180\]"),
        ({"latitude": float("nan")}, "latitude is not a number"),
        ({"longitude": float("inf")}, "longitude is not a number"),
        ({"speed_kmh": float("nan")}, "speed_kmh is not a number"),
        ({"heading_deg": float("-inf")}, "heading_deg is not a number"),
    ],
)
def test_values_that_cannot_be_are_invalid(changes: dict[str, Any], message: str) -> None:
    reject = only_reject(framed(**changes), keys=[changes.get("device_id", "d").encode()])
    assert reject.reason == Reason.INVALID
    assert re.search(message, reject.message)


@pytest.mark.parametrize(
    "changes",
    [
        {"event_id": "x" * ID_BYTES_MAX},
        {"latitude": 90.0, "longitude": 180.0},
        {"latitude": -90.0, "longitude": -180.0},
        {"event_time": 0},
        {"sequence": -(2**63)},
        {"speed_kmh": -1e300},
        {"event_time": NOW + 60_000},
        {"altitude_m": float("nan")},
    ],
)
def test_values_at_their_bounds_are_valid(changes: dict[str, Any]) -> None:
    assert decode([framed(**changes)]).rejects == []


def test_a_key_at_its_bound_is_valid() -> None:
    key = "k" * KEY_BYTES_MAX
    assert [] == decode([framed(device_id=key)], keys=[key.encode()]).rejects


@pytest.mark.parametrize("key", [None, b"", b"D", b"d ", b"\xff"])
def test_a_key_that_is_not_the_key_field_is_a_mismatch(key: bytes | None) -> None:
    assert only_reject(framed(), keys=[key]).reason == Reason.KEY_MISMATCH


def test_an_event_time_beyond_the_skew_is_a_future_timestamp() -> None:
    reject = only_reject(framed(event_time=NOW + 60_001))
    assert reject.reason == Reason.FUTURE_TIMESTAMP
    assert "60001 ms ahead" in reject.message


@pytest.mark.parametrize("time", [2**63 - 1, 2**60 + 1, 10**17])
def test_times_at_the_end_of_the_world_are_the_future_whatever_the_record_says(time: int) -> None:
    assert only_reject(framed(event_time=time)).reason == Reason.FUTURE_TIMESTAMP
    assert only_reject(framed(event_time=2**63 - 1), timestamp=2**63 - 1).reason == Reason.FUTURE_TIMESTAMP


def test_the_first_reason_that_applies_is_given() -> None:
    assert only_reject(framed(latitude=91.0, event_time=NOW * 2), keys=[b"x"]).reason == Reason.INVALID
    assert only_reject(framed(event_time=NOW * 2), keys=[b"x"]).reason == Reason.KEY_MISMATCH


LONG_PLACES = {
    **V2,
    "fields": [
        {"name": field["name"], "type": "long"} if field["name"] in ("latitude", "speed_kmh") else field
        for field in V2["fields"]
    ],
}


@pytest.mark.parametrize("extra", [{}, {"tail": b"x"}])
def test_longs_beyond_the_exact_doubles_are_rounded_and_do_not_stop_the_worker(extra: dict[str, bytes]) -> None:
    known = {4: plan(LONG_PLACES, 4)}
    good = framed(LONG_PLACES, 4, latitude=48, speed_kmh=2**60 + 1)
    bad = framed(LONG_PLACES, 4, latitude=2**60 + 1, speed_kmh=1)
    result = decode([good, bad + extra.get("tail", b"")], known)
    assert result.events.payload[2].tolist() == [float(2**60)]
    assert [reject.row for reject in result.rejects] == [1]


def padded(number: int) -> bytes:
    """A varint in ten bytes, whatever it needs."""
    coded = (number << 1) ^ (number >> 63)
    return bytes([coded >> 7 * i & 0x7F | 0x80 for i in range(9)]) + bytes([coded >> 63 & 1])


def test_a_number_in_more_bytes_than_it_needs_is_read_as_fastavro_reads_it() -> None:
    value = framed()
    plain = bytes([10])  # sequence 5, behind "e-1" and "d"
    at = value.index(b"\x02d") + 2
    assert value[at : at + 1] == plain
    result = decode([value[:at] + padded(5) + value[at + 1 :], framed()])
    assert result.events.sequence.tolist() == [5, 5]


HUGE = b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"


def with_bomb(kind: dict[str, Any] | list[str] | str) -> dict[str, Any]:
    return {**V2, "fields": [{"name": "bomb", "type": kind}, *V2["fields"]]}


@pytest.mark.parametrize(
    ("kind", "bomb"),
    [
        ("string", HUGE),
        ("string", b"\xfe\xff\xff\xff\x0f"),
        ("string", b"\xff" * 9_000),
        ("string", b"\x01" * 100),
        ("bytes", HUGE),
        ("long", b"\xff" * 9_000),
        ("boolean", b"\xff"),
        (["null", "string"], HUGE),
        (["null", "string"], b"\x02" + HUGE),
        ({"type": "array", "items": "long"}, HUGE),
        ({"type": "array", "items": "string"}, b"\x01" + HUGE + HUGE),
        ({"type": "map", "values": "long"}, HUGE),
        ({"type": "fixed", "name": "F", "size": 2**40}, b"abc"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, HUGE),
    ],
    ids=str,
)
def test_counts_and_lengths_that_lie_cost_no_memory_and_nobody_else(
    kind: dict[str, Any] | list[str] | str, bomb: bytes
) -> None:
    schema = with_bomb(kind)
    known = {2: KNOWN[2], 5: plan(schema, 5)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = decode([framed(), *[frame(5) + bomb] * 50, framed()], known)
    assert {reject.reason for reject in result.rejects} == {Reason.MALFORMED}
    assert result.events.row.tolist() == [0, 51]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


def test_decoding_is_a_function_of_records_and_schemas_alone() -> None:
    values = [framed(event_id=f"e{i}") if i % 7 else framed()[: i % 5 + 5] for i in range(60)]
    subject = decoder()
    at_once = subject.decode(records(values), KNOWN)
    one_by_one = [decode([value]) for value in values]
    assert [row for row, result in enumerate(one_by_one) if result.rejects] == [r.row for r in at_once.rejects]
    assert [r.message for result in one_by_one for r in result.rejects] == [r.message for r in at_once.rejects]
    ids = np.concatenate([result.events.id_hi for result in one_by_one])
    assert np.array_equal(ids, at_once.events.id_hi)


def header_of(schema_id: int) -> list[tuple[str, bytes]]:
    return [("trace", b"1"), (SCHEMA_ID_HEADER, frame(schema_id))]


def test_prefix_and_header_versions_and_plain_headers_are_mixed_in_any_order() -> None:
    kinds = [(V1, 1), (V2, 2)]
    values, headers, ids = [], [], []
    for number in range(60):
        schema, schema_id = kinds[number % 2]
        by_header = number % 3 == 0
        name = f"e-{number}"
        values.append(body(schema, event_id=name) if by_header else framed(schema, schema_id, event_id=name))
        headers.append(header_of(schema_id) if by_header else [("trace", b"2")] if number % 5 == 0 else None)
        ids.append(name.encode())
    subject = decoder()
    for _ in range(3):
        result = subject.decode(records(values, headers=headers), KNOWN)
        assert (result.rejects, result.events.event_id.tolist()) == ([], ids)
        assert result.events.headers is not None
        assert result.events.headers.tolist() == headers


GUID = b"\x01" + bytes(range(16))
GUID_TEXT = "00010203-0405-0607-0809-0a0b0c0d0e0f"


def test_a_schema_named_by_guid_is_looked_up_and_read_like_one_named_by_id() -> None:
    by_guid = [(SCHEMA_ID_HEADER, GUID)]
    values = [body(event_id="a"), framed(event_id="b"), body(event_id="c", latitude=91.0), body(event_id="d"), body()]
    headers = [by_guid, None, by_guid, header_of(2), None]
    unresolved = decode(values, headers=headers).unresolved
    assert unresolved == {GUID_TEXT: [0, 2]}
    result = decode(values, {**KNOWN, GUID_TEXT: KNOWN[2]}, headers=headers)
    assert result.events.row.tolist() == [0, 1, 3]
    assert [(r.row, r.reason, r.schema_id) for r in result.rejects] == [
        (2, Reason.INVALID, 2), (4, Reason.NOT_FRAMED, None)
    ]  # fmt: skip
    unknown = Reject(-1, Reason.UNKNOWN_SCHEMA, "nobody has it")
    assert [r.message for r in decode(values[:1], {GUID_TEXT: unknown}, headers=[by_guid]).rejects] == ["nobody has it"]


@pytest.mark.parametrize("header", [b"", b"\x01", GUID[:-1], GUID + b"\0", b"\x02" + GUID[1:]])
def test_a_header_that_holds_neither_id_nor_guid_does_not_count(header: bytes) -> None:
    assert decode([framed()], headers=[[(SCHEMA_ID_HEADER, header)]]).events.row.tolist() == [0]


UNREAD = (
    ("string", "cut off"),
    ("bytes", b"cut off"),
    (["null", "string"], "cut off"),
    ({"type": "fixed", "name": "Three", "size": 3}, b"cut"),
    ({"type": "array", "items": "string"}, ["cut", "off"]),
    ({"type": "map", "values": "bytes"}, {"cut": b"off"}),
    ({"type": "record", "name": "Note", "fields": [{"name": "text", "type": "string"}]}, {"text": "cut off"}),
    ("double", 1.5),
)


@pytest.mark.parametrize(("kind", "value"), UNREAD)
@pytest.mark.parametrize("others", [0, 40])
def test_a_record_cut_off_anywhere_within_fields_that_the_reader_does_not_know_is_malformed(
    kind: dict[str, Any] | list[str] | str, value: object, others: int
) -> None:
    """Before, fastavro skipped what was not there, and the record was clean."""
    writer = {**V2, "fields": [*V2["fields"], {"name": "note", "type": kind}, {"name": "last", "type": "string"}]}
    known = {5: plan(writer, 5)}
    whole = framed(writer, 5, note=value, last="the end")
    values = [whole[:cut] for cut in range(len(frame()), len(whole))]
    result = decode([*values, *[whole] * others, whole], known)
    assert {reject.row: reject.reason for reject in result.rejects} == dict.fromkeys(
        range(len(values)), Reason.MALFORMED
    )
    assert len(result.events) == others + 1


ORDER = {"type": "record", "name": "OrderEvent", "namespace": "logistics", "fields": [{"name": "id", "type": "string"}]}


@pytest.mark.parametrize("count", [1, 30])
def test_of_a_writers_union_of_records_the_readers_branch_is_read_and_others_are_named(count: int) -> None:
    known = {5: plan([ORDER, V2, "null"], 5)}
    mine = [frame(5) + b"\x02" + body(event_id=f"e-{number}") for number in range(count)]
    order, nothing, cut = frame(5) + b"\0" + b"\x02x", frame(5) + b"\x04", mine[0][:-1]
    beyond = frame(5) + b"\x06" + body()
    result = decode([*mine, order, nothing, cut, beyond, frame(5)], known)
    assert result.events.row.tolist() == list(range(count))
    assert [(reject.row - count, reject.reason) for reject in result.rejects] == [
        (0, Reason.INCOMPATIBLE_SCHEMA), (1, Reason.INCOMPATIBLE_SCHEMA), (2, Reason.MALFORMED),
        (3, Reason.MALFORMED), (4, Reason.MALFORMED),
    ]  # fmt: skip
    assert "of 'OrderEvent', another branch of schema 5" in result.rejects[0].message
    assert "of 'null', another branch of schema 5" in result.rejects[1].message


class NativePanicError(BaseException):
    pass


NativePanicError.__name__ = "PanicException"


def test_a_panic_of_native_code_costs_nobody_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    def panics(values: list[bytes], schema: str) -> None:
        raise NativePanicError

    monkeypatch.setattr("streams.avro.values.pyruhvro.deserialize_array", panics)
    result = decode([framed(), framed()[:-1], framed()])
    assert [reject.reason for reject in result.rejects] == [Reason.MALFORMED]
    assert result.events.row.tolist() == [0, 2]


NESTED = {
    **V2,
    "fields": [
        {"name": "maker", "type": {"type": "record", "name": "Maker", "fields": [{"name": "name", "type": "string"}]}},
        *V2["fields"],
        {"name": "numbers", "type": {"type": "array", "items": ["null", "int", "string"]}},
        {"name": "raw", "type": {"type": "map", "values": "bytes"}},
        {"name": "code", "type": {"type": "fixed", "name": "Code", "size": 12}},
        {"name": "old_maker", "type": ["null", "Maker"]},
        {"name": "kind", "type": {"type": "array", "items": {"type": "enum", "name": "K", "symbols": ["A", "B"]}}},
    ],
}
NESTED_VALUES = {
    "maker": {"name": "é"},
    "numbers": [None, 3, "x"],
    "raw": {"a": b"\xff", "b": b""},
    "code": bytes(12),
    "old_maker": None,
    "kind": ["A", "B"],
}


def test_one_bad_record_among_nested_ones_costs_one_record() -> None:
    nested = plan(NESTED, 5)
    assert nested.framed_json is not None
    known: dict[int | str, Plan | Reject] = {5: nested}
    values = [framed(NESTED, 5, event_id=f"e-{number}", **NESTED_VALUES) for number in range(100)]
    values[40] += b"\0"
    values[41] = values[41][:-1] + b"\x05"
    values[42] = values[42][:-3]
    values[43] = values[43].replace(b"\xc3\xa9", b"\xff\xff")  # a string that nobody reads need be none
    subject = decoder()
    for _ in range(2):
        result = subject.decode(records(values), known)
        assert {reject.row: reject.reason for reject in result.rejects} == dict.fromkeys((40, 41, 42), Reason.MALFORMED)
        assert len(result.events) == 97
        assert [(found.schema_id, len(rows)) for found, rows in result.unexpected] == [(5, 97)]


def test_an_enum_that_nobody_reads_is_judged_alike_on_both_paths() -> None:
    """Before, a batch of its own passed in columns what one by one, beside a bad record, became a dead letter."""
    kind = {"type": "enum", "name": "K", "symbols": ["A", "B"]}
    reader = {**V2, "fields": [*V2["fields"], {"name": "kind", "type": kind, "default": "A"}]}
    writer = {**reader, "fields": [*V2["fields"], {"name": "kind", "type": {**kind, "symbols": ["A", "B", "C"]}}]}
    known = {6: build_plan(6, json.dumps(writer), json.dumps(reader))}
    good, unknown = framed(writer, 6, kind="A"), framed(writer, 6, kind="C")
    for values in ([good, unknown], [good, unknown, frame(6)]):
        found = {reject.row: reject.reason for reject in decode(values, known).rejects}
        assert found[1] is Reason.INCOMPATIBLE_SCHEMA


def test_a_null_where_the_reader_takes_none_is_named_by_its_field() -> None:
    """As of sources that make every field optional; before, the types were named and not the field."""
    fields = [
        {**field, "type": field["type"] if isinstance(field["type"], list) else ["null", field["type"]]}
        for field in V2["fields"]
    ]
    optional = {**V2, "fields": fields}
    known = {7: plan(optional, 7)}
    values = [
        framed(optional, 7),
        framed(optional, 7, latitude=None),
        framed(optional, 7, device_id=None, sequence=None, speed_kmh=None),
    ]

    result = decode(values, known)

    assert 1 == len(result.events)
    assert [
        (1, Reason.INCOMPATIBLE_SCHEMA, "'latitude'"),
        (2, Reason.INCOMPATIBLE_SCHEMA, "'device_id', 'sequence'"),
    ] == [(each.row, each.reason, each.message.split("null in ")[1].split(", which")[0]) for each in result.rejects]


def test_of_several_header_ids_the_first_one_counts() -> None:
    for good, others in ((V1, [1, 2]), (V2, [2, 1])):
        headers = [[(SCHEMA_ID_HEADER, b"?"), *((SCHEMA_ID_HEADER, frame(each)) for each in others)]]
        assert len(decode([body(good, altitude_m=None)], headers=headers).events) == 1


# --- headers that cannot be read --------------------------------------------------------------------------------------


def test_a_record_with_headers_that_cannot_be_read_is_a_bad_header_and_costs_its_neighbours_nothing() -> None:
    subject = decoder()
    subject.decode(records([framed()] * 3), KNOWN)
    result = subject.decode(records([framed()] * 3, headers_lost={1: 2}), KNOWN)
    assert [(1, Reason.BAD_HEADER)] == reasons(result)
    assert [0, 2] == result.events.row.tolist()
    assert "not UTF-8, which could not be kept: 2;" in result.rejects[0].message


def test_a_record_that_is_too_large_is_that_first() -> None:
    result = decoder(record_bytes_max=100).decode(records([bytes(101)], headers_lost={0: 1}), KNOWN)
    assert [(0, Reason.TOO_LARGE)] == reasons(result)


def test_headers_larger_than_a_record_may_be_are_too_large() -> None:
    most = [("name", bytes(10_000 - 4))]
    result = decode([framed(), framed(event_id="e2")], headers=[most, [*most, ("a", None)]])
    assert [(1, Reason.TOO_LARGE)] == reasons(result)
    assert "10001 bytes of headers; at most 10000 are accepted" == result.rejects[0].message


def test_rows_taken_and_joined_keep_what_is_known_of_their_headers() -> None:
    one = records([b"a", b"b", b"c"], headers_lost={0: 1, 2: 3})
    assert {0: 3} == one.take(np.array([2, 1])).headers_lost
    assert one.take(np.array([1])).headers_lost is None
    assert {1: 1, 3: 3} == Records.concat([records([b"x"]), one]).headers_lost
    assert Records.concat([records([b"x"]), records([b"y"])]).headers_lost is None


# --- record timestamps that are no time -------------------------------------------------------------------------------

YEAR_MS = 365 * 86_400_000


@pytest.mark.parametrize("timestamp", [-1, 0, -5, 86_400_000, NOW // 1_000, NOW + YEAR_MS, 2**63 - 1])
def test_an_event_whose_record_has_no_usable_timestamp_is_judged_by_the_clock(timestamp: int) -> None:
    clock = Clock(NOW, 60_000)
    values = [framed(event_time=NOW + ahead) for ahead in (0, 60_000, 60_001, 10 * YEAR_MS)]
    result = decoder().decode(records(values, timestamp=timestamp), KNOWN, clock=clock)
    assert [(2, Reason.FUTURE_TIMESTAMP), (3, Reason.FUTURE_TIMESTAMP)] == reasons(result)
    assert "event_time is 60001 ms ahead of the worker's clock; the record" in result.rejects[0].message
    assert [timestamp] * 2 == result.events.timestamp_ms.tolist()


def test_a_timestamp_that_is_a_time_is_what_its_event_is_judged_by_whatever_the_clock_says() -> None:
    values = [framed(event_time=NOW + 60_001)]
    for clock_ms in (NOW, NOW + YEAR_MS):
        assert [(0, Reason.FUTURE_TIMESTAMP)] == reasons(
            decoder().decode(records(values), KNOWN, clock=Clock(clock_ms, 60_000))
        )
    late_reader = decoder().decode(records(values, timestamp=NOW + 1), KNOWN, clock=Clock(NOW + YEAR_MS, 60_000))
    assert 1 == len(late_reader.events)


def test_whole_numbers_that_a_double_does_not_hold_are_invalid_on_either_path() -> None:
    schema = copy.deepcopy(V2)
    for field in schema["fields"]:
        if field["name"] == "speed_kmh":
            field["type"] = ["null", "long"]
    wide = build_plan(5, json.dumps(schema), json.dumps(schema))
    numbers = [2**53, -(2**53), 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), None]
    values = [framed(schema, 5, speed_kmh=number, event_id=f"e{row}") for row, number in enumerate(numbers)]
    for plan_of_it in (wide, dataclasses.replace(wide, framed_json=None)):
        result = decode(values, {5: plan_of_it})
        assert [(row, Reason.INVALID) for row in (2, 3, 4, 5)] == reasons(result)
        assert [0, 1, 6] == result.events.row.tolist()
        assert [2.0**53, -(2.0**53)] == result.events.payload[2][:2].tolist()
        assert "beyond 9007199254740992 (2^53)" in result.rejects[0].message
