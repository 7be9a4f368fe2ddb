"""What is accepted, what is rejected, what a retry is."""

import gzip
import io
import json
from collections.abc import Iterator
from typing import Any

import fastavro
import pyarrow as pa
import pytest

from logistics.flows.gps import GPS
from streams.avro.resolve import build_plan, without_logical_types
from streams.ingest.events import derived_ids
from streams.schemas.catalog import Catalog
from tests.gateway.running import SCHEMA_ID, SOURCE, Gateway, position, running

NDJSON = "application/x-ndjson"
AVRO = "application/avro"
SCHEMA: Any = fastavro.parse_schema(without_logical_types(Catalog.load().latest(GPS.subject).parsed))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("gateway")) as found:
        yield found


@pytest.fixture
def gateway(server: Gateway) -> Gateway:
    server.delivery.sent.clear()
    server.delivery.refuses.clear()
    server.delivery.is_down = False
    return server


def events(gateway: Gateway) -> list[dict[str, Any]]:
    found = []
    for value in gateway.delivery.values(SOURCE):
        assert value[:5] == b"\0" + SCHEMA_ID.to_bytes(4, "big")
        row = fastavro.schemaless_reader(io.BytesIO(value[5:]), SCHEMA, None)
        assert isinstance(row, dict)
        found.append(row)
    return found


def test_a_position_is_an_event_when_it_is_accepted(gateway: Gateway) -> None:
    answer = gateway.send(position(1))
    assert (answer.status, answer.json) == (
        202,
        {
            "accepted": 1,
            "duplicates": 0,
            "rejected": 0,
            "results": [{"index": 0, "status": "accepted", "event_id": "e-1"}],
        },
    )
    assert events(gateway) == [
        {
            **position(1),
            "event_time": 1767225600000,
            "heading_deg": None,
            "altitude_m": None,
        }
    ]
    assert gateway.delivery.keys(SOURCE) == [b"van-1"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", json.dumps([position(i) for i in range(3)])),
        ("application/json; charset=utf-8", "\ufeff " + json.dumps([position(i) for i in range(3)]) + "\n"),
        (NDJSON, "".join(json.dumps(position(i)) + "\r\n" for i in range(3))),
        (NDJSON, "\n" + "\n\n".join(json.dumps(position(i)) for i in range(3))),
    ],
)
@pytest.mark.parametrize("is_packed", [False, True])
def test_many_come_in_one_request(gateway: Gateway, kind: str, body: str, is_packed: bool) -> None:
    content = body.encode()
    headers = {"content_encoding": "gzip"} if is_packed else {}
    answer = gateway.send(gzip.compress(content) if is_packed else content, kind=kind, **headers)
    assert (answer.status, answer.json["accepted"]) == (202, 3)
    assert [event["event_id"] for event in events(gateway)] == ["e-0", "e-1", "e-2"]


def test_a_container_file_of_avro_is_many(gateway: Gateway) -> None:
    packed = io.BytesIO()
    schema = Catalog.load().latest(GPS.subject).parsed
    rows = [{**position(i), "event_time": 1767225600000 + i, "heading_deg": None, "altitude_m": 1.5} for i in range(3)]
    fastavro.writer(packed, fastavro.parse_schema(dict(schema)), rows, codec="deflate")
    answer = gateway.send(packed.getvalue(), kind=AVRO)
    assert (answer.status, answer.json["accepted"]) == (202, 3)
    assert events(gateway) == rows


def test_a_framed_event_is_passed_on_as_it_is(gateway: Gateway) -> None:
    text = Catalog.load().latest(GPS.subject).text
    source = gateway.sources.by_name[SOURCE]
    source.known.learn({SCHEMA_ID: build_plan(SCHEMA_ID, text, text)})
    packed = io.BytesIO()
    fastavro.schemaless_writer(
        packed, SCHEMA, {**position(4), "event_time": 5, "heading_deg": None, "altitude_m": None}
    )
    value = b"\0" + SCHEMA_ID.to_bytes(4, "big") + packed.getvalue()
    answer = gateway.send(value, kind=AVRO)
    assert (answer.status, answer.json["results"][0]["event_id"]) == (202, "e-4")
    assert (gateway.delivery.values(SOURCE), gateway.delivery.keys(SOURCE)) == ([value], [b"van-4"])
    answer = gateway.send(value[:-3], kind=AVRO)
    assert (answer.status, answer.json["results"][0]["reason"]) == (422, "malformed")
    assert gateway.delivery.values(GPS.dlq) == [value[:-3]]
    answer = gateway.send(b"junk", kind=AVRO)
    assert (answer.status, answer.json["results"][0]["reason"]) == (422, "not_framed")


def test_what_is_no_event_is_a_dead_letter_and_the_others_are_accepted(gateway: Gateway) -> None:
    rows: list[Any] = [
        position(0),
        position(1, latitude=91),
        position(2, latitude="north"),
        position(3, device_id=None),
        "no object",
        position(5, event_time="2999-01-01T00:00:00Z"),
        position(6, longitude="1e999"),
        position(7, event_id="x" * 200),
        position(8),
    ]
    answer = gateway.send(rows)
    assert (answer.status, answer.json["accepted"], answer.json["rejected"]) == (422, 2, 7)
    rejected = [one for one in answer.json["results"] if one["status"] == "rejected"]
    assert [(one["index"], one["reason"], one["pointer"]) for one in rejected] == [
        (1, "invalid", "/latitude"),
        (2, "invalid", "/latitude"),
        (3, "invalid", "/device_id"),
        (4, "malformed", ""),
        (5, "future_timestamp", "/event_time"),
        (6, "invalid", "/longitude"),
        (7, "invalid", "/event_id"),
    ]
    assert [event["event_id"] for event in events(gateway)] == ["e-0", "e-8"]
    letters = gateway.delivery.values(GPS.dlq)
    headers = gateway.delivery.headers(GPS.dlq)
    by_id = {(header["dlq.id"] or b"").decode(): value for header, value in zip(headers, letters, strict=True)}
    for one in rejected:
        letter = by_id[one["dead_letter"]]
        if one["index"] in {1, 5, 7}:
            assert letter[0] == 0, "an event that a worker would reject is the worker's dead letter"
        else:
            assert json.loads(letter) == rows[one["index"]], "what does not convert is kept as it came"
    first = headers[0]
    assert first["__streams.errors.topic"] == SOURCE.encode()
    assert first["gateway.sender"] == b"local"
    assert first["gateway.content_type"] == b"application/json"


def test_the_words_for_a_sender_name_no_option_of_the_command_line(gateway: Gateway) -> None:
    for bad in (position(event_time="12"), position(latitude="48,1"), position(device_id="\ud800")):
        message = gateway.send(bad).json["results"][0]["message"]
        assert "--" not in message, message


@pytest.mark.parametrize(
    "body",
    ["", " ", "{", "[1,", "nul", '{"a":1} x', "[{}] []", '{"a":1,"a":2}', "NaN", '[{"a": Infinity}]', "\x00", "[]x"],
)
def test_a_body_that_is_no_json_is_one_dead_letter(gateway: Gateway, body: str) -> None:
    answer = gateway.send(body)
    assert (answer.status, answer.json["rejected"]) == (422, 1)
    assert gateway.delivery.values(GPS.dlq) == [body.encode()]


def test_an_empty_array_is_nothing(gateway: Gateway) -> None:
    assert gateway.send([]).json == {"accepted": 0, "duplicates": 0, "rejected": 0, "results": []}
    assert gateway.delivery.sent == []


def test_a_bad_line_costs_itself(gateway: Gateway) -> None:
    body = json.dumps(position(0)).encode() + b"\n\xff\xfe\n{\n" + json.dumps(position(1)).encode()
    answer = gateway.send(body, kind=NDJSON)
    assert [one["status"] for one in answer.json["results"]] == ["accepted", "rejected", "rejected", "accepted"]
    assert gateway.delivery.values(GPS.dlq) == [b"\xff\xfe", b"{"]


def test_the_same_event_twice_in_a_request_is_sent_once(gateway: Gateway) -> None:
    answer = gateway.send([position(0), position(0), position(0, event_time="2026-01-01T00:00:01Z")])
    assert [one["status"] for one in answer.json["results"]] == ["accepted", "duplicate", "accepted"]
    assert (answer.status, len(events(gateway))) == (202, 2)


def test_a_retry_without_an_id_has_the_same_id(gateway: Gateway) -> None:
    row = position(0, event_id=None)
    ids = {gateway.send(row).json["results"][0]["event_id"] for _ in range(2)}
    assert len(ids) == 1, "by its content"
    keyed = [gateway.send(row, Idempotency_Key=key).json["results"][0]["event_id"] for key in ("a", "a", "b")]
    assert keyed[0] == keyed[1] != keyed[2]
    both = gateway.send([row, row], Idempotency_Key="a").json["results"]
    assert both[0]["event_id"] == keyed[0] != both[1]["event_id"]
    own = gateway.send(position(1), Idempotency_Key="a").json["results"][0]["event_id"]
    assert own == "e-1", "the id in the body goes first"


def test_an_id_that_is_derived_is_that_of_the_same_row_in_a_file(gateway: Gateway) -> None:
    row = position(0, event_id=None, sequence=None)
    found = gateway.send(row).json["results"][0]["event_id"]
    columns = {
        "device_id": pa.array(["van-0"]),
        "event_time": pa.array([1767225600000]),
        "latitude": pa.array([52.5]),
        "longitude": pa.array([13.4]),
        "speed_kmh": pa.array([43.5]),
    }
    assert derived_ids(columns, "event_id", "device_id", "event_time").to_pylist() == [found]


def test_rows_without_a_sequence_are_counted_in_their_order(gateway: Gateway) -> None:
    gateway.send([position(i, sequence=None) for i in range(3)])
    assert [event["sequence"] for event in events(gateway)] == [0, 1, 2]


def test_unexpected_fields_are_counted_and_left_out(gateway: Gateway) -> None:
    before = gateway.metric("streams_gateway_unexpected_fields_total", source=SOURCE, field="battery")
    answer = gateway.send([position(i, battery=0.5) for i in range(3)])
    assert (answer.status, answer.json["accepted"]) == (202, 3)
    assert gateway.metric("streams_gateway_unexpected_fields_total", source=SOURCE, field="battery") == before + 3


def test_what_the_topic_refuses_is_a_dead_letter(gateway: Gateway) -> None:
    gateway.delivery.refuses = {b"van-1"}
    answer = gateway.send([position(0), position(1)])
    assert [one.get("reason") for one in answer.json["results"]] == [None, "refused_by_output"]
    assert gateway.delivery.keys(GPS.dlq) == [b"van-1"]


def test_without_kafka_nothing_is_accepted_and_the_sender_is_told_when_to_come_back(gateway: Gateway) -> None:
    gateway.delivery.is_down = True
    answer = gateway.send(position(0))
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    assert answer.headers["content-type"] == "application/problem+json"


def test_only_what_was_not_accepted_on_demand(gateway: Gateway) -> None:
    answer = gateway.send([position(0), position(1, latitude=91)], Prefer="return=minimal")
    assert [one["index"] for one in answer.json["results"]] == [1]


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        ("nope", "application/json", 404),
        ("../../etc/passwd", "application/json", 404),
        ("%2e%2e%2f", "application/json", 404),
        ("gps.positions.v1%00", "application/json", 404),
        ("gps.positions.v1.clean", "application/json", 404),
        ("gps.positions.v1.dlq", "application/json", 404),
        (SOURCE, "text/plain", 415),
        (SOURCE, None, 415),
        (SOURCE, "application/json; charset=utf-16", 415),
        (SOURCE + "?format=nope", "application/json", 404),
        ("orders.events.v1?format=owntracks", "application/json", 404),
    ],
)
def test_what_is_not_there_or_not_read_is_said(gateway: Gateway, path: str, kind: str | None, status: int) -> None:
    answer = gateway.send(position(0), source=path, kind=kind)
    assert answer.status == status
    assert gateway.delivery.sent == []


def test_the_trace_of_a_request_goes_with_its_events(gateway: Gateway) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    gateway.send(position(0), traceparent=trace)
    assert gateway.delivery.headers(SOURCE) == [{"traceparent": trace.encode()}]


def test_probes_metrics_and_documents_answer(gateway: Gateway) -> None:
    assert gateway.ask("GET", "/healthz").status == 200
    assert gateway.ask("GET", "/readyz").body == b"ok\n"
    assert b"streams_gateway_events_total" in gateway.ask("GET", "/metrics").body
    document = gateway.ask("GET", "/openapi.json").json
    assert f"/v1/events/{SOURCE}" in document["paths"]
    assert document["components"]["schemas"][SOURCE]["required"] == [
        "device_id",
        "event_time",
        "latitude",
        "longitude",
    ]
    assert b"POST /v1/events/orders.events.v1" in gateway.ask("GET", "/").body
    assert gateway.ask("GET", f"/v1/events/{SOURCE}").status == 405
