"""Order events from bytes to table row: decoding against fastavro, the fold against one event at a time."""

import io
import json
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from logistics.flows.orders import ORDERS
from logistics.folds.order_state import KINDS, OrderState
from streams.avro.decoded import Decoded
from streams.avro.resolve import build_plan, without_logical_types
from streams.batch.columns import objects
from streams.batch.events import Events
from streams.batch.records import Records
from streams.batch.rows import empty_rows, pack_rows, unpack_rows
from streams.operators.fold.aggregate import KeySegments
from streams.schemas.catalog import Catalog
from tests.examples import examples
from tests.twin import TwinDecoder

TEXT = Catalog.load().latest(ORDERS.subject).text
SCHEMA = fastavro.parse_schema(without_logical_types(json.loads(TEXT)))
SCHEMA_ID = 5
NO_PRIOR = np.empty(0, np.int64)
FOLD = OrderState()

EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "event_id": st.uuids().map(str),
            "order_id": st.sampled_from(("o1", "o2", "é")),
            "sequence": st.integers(0, 100),
            "event_time": st.integers(0, 10**12),
            "kind": st.sampled_from(KINDS),
            "vehicle_id": st.sampled_from((None, "v1", "v2", "x" * 128)),
            "depot_id": st.sampled_from((None, "", "d1")),
            "destination_latitude": st.none() | st.floats(-90, 90),
            "destination_longitude": st.none() | st.floats(-180, 180),
            "promised_time": st.none() | st.integers(0, 2**52),
        }
    ),
    min_size=1,
    max_size=30,
)
QUICK = settings(deadline=None, max_examples=examples(150))


def encode(event: dict[str, Any]) -> bytes:
    stream = io.BytesIO(b"\0" + SCHEMA_ID.to_bytes(4, "big"))
    stream.seek(5)
    fastavro.schemaless_writer(stream, SCHEMA, event)
    return stream.getvalue()


def decode(values: list[bytes], keys: list[bytes], writer: str = TEXT) -> Decoded:
    count = len(values)
    records = Records(np.zeros(count, np.int64), np.arange(count), np.full(count, 10**13), list(keys), list(values))
    decoder = TwinDecoder(ORDERS, record_bytes_max=1 << 20, skew_ms_max=0)
    return decoder.decode(records, {SCHEMA_ID: build_plan(SCHEMA_ID, writer, TEXT)})


def decoded_events(events: list[dict[str, Any]]) -> Events:
    result = decode([encode(event) for event in events], [event["order_id"].encode() for event in events])
    assert result.rejects == []
    return result.events


def number(value: float) -> float | None:
    return None if np.isnan(value) else value


@QUICK
@given(EVENTS)
def test_columns_hold_what_was_written(events: list[dict[str, Any]]) -> None:
    found = decoded_events(events)
    for i, event in enumerate(events):
        kind, latitude, longitude, promised = map(number, found.payload[:, i].tolist())
        assert KINDS[int(kind or 0)] == event["kind"]
        assert (latitude, longitude) == (event["destination_latitude"], event["destination_longitude"])
        assert promised == event["promised_time"]
        texts = [None if text is None else text.decode() for text in found.texts[:, i].tolist()]
        assert texts == [event["vehicle_id"], event["depot_id"]]


def folded_one_by_one(events: list[dict[str, Any]]) -> tuple[dict[str, dict[str, int | str]], int]:
    rows: dict[str, dict[str, Any]] = {}
    contradictions = 0
    for event in events:
        row = rows.setdefault(event["order_id"], {"order_id": event["order_id"], "events": 0, "farthest": -1})
        step = KINDS.index(event["kind"])
        vehicle = row.get("vehicle_id")
        contradictions += bool(
            step < row["farthest"]
            or (event["kind"] == "CANCELLED" and row["farthest"] == KINDS.index("DELIVERED"))
            or (vehicle not in (None, event["vehicle_id"]) and event["vehicle_id"] and event["kind"] != "ASSIGNED")
        )
        row["farthest"] = max(row["farthest"], step)
        row["events"] += 1
        row["status"] = event["kind"]
        row[f"{event['kind'].lower()}_at"] = event["event_time"]
        for name in ("vehicle_id", "depot_id", "promised_time"):
            if event[name] is not None:
                row[name] = event[name]
        row["last_event_time"] = event["event_time"]
    for row in rows.values():
        del row["farthest"]
    return rows, contradictions


def fold(state: NDArray[Any], events: Events) -> NDArray[Any]:
    segments = KeySegments.of(events, NO_PRIOR)
    state[segments.slot] = FOLD.fold(state[segments.slot], segments.segments)
    # As the store and the table topic keep it.
    return unpack_rows(FOLD.dtype, pack_rows(state))


@QUICK
@given(EVENTS, st.data())
def test_the_fold_is_that_of_one_event_at_a_time_however_the_events_are_cut(
    events: list[dict[str, Any]], data: st.DataObject
) -> None:
    names = sorted({event["order_id"] for event in events})
    found = decoded_events(events)
    found = found.with_slots(np.array([names.index(event["order_id"]) for event in events]))
    state, at = empty_rows(FOLD.dtype, len(names)), 0
    while at < len(events):
        count = data.draw(st.integers(1, len(events) - at))
        state = fold(state, found.take(slice(at, at + count)))
        at += count
    batch = FOLD.table(objects([name.encode() for name in names]), state)
    plain = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in batch.columns]
    rows = pa.RecordBatch.from_arrays(plain, names=batch.schema.names).to_pylist()
    expected, contradictions = folded_one_by_one(events)
    assert {row["order_id"]: {k: v for k, v in row.items() if v is not None} for row in rows} == expected
    assert int(state["contradictions"].sum()) == contradictions


def order(**fields: object) -> dict[str, Any]:
    event = dict.fromkeys(("vehicle_id", "depot_id", "promised_time"))
    event |= {"destination_latitude": None, "destination_longitude": None}
    return {"event_id": "e", "order_id": "o", "sequence": 1, "event_time": 1, "kind": "CREATED", **event, **fields}


def test_a_symbol_that_does_not_exist_and_texts_that_are_too_long_are_rejects_one_record_each() -> None:
    good = encode(order())
    kind_at = len(encode(order())) - 6
    bad = bytearray(good)
    bad[kind_at] = 20
    long = encode(order(vehicle_id="x" * 129))
    outside = encode(order(destination_latitude=91.0))
    result = decode([good, bytes(bad), long, outside, good], [b"o"] * 5)
    assert [(reject.row, reject.reason.value) for reject in result.rejects] == [
        (1, "malformed"),
        (2, "invalid"),
        (3, "invalid"),
    ]
    assert "vehicle_id is longer than 128 bytes" in result.rejects[1].message
    assert result.events.row.tolist() == [0, 4]


def test_symbols_written_in_another_order_are_told_apart_and_unknown_ones_are_incompatible() -> None:
    schema = json.loads(TEXT)
    for field in schema["fields"]:
        if field["name"] == "kind":
            field["type"]["symbols"] = ["DELIVERED", "LOST", "CREATED"]
    writer = fastavro.parse_schema(without_logical_types(schema))
    values = []
    for kind in ("DELIVERED", "LOST", "CREATED"):
        stream = io.BytesIO()
        stream.write(b"\0" + SCHEMA_ID.to_bytes(4, "big"))
        fastavro.schemaless_writer(stream, writer, order(kind=kind))
        values.append(stream.getvalue())
    result = decode([values[0], values[2]], [b"o"] * 2, json.dumps(schema))
    assert result.events.payload[0].tolist() == [3.0, 0.0]
    result = decode(values, [b"o"] * 3, json.dumps(schema))
    assert result.events.payload[0].tolist() == [3.0, 0.0]
    assert [reject.row for reject in result.rejects] == [1]
