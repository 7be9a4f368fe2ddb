import hashlib
import io
import json
import uuid
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logistics.flows.gps import GPS
from logistics.flows.orders import ORDERS
from streams.avro.decode import Decoder
from streams.avro.resolve import build_plan
from streams.batch.event_ids import EVENT_TIME_MAX
from streams.batch.records import Records
from streams.errors import UsageError
from streams.ingest.chunks import BadRow, Chunk, Source
from streams.ingest.events import NAMESPACE, Batch, Converter, Encoder
from streams.ingest.filling import filling_of
from streams.ingest.judge import Judge
from streams.ingest.reading import Reading, TimeUnit
from streams.schemas.catalog import Catalog

SCHEMA = Catalog.load().latest(GPS.subject)
PARSED = fastavro.parse_schema(json.loads(SCHEMA.text))
ROW = {"device_id": "d1", "event_time": 1000, "latitude": 1.5, "longitude": 2.5}
SKEW_MS_MAX = 60_000
FULL = {**ROW, "event_id": "e1", "sequence": 7, "speed_kmh": 3.5, "heading_deg": None, "altitude_m": 4.5}


def chunk_of(rows: list[dict[str, Any]], first: int = 1, bad: list[BadRow] | None = None) -> Chunk:
    names = dict.fromkeys(name for row in rows for name in row)
    numbers = np.arange(first, first + len(rows))
    return Chunk(numbers, {name: [row.get(name) for row in rows] for name in names}, bad or [])


def converter(
    columns: Any,
    mapping: dict[str, str] | None = None,
    record_bytes_max: int = 1_048_576,
    now_ms: int = EVENT_TIME_MAX,
    shift_ms: int = 0,
    schema_id: int = 258,
) -> Converter:
    filling = filling_of(GPS, SCHEMA, Source(tuple(columns), lambda _: iter(())), mapping or {})
    judge = Judge(GPS, SCHEMA, schema_id, record_bytes_max=record_bytes_max, skew_ms_max=SKEW_MS_MAX, now_ms=now_ms)
    reading = Reading(time_unit=TimeUnit.MS)
    return Converter(GPS, filling, Encoder(GPS, SCHEMA, schema_id), judge, reading, shift_ms)


def converted(rows: list[dict[str, Any]], **options: Any) -> tuple[Batch, list[BadRow]]:
    chunk = chunk_of(rows)
    return converter(chunk.columns, **options).convert(chunk)


def rows_of(batch: Batch) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pa.table(batch.events.columns).to_pylist()
    return rows


def fast(row: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, PARSED, row)
    return out.getvalue()


texts = st.text(min_size=1, max_size=20)
doubles = st.floats(allow_nan=False, allow_infinity=False)
records = st.fixed_dictionaries(
    {
        "event_id": texts,
        "device_id": texts,
        "sequence": st.integers(-(2**63), 2**63 - 1),
        "event_time": st.integers(0, 2**50),
        "latitude": st.floats(-90, 90),
        "longitude": st.floats(-180, 180),
        "speed_kmh": st.none() | doubles,
        "heading_deg": st.none() | doubles,
        "altitude_m": st.none() | doubles,
    }
)


@pytest.mark.thorough
@given(st.lists(records, min_size=1, max_size=30), st.integers(0, 30))
def test_encoded_events_equal_fastavro_byte_for_byte_also_when_the_first_were_sent_already(
    rows: list[dict[str, Any]], done: int
) -> None:
    events, bad = converted(rows)
    assert bad == []
    fresh = events.after(done)
    assert [b"\0\0\0\1\2" + fast(row) for row in rows[done:]] == fresh.values
    assert [row["device_id"].encode() for row in rows[done:]] == fresh.keys


def test_a_shift_moves_all_times_and_nothing_else() -> None:
    events, _ = converted([FULL], shift_ms=5)
    assert [value[5:] for value in events.values] == [fast({**FULL, "event_time": 1005})]
    assert rows_of(events) == [FULL]


def test_what_the_file_does_not_give_is_derived_or_null() -> None:
    events, bad = converted([ROW, {**ROW, "device_id": "d2"}, {**ROW, "event_time": 2000}])
    assert bad == []
    assert [row["sequence"] for row in rows_of(events)] == [0, 0, 1]
    assert all(row["altitude_m"] is None and row["speed_kmh"] is None for row in rows_of(events))
    assert len({row["event_id"] for row in rows_of(events)}) == 3


def test_sequences_go_on_from_chunk_to_chunk_and_bad_rows_do_not_count() -> None:
    machine = converter(ROW)
    first, _ = machine.convert(chunk_of([ROW, {**ROW, "latitude": 91}, ROW]))
    second, _ = machine.convert(chunk_of([ROW], first=4))
    assert [row["sequence"] for row in [*rows_of(first), *rows_of(second)]] == [0, 1, 2]


def test_a_derived_id_is_a_version_5_uuid_of_the_documented_bytes() -> None:
    events, _ = converted([{**ROW, "speed_kmh": None}])
    one = rows_of(events)[0]["event_id"]
    name = b"latitude,longitude,\0" + (2).to_bytes(8, "big") + (1000).to_bytes(8, "big")
    name += np.array([1.5, 2.5], dtype=">f8").tobytes() + b"d1"
    digest = hashlib.sha1(NAMESPACE.bytes + name, usedforsecurity=False).digest()
    assert str(uuid.UUID(bytes=digest[:16], version=5)) == one
    assert uuid.UUID(one).version == 5


def test_derived_ids_are_the_same_for_the_same_row_in_any_column_order_and_type() -> None:
    (one,) = rows_of(converted([{**ROW, "speed_kmh": 3}])[0])
    reordered = dict(reversed([*ROW.items(), ("speed_kmh", "3.0")]))
    (two,) = rows_of(converted([{**reordered, "event_time": "1970-01-01T00:00:01Z"}])[0])
    assert one["event_id"] == two["event_id"]


@given(st.lists(records, min_size=2, max_size=8, unique_by=repr))
def test_different_rows_have_different_derived_ids(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        del row["event_id"]
    events, _ = converted(rows)
    ids = [row["event_id"] for row in rows_of(events)]
    assert len({json.dumps(row) for row in rows}) == len(set(ids))


def test_rows_of_the_same_device_and_time_with_other_content_are_other_events() -> None:
    events, _ = converted([ROW, {**ROW, "latitude": 1.6}, ROW])
    first, second, third = (row["event_id"] for row in rows_of(events))
    assert first != second
    assert first == third  # one event, sent twice


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"event_id": ""}, "the event id is empty"),
        ({"event_id": None}, "event_id is missing"),
        ({"event_id": "é" * 65}, "the event id is longer than 128 bytes"),
        ({"device_id": ""}, "device_id is empty"),
        ({"device_id": None}, "device_id is missing"),
        ({"device_id": "d" * 1025}, "device_id is longer than 1024 bytes"),
        ({"latitude": 90.0001}, "latitude is outside [-90, 90]"),
        ({"longitude": -181}, "longitude is outside [-180, 180]"),
        ({"latitude": float("nan")}, "latitude is not a finite number"),
        ({"speed_kmh": float("inf")}, "speed_kmh is not a finite number"),
        ({"altitude_m": float("nan")}, "altitude_m is not a finite number"),
        ({"event_time": -1}, "event_time is negative"),
        ({"event_time": 2**62}, "event_time is outside the range of dates"),
        ({"event_time": "soon"}, "event_time is 'soon', expected a time (ISO 8601, or a number since 1970)"),
        ({"sequence": 1.5}, "sequence is '1.5', expected a whole number of 64 bits"),
        ({"latitude": None}, "latitude is missing"),
        ({"latitude": "north"}, "latitude is 'north', expected a number"),
    ],
)
def test_each_rule_rejects_its_row_and_no_other(change: dict[str, Any], reason: str) -> None:
    events, bad = converted([FULL, {**FULL, **change}, {**FULL, "event_id": "é" * 64}])
    assert events.numbers.tolist() == [1, 3]
    assert [(2, reason)] == [(row.number, row.reason) for row in bad]
    assert {name: change.get(name, value) for name, value in FULL.items()}.keys() == bad[0].data.keys()


def test_an_event_larger_than_the_limit_is_a_bad_row() -> None:
    machine = converter(FULL, record_bytes_max=300)
    _, bad = machine.convert(chunk_of([FULL, {**FULL, "device_id": "d" * 300}]))
    assert [(row.number, row.reason) for row in bad] == [(2, "the event has 348 bytes; at most 300 are accepted")]


def test_rows_that_could_not_be_read_stand_between_the_others_in_the_report() -> None:
    chunk = chunk_of([{**ROW, "latitude": 99}], first=5, bad=[BadRow(4, "x"), BadRow(6, "y")])
    _, bad = converter(chunk.columns).convert(chunk)
    assert [row.number for row in bad] == [4, 5, 6]


def test_columns_of_other_names_are_mapped() -> None:
    rows = [{"imei": "d1", "ts": 1000, "lat": 1, "lon": 2, "id": "e"}]
    mapping = {"device_id": "imei", "event_time": "ts", "latitude": "lat", "longitude": "lon", "event_id": "id"}
    chunk = chunk_of(rows)
    events, bad = converter(chunk.columns, mapping).convert(chunk)
    assert bad == []
    assert rows_of(events)[0]["device_id"] == "d1"
    assert rows_of(events)[0]["event_id"] == "e"


@pytest.mark.parametrize(
    ("columns", "mapping", "message"),
    [
        (["device_id", "event_time", "lat"], {}, "no column for the field 'latitude': the file has device_id, "),
        (["device_id", "event_time", "lat"], {}, "name one by --map latitude=lat$"),
        (ROW, {"speed": "latitude"}, "there is no field 'speed', only event_id, "),
        (ROW, {"speed_kmh": "v"}, "there is no column 'v', only device_id, "),
        ([], {}, "the file has no columns"),
    ],
)
def test_missing_columns_are_wrong_usage_and_the_columns_are_listed(
    columns: Any, mapping: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        converter(columns, mapping)


def test_a_chunk_without_a_valid_row_gives_no_event() -> None:
    events, bad = converted([{**ROW, "latitude": 99}])
    assert len(events.numbers) == 0
    assert len(bad) == 1
    assert (events.keys, events.values) == ([], [])


def test_an_event_further_ahead_of_the_clock_than_the_skew_is_a_bad_row_and_its_sequence_is_not_counted() -> None:
    now = 1_800_000_000_000
    rows = [{**ROW, "event_time": now + ahead} for ahead in (0, SKEW_MS_MAX, SKEW_MS_MAX + 1, -(10**12))]
    events, bad = converted([*rows, {**ROW, "event_time": now - 1}], now_ms=now)
    assert events.numbers.tolist() == [1, 2, 4, 5]
    assert [row["sequence"] for row in rows_of(events)] == [0, 1, 2, 3]
    assert [row.number for row in bad] == [3]
    assert bad[0].reason == (
        "event_time is 60001 ms ahead of the clock (2027-01-15T08:00:00+00:00); "
        "at most 60000 ms are allowed (STREAMS_SKEW_MS_MAX)"
    )


def test_times_are_judged_as_they_are_sent_not_as_they_are_in_the_file() -> None:
    now = 1_800_000_000_000
    future = {**ROW, "event_time": now + 86_400_000}
    assert converted([future], now_ms=now, shift_ms=-86_400_000)[1] == []
    _, bad = converted([{**ROW, "event_time": now - 1000}], now_ms=now, shift_ms=SKEW_MS_MAX + 1001)
    assert "60001 ms ahead" in bad[0].reason


def test_ids_do_not_depend_on_whether_a_column_without_values_is_there() -> None:
    (plain,) = rows_of(converted([ROW])[0])
    events, _ = converted([{**ROW, "speed_kmh": None, "altitude_m": None}, {**ROW, "speed_kmh": 3.0}])
    assert rows_of(events)[0]["event_id"] == plain["event_id"]
    assert rows_of(events)[1]["event_id"] == rows_of(converted([{**ROW, "speed_kmh": 3.0}])[0])[0]["event_id"]


def test_the_same_value_in_another_field_is_another_id_and_a_negative_zero_is_zero() -> None:
    (speed,) = rows_of(converted([{**ROW, "speed_kmh": 3.0}])[0])
    (altitude,) = rows_of(converted([{**ROW, "altitude_m": 3.0}])[0])
    assert speed["event_id"] != altitude["event_id"]
    (zero,) = rows_of(converted([{**ROW, "latitude": 0.0}])[0])
    (negative,) = rows_of(converted([{**ROW, "latitude": -0.0}])[0])
    assert zero["event_id"] == negative["event_id"]


@given(st.lists(records, min_size=1, max_size=8), st.integers(0, 2**63 - 1), st.integers(1, 400))
def test_what_is_accepted_is_what_the_decoder_of_a_worker_accepts(
    rows: list[dict[str, Any]], now_ms: int, record_bytes_max: int
) -> None:
    now_ms = min(now_ms, EVENT_TIME_MAX)
    chunk = chunk_of(rows)
    machine = converter(chunk.columns, now_ms=now_ms, record_bytes_max=record_bytes_max)
    accepted, bad = machine.convert(chunk)
    assert sorted([*accepted.numbers.tolist(), *(row.number for row in bad)]) == list(range(1, len(rows) + 1))
    whole, _ = converter(chunk.columns, record_bytes_max=2**30).convert(chunk)
    records_of = Records(
        np.zeros(len(rows), dtype=np.int64),
        np.arange(len(rows)),
        np.full(len(rows), now_ms),
        list(whole.keys),
        list(whole.values),
    )
    decoder = Decoder(GPS, record_bytes_max=record_bytes_max, skew_ms_max=SKEW_MS_MAX)
    decoded = decoder.decode(records_of, {258: build_plan(258, SCHEMA.text, SCHEMA.text)})
    assert [number - 1 for number in accepted.numbers.tolist()] == decoded.events.row.tolist()


def test_text_that_the_worker_rejects_is_a_bad_row_of_other_streams_too() -> None:
    schema = Catalog.load().latest(ORDERS.subject)
    row = {
        "event_id": "e",
        "order_id": "o",
        "sequence": 0,
        "event_time": 1000,
        "kind": "CREATED",
        "vehicle_id": "v" * 300,
    }
    chunk = chunk_of([{**row, "vehicle_id": "v" * 128}, row])
    filling = filling_of(ORDERS, schema, Source(tuple(chunk.columns), lambda _: iter(())), {})
    judge = Judge(ORDERS, schema, 1, record_bytes_max=2**20, skew_ms_max=0, now_ms=EVENT_TIME_MAX)
    reading = Reading(time_unit=TimeUnit.MS)
    events, bad = Converter(ORDERS, filling, Encoder(ORDERS, schema, 1), judge, reading).convert(chunk)
    assert events.numbers.tolist() == [1]
    assert [(one.number, one.reason) for one in bad] == [(2, "vehicle_id is longer than 128 bytes")]


def test_columns_that_fill_no_field_are_named_with_the_field_that_they_may_be_meant_for() -> None:
    columns = (*ROW, "Speed", "headin_deg", "colour", "")
    filling = filling_of(GPS, SCHEMA, Source(columns, lambda _: iter(())), {})
    found = {one.column: one.field for one in filling.left_out(columns, filling.column_of)}
    assert found == {"Speed": "speed_kmh", "headin_deg": "heading_deg", "colour": None}
    mapped = filling_of(GPS, SCHEMA, Source(columns, lambda _: iter(())), {"speed_kmh": "Speed"})
    assert "Speed" not in {one.column for one in mapped.left_out(columns, mapped.column_of)}
