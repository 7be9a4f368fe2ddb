"""What nobody sends by mistake: refused in words or dropped, quickly, in bounded memory, and others do not notice.

Each case is sent to a server with httptools where it is installed, and to one with h11.
"""

import asyncio
import base64
import gzip
import importlib.util
import io
import json
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import fastavro
import psutil
import pytest

from streams.gateway.http_limits import BoundedH11, bounded_protocol
from streams.limits import GATEWAY_HEAD_BYTES_MAX, GATEWAY_REQUEST_RECORDS_MAX
from tests.gateway.running import SOURCE, Gateway, position, running

BODY_BYTES_MAX: Final = 262_144
MEMORY_BYTES: Final = 48 * 1024 * 1024
"""By how much the process may grow over all cases together."""
_PROTOCOLS: Final[dict[str, Callable[[], type[asyncio.Protocol]]]] = {"h11": lambda: BoundedH11}
if importlib.util.find_spec("httptools") is not None:
    _PROTOCOLS["httptools"] = bounded_protocol


@pytest.fixture(scope="module", params=sorted(_PROTOCOLS))
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    protocol = type("Impatient", (_PROTOCOLS[request.param](),), {"head_s_max": 0.4})
    with running(
        tmp_path_factory.mktemp("hostile"),
        protocol=protocol,
        body_s_max=0.4,
        streams_gateway_body_bytes_max=BODY_BYTES_MAX,
    ) as found:
        yield found


def post(
    body: bytes, *headers: str, path: str = f"/v1/events/{SOURCE}", kind: str = "application/json", length: str = ""
) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", *headers]
    if not any(line.lower().startswith("transfer-encoding") for line in headers):
        lines.append(f"Content-Length: {length or len(body)}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + b"1" + closing * depth


def container(schema: dict[str, Any], payload: bytes, count: int, codec: bytes = b"null") -> bytes:
    """A container file with one block of bytes of our choice."""
    sync = b"s" * 16
    head = io.BytesIO()
    meta = {"avro.schema": json.dumps(schema).encode(), "avro.codec": codec}
    kind: Any = {"type": "map", "values": "bytes"}
    fastavro.schemaless_writer(head, fastavro.parse_schema(kind), meta)
    number = io.BytesIO()
    for value in (count, len(payload)):
        fastavro.schemaless_writer(number, fastavro.parse_schema("long"), value)
    return b"Obj\x01" + head.getvalue() + sync + number.getvalue() + payload + sync


def deflated(size: int) -> bytes:
    machine = zlib.compressobj(9, zlib.DEFLATED, -15)
    return machine.compress(bytes(size)) + machine.flush()


def record_of(*types: Any) -> dict[str, Any]:
    fields = [{"name": f"f{number}", "type": kind} for number, kind in enumerate(types)]
    return {"type": "record", "name": "R", "fields": fields}


def gzip_cut() -> bytes:
    return gzip.compress(json.dumps(position(0)).encode())[:-4]


BOMB: Final = gzip.compress(bytes(200 * 1024 * 1024), 9)
"""200 kB that are 200 MB."""
DOUBLE_BOMB: Final = gzip.compress(BOMB, 9)
ROW: Final = json.dumps(position(0)).encode()
UTF16: Final = json.dumps(position(0)).encode("utf-16")

Case = tuple[str, bytes, set[int]]
CASES: Final[list[Case]] = [
    # --- JSON
    ("10,000 levels of arrays", post(nested(10_000)), {422}),
    ("100,000 levels of arrays", post(nested(100_000)), {422}),
    ("10,000 levels of objects", post(b'{"a":' * 10_000 + b"1" + b"}" * 10_000), {422}),
    ("10,000 levels in one field", post(b'{"device_id":' + nested(10_000) + b"}"), {422}),
    ("10,000 levels that never end", post(b"[" * 10_000), {422}),
    ("10,000 levels in a line", post(b'{"a":' + nested(10_000) + b"}\n" + ROW, kind="application/x-ndjson"), {422}),
    ("a number of 200,000 digits", post(b'{"sequence":' + b"9" * 200_000 + b"}"), {422}),
    ("a number with an exponent of a billion", post(b'[{"latitude":1e1000000000}]'), {422}),
    ("a text of 250,000 characters as an id", post(json.dumps(position(0, event_id="x" * 250_000)).encode()), {422}),
    ("20,000 fields", post(json.dumps({f"f{i}": i for i in range(20_000)}).encode()), {413, 422}),
    ("a name of 100,000 characters", post(json.dumps({"n" * 100_000: 1, **position(0)}).encode()), {202}),
    ("zero bytes", post(b"\0" * 1_000), {422}),
    ("a zero in an id", post(json.dumps(position(0, device_id="van\0-1")).encode()), {202}),
    ("half a character", post(b'{"device_id":"\\ud800","event_time":1767225600000,"latitude":1,"longitude":1}'), {422}),
    ("UTF-16", post(UTF16), {422}),
    ("UTF-7 by name", post(ROW, kind="application/json; charset=utf-7"), {415}),
    ("a charset of nonsense", post(ROW, kind='application/json; charset="\\x00"'), {415}),
    ("Latin-1", post(json.dumps({"device_id": "\u00e9"}, ensure_ascii=False).encode("latin-1")), {422}),
    ("overlong UTF-8", post(b'{"device_id":"\xc0\xae"}'), {422}),
    ("a field twice", post(b'{"device_id":"a","device_id":"b"}'), {422}),
    ("numbers for texts and texts for numbers", post(b'{"device_id":1.5,"latitude":{}}'), {422}),
    ("__proto__ and friends", post(json.dumps({"__proto__": {}, "constructor": 1, **position(0)}).encode()), {202}),
    ("a time of the year 99999", post(json.dumps(position(0, event_time="99999-01-01T00:00:00Z")).encode()), {422}),
    ("a time before all calendars", post(json.dumps(position(0, event_time=-(10**18))).encode()), {422}),
    ("a time of 2^63", post(json.dumps(position(0, event_time=2**63)).encode()), {422}),
    ("true for a time", post(json.dumps(position(0, event_time=True)).encode()), {422}),
    ("control characters in an id", post(json.dumps(position(0, event_id="\x1b[2J")).encode()), {202}),
    ("more records than a request may have", post(b"[" + b"1," * 20_000 + b"1]"), {413}),
    ("more lines than a request may have", post(b"1\n" * 30_000, kind="application/x-ndjson"), {413}),
    ("nothing but line ends", post(b"\n" * 100_000, kind="application/x-ndjson"), {413}),
    # --- sizes
    ("a body beyond the limit", post(b"x" * (BODY_BYTES_MAX + 1)), {413}),
    ("a length of 10^30", post(b"{}", length="1" + "0" * 30), {400, 413}),
    ("a length that is negative", post(b"{}", length="-1"), {400}),
    ("a length that is no number", post(b"{}", length="ten"), {400}),
    ("two lengths", post(b"{}", "Content-Length: 5"), {400}),
    (
        "a length and chunks",
        post(b"2\r\n{}\r\n0\r\n\r\n", "Content-Length: 2", "Transfer-Encoding: chunked"),
        {400, 422},
    ),
    ("a chunk of 10^16 bytes", post(b"fffffffffffffff\r\nx", "Transfer-Encoding: chunked"), {400, 408, 0}),
    ("a chunk size of nonsense", post(b"zz\r\nx\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), {400, 0}),
    (
        "chunks beyond the limit",
        post(b"10000\r\n" + b"x" * 65_536 + b"\r\n" + (b"10000\r\n" + b"x" * 65_536 + b"\r\n") * 5,
             "Transfer-Encoding: chunked"),
        {413},
    ),
    # --- encodings
    ("a bomb", post(BOMB, "Content-Encoding: gzip"), {413}),
    ("a bomb in a bomb", post(DOUBLE_BOMB, "Content-Encoding: gzip"), {422, 413}),
    ("two encodings", post(gzip.compress(ROW), "Content-Encoding: gzip, gzip"), {415}),
    ("br", post(ROW, "Content-Encoding: br"), {415}),
    ("gzip that is none", post(ROW, "Content-Encoding: gzip"), {400}),
    ("gzip that is cut short", post(gzip_cut(), "Content-Encoding: gzip"), {400}),
    ("gzip with a wrong checksum", post(gzip.compress(ROW)[:-8] + b"12345678", "Content-Encoding: gzip"), {400}),
    ("10,000 members of gzip", post(gzip.compress(b"") * 10_000, "Content-Encoding: gzip"), {422}),
    ("nothing, as gzip", post(b"", "Content-Encoding: gzip"), {422}),
    # --- Avro
    ("Avro of nothing", post(b"", kind="application/avro"), {422}),
    ("a zero byte", post(b"\0", kind="application/avro"), {422}),
    ("a container of nonsense", post(b"Obj\x01" + os.urandom(1_000), kind="application/avro"), {422}),
    ("a container without a schema", post(b"Obj\x01\0" + b"s" * 16, kind="application/avro"), {422}),
    (
        "a billion nulls in an array",
        post(
            container(record_of({"type": "array", "items": "null"}), struct.pack("<q", 2**61), 1),
            kind="application/avro",
        ),
        {422},
    ),
    (
        "a list in a list in a list",
        post(container(record_of({"type": "map", "values": {"type": "array", "items": "null"}}), b"\x02", 1),
             kind="application/avro"),
        {422},
    ),
    (
        "a record in itself",
        post(
            container({"type": "record", "name": "R", "fields": [{"name": "r", "type": ["null", "R"]}]}, b"\2" * 9, 1),
            kind="application/avro",
        ),
        {422},
    ),
    (
        "a fixed of 2 GB",
        post(container(record_of({"type": "fixed", "name": "F", "size": 2**31}), b"x", 1), kind="application/avro"),
        {422},
    ),
    (
        "a text of 2^60 bytes",
        post(container(record_of("string"), b"\xfe" * 8 + b"\x0f", 1), kind="application/avro"),
        {422},
    ),
    ("2^40 records in a byte", post(container(record_of("null"), b"x", 2**40), kind="application/avro"), {422}),
    (
        "200,000 booleans",
        post(container(record_of("boolean"), b"\1" * 200_000, 200_000), kind="application/avro"),
        {413, 422},
    ),
    (
        "a block that unpacks to 200 MB",
        post(container(record_of("boolean"), deflated(200 * 1024 * 1024), 1, b"deflate"), kind="application/avro"),
        {422},
    ),
    ("an unknown codec", post(container(record_of("boolean"), b"\1", 1, b"rar"), kind="application/avro"), {422}),
    ("a schema that is none", post(container({"type": "recrod"}, b"\1", 1), kind="application/avro"), {422}),
    # --- paths
    ("a path of dots", post(ROW, path="/v1/events/../../etc/passwd"), {404}),
    ("dots that are encoded", post(ROW, path="/v1/events/%2e%2e/%2e%2e/etc/passwd"), {404}),
    ("a slash that is encoded", post(ROW, path="/v1/events/gps.positions.v1%2f"), {404}),
    ("a zero that is encoded", post(ROW, path="/v1/events/gps.positions.v1%00"), {404}),
    ("half of an escape", post(ROW, path="/v1/events/%"), {404, 400}),
    ("bytes that are no UTF-8", post(ROW, path="/v1/events/%ff%fe"), {404}),
    ("the topic of what comes out", post(ROW, path="/v1/events/gps.positions.v1.clean"), {404}),
    ("an internal topic", post(ROW, path="/v1/events/__consumer_offsets"), {404}),
    ("another case", post(ROW, path="/v1/events/GPS.POSITIONS.V1"), {404}),
    ("an absolute address", post(ROW, path="http://evil.example/v1/events/x"), {404, 400}),
    ("no path", post(ROW, path="*"), {404, 400, 405}),
    ("a format with dots", post(ROW, path=f"/v1/events/{SOURCE}?format=../../etc/passwd"), {404}),
    ("20 kB of parameters", post(ROW, path=f"/v1/events/{SOURCE}?format=osmand&" + "a=1&" * 5_000), {422, 200}),
    ("a path of 60 kB", post(ROW, path="/v1/events/" + "a" * 60_000), {404, 431, 400, 414, 0}),
    # --- heads
    ("a header of 60 kB", post(ROW, "X: " + "y" * 60_000), {431, 400, 0}),
    ("5,000 headers", post(ROW, *[f"X-{i}: {i}" for i in range(5_000)]), {431, 400, 0}),
    ("a header without a name", post(ROW, ": x"), {400}),
    ("a header over two lines", post(ROW, "X: a\r\n b"), {400, 202}),
    ("a line end in a header", post(ROW, "X: a\nY: b"), {400, 202}),
    ("a zero in a header", post(ROW, "X: a\0b"), {400}),
    ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100, {400, 0}),
    ("HTTP/2 without a word", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 404, 405, 505, 0}),
    ("HTTP/9.9", b"POST / HTTP/9.9\r\nConnection: close\r\n\r\n", {400, 505, 404, 405}),
    ("an upgrade", post(ROW, "Upgrade: websocket", "Sec-WebSocket-Key: x"), {202, 400, 426}),
    ("a method that is none", b"STEAL / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", {400, 404, 405}),
    ("another method", f"DELETE /v1/events/{SOURCE} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode(), {405}),
    ("no Host", f"POST /v1/events/{SOURCE} HTTP/1.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode(),
     {400, 401, 415}),
    # --- credentials
    ("a token of 30 kB", post(ROW, "Authorization: Bearer " + "x" * 30_000), {401, 431}),
    ("a token with bytes of all kinds", post(ROW, "Authorization: Bearer \xff\xfe"), {401, 400}),
    ("basic without a colon", post(ROW, "Authorization: Basic " + base64.b64encode(b"x").decode()), {401}),
    ("a signature of 1,000 parts", post(ROW, "webhook-signature: " + "v1,AA== " * 1_000, "webhook-id: a",
                                       "webhook-timestamp: 1"), {401}),
    ("an Idempotency-Key of 10 kB", post(ROW, "Idempotency-Key: " + "k" * 10_000), {400}),
    ("a name of another site", post(ROW, "Origin: https://evil.example"), {401}),
    ("a proxy's header", post(ROW, "X-Forwarded-For: 127.0.0.1"), {401}),
]  # fmt: skip


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


@pytest.mark.parametrize(("sent", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_it_is_refused_in_words_and_quickly(gateway: Gateway, sent: bytes, expected: set[int]) -> None:
    gateway.senders._senders.clear()  # each case by itself, without the pause after many
    started = time.monotonic()
    answer = gateway.raw(sent)
    assert status_of(answer) in expected, answer[:300]
    assert time.monotonic() - started < 3.0
    assert b"Traceback" not in answer
    assert not answer.startswith(b"HTTP/1.1 500")
    for outgoing in gateway.delivery.sent:
        assert outgoing.topic in {SOURCE, f"{SOURCE}.dlq"}
    gateway.delivery.sent.clear()
    if status_of(answer) >= 400:
        assert len(answer.partition(b"\r\n\r\n")[2]) > 10, "it says what is wrong"


def test_there_are_enough_of_them() -> None:
    assert len({case[0] for case in CASES}) == len(CASES) >= 90


def test_memory_stays_flat(gateway: Gateway) -> None:
    def round_of_all() -> None:
        for _, sent, _ in CASES:
            gateway.senders._senders.clear()
            gateway.raw(sent)
            gateway.delivery.sent.clear()

    round_of_all()
    before = psutil.Process().memory_info().rss
    round_of_all()
    assert psutil.Process().memory_info().rss - before < MEMORY_BYTES
    assert gateway.events.budget.held == 0


def test_clients_that_send_a_byte_now_and_then_are_cut_off_and_others_are_served(gateway: Gateway) -> None:
    slow = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(50)]
    stop = threading.Event()

    def trickle() -> None:
        number = 0
        while not stop.wait(0.05):
            for connection in slow:
                try:
                    connection.sendall(b"POST / HTTP/1.1\r\nX: "[number % 20 : number % 20 + 1])
                except OSError:
                    continue
            number += 1

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    try:
        assert gateway.send(position(0)).status == 202
        for connection in slow:
            connection.settimeout(5)
            try:
                found = b""
                while part := connection.recv(4_096):
                    found += part
                assert status_of(found) in {408, 400, 0}
            except ConnectionResetError:
                pass
        assert gateway.send(position(0)).status == 202
    finally:
        stop.set()
        thread.join()
        for connection in slow:
            connection.close()


def test_a_header_that_never_ends_does_not_fill_the_memory(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nX: ")
        sent = 0
        try:
            while sent < 2_000 * GATEWAY_HEAD_BYTES_MAX:
                sent += connection.send(b"y" * 16_384)
        except OSError:
            pass
        assert sent < 2_000 * GATEWAY_HEAD_BYTES_MAX, "the connection was closed long before"


def test_an_answer_before_the_end_of_a_body_is_read(gateway: Gateway) -> None:
    answer = gateway.raw(post(b"x" * 1_000_000, "Authorization: Bearer nope"))
    assert status_of(answer) in {401, 413}
    assert answer.count(b"HTTP/1.1 ") == 1, "and it is the only one"


def test_who_sends_nothing_usable_has_to_pause_and_is_tried_again(gateway: Gateway) -> None:
    gateway.senders._senders.clear()
    statuses = [gateway.send({"no": "position"}).status for _ in range(25)]
    assert statuses == [422] * 20 + [429] * 5
    answer = gateway.send(position(0))
    assert (answer.status, int(answer.headers["retry-after"]) >= 1) == (429, True)
    (sender,) = gateway.senders._senders.values()
    sender.breaker._until_s = 0.0
    assert gateway.send(position(0)).status == 202, "the probe has an event in it"
    assert gateway.send(position(1)).status == 202


def test_who_is_too_fast_is_told_when_to_come_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory.mktemp("rate"), rate_max=100) as gateway:
        assert gateway.send([position(i) for i in range(200)]).status == 202
        answer = gateway.send([position(i) for i in range(100)])
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert len(gateway.delivery.values(SOURCE)) == 200


def test_bodies_of_all_requests_together_are_bounded(gateway: Gateway) -> None:
    gateway.events.budget.held = 128 * 1024 * 1024
    try:
        answer = gateway.send(position(0))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    finally:
        gateway.events.budget.held = 0
    assert gateway.send([position(i) for i in range(1_000)], kind="application/json").status == 202
    assert GATEWAY_REQUEST_RECORDS_MAX > 1_000
