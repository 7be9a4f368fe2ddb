"""Rows 15 to 19 and 21: poison, unknown schemas, bombs, clocks that run ahead, a registry or a topic that is gone."""

import http.server
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from confluent_kafka import KafkaError, Message, Producer

from loadtest.fleet import Kind
from logistics.flows.gps import GPS
from streams.kafka.partitioner import partition_of
from streams.limits import UNKNOWN_SCHEMA_TTL_MS
from streams.schemas.client import Registry
from tests.faults.harness import READY_S_MAX, SEED, Scene, end_of_run_in, metric, rss_mb
from tests.faults.proxy import Faults, Proxy
from tests.integration.kafka_helpers import admin_of, delete_topics, headers_of, run, settings_of
from tests.integration.raw_producer import RawProducer, accept_any_timestamp
from tests.integration.test_rejects import Encoder, frame
from tests.integration.workers import LIMITS, PARTITIONS, position_schema, read, wait_until

pytestmark = [pytest.mark.kafka]

MakeScene = Callable[..., Scene]
NO_REJECTS: dict[Kind, float] = {}
UNKNOWN_ID = 2**31 - 1
DECADE_MS = 10 * 365 * 86_400_000
DEVICES = [next(f"car-{n}" for n in range(1000) if partition_of(b"car-%d" % n, PARTITIONS) == p) for p in range(3)]
"""One of each partition."""


class Sender:
    """Single records into the source; says what the broker refused."""

    def __init__(self, scene: Scene, **config: Any) -> None:
        self._producer = Producer(
            {"bootstrap.servers": scene.stack.bootstrap_servers, "partitioner": "murmur2_random", **config}
        )
        self.refused: list[KafkaError] = []

    def send(self, key: str, value: bytes, timestamp_ms: int = 0) -> None:
        while True:
            try:
                self._producer.produce(
                    GPS.source, value, key.encode(), timestamp=timestamp_ms or int(time.time() * 1000),
                    on_delivery=self._delivered,
                )  # fmt: skip
                self._producer.poll(0)
                return
            except BufferError:
                self._producer.poll(0.05)

    def flush(self) -> None:
        assert self._producer.flush(60) == 0

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self.refused.append(error)


def now_ms() -> int:
    return int(time.time() * 1000)


# --- 15: poison -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.fault(row=15, what="poison Avro: random, truncated, trailing, flipped bytes")
def test_poison_becomes_one_dead_letter_each(scene: Scene) -> None:
    chance = random.Random(SEED)
    encoder = Encoder(scene.stack)
    ours = frame(encoder.schemas[1][1])
    poison: list[bytes] = []
    for _ in range(500):
        good = encoder.framed(event_time=now_ms())
        poison += [
            chance.randbytes(chance.randint(0, 60)),
            ours + chance.randbytes(chance.randint(0, 60)),
            good[: chance.randrange(len(good))],
            good + chance.randbytes(chance.randint(1, 5)),
        ]
    with scene.load(rejects=NO_REJECTS):
        scene.start().wait_ready(READY_S_MAX)
        sender = Sender(scene)
        for number, value in enumerate(poison):
            sender.send(DEVICES[number % 3], value)
        sender.flush()
        scene.result.injected = len(poison)
        scene.lifted()
        scene.recovers()
    report = scene.exactly_once()
    letters = [message.value() or b"" for message in read(scene.stack, GPS.dlq)]
    assert len(letters) == report.rejected_expected
    certain = [value for value in poison if len(value) < 5 or value[0] != 0]
    assert sorted(certain) == sorted(value for value in letters if len(value) < 5 or value[0] != 0)


# --- 16, 17: the registry ---------------------------------------------------------------------------------------------


@pytest.fixture
def registry_proxy(stack: Any) -> Iterator[Proxy]:
    port = urlsplit(stack.registry_url).port
    assert port is not None
    with Proxy(port) as proxy:
        yield proxy


@pytest.fixture
def behind_registry_proxy(make_scene: MakeScene, stack: Any, registry_proxy: Proxy) -> Scene:
    url = urlsplit(stack.registry_url)._replace(netloc=registry_proxy.address).geturl()
    return make_scene("a", environment={"SCHEMA_REGISTRY_URL": url})


@pytest.mark.slow
@pytest.mark.fault(row=16, what="unknown schema id 2^31-1")
def test_an_unknown_schema_id_is_asked_for_once_in_a_while(behind_registry_proxy: Scene, registry_proxy: Proxy) -> None:
    scene = behind_registry_proxy
    asked: list[float] = []

    def note(request: bytes) -> None:
        asked.extend([time.monotonic()] * request.count(b"/schemas/ids/%d" % UNKNOWN_ID))

    registry_proxy.on_request = note
    encoder = Encoder(scene.stack)
    records = 3_000
    with scene.load(rejects=NO_REJECTS):
        scene.start().wait_ready(READY_S_MAX)
        sender = Sender(scene)
        began = time.monotonic()
        for number in range(records):
            sender.send(DEVICES[number % 3], frame(UNKNOWN_ID) + encoder.body(event_time=now_ms()))
            if number % 100 == 0:
                sender.flush()
        scene.result.injected = records
        scene.lifted()
        scene.recovers()
        took_ms = (time.monotonic() - began) * 1000
    report = scene.exactly_once()
    assert records == report.rejected
    assert 1 <= len(asked) <= 3 + took_ms / UNKNOWN_SCHEMA_TTL_MS
    scene.note(f"{len(asked)} look-ups")


class _Broken(http.server.BaseHTTPRequestHandler):
    """Answers 500 to everything."""

    def do_GET(self) -> None:
        self.send_error(500)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def broken_server() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.slow
@pytest.mark.fault(row=17, what="registry")
@pytest.mark.parametrize("how", ["dead", "hung", "answers 500"])
def test_without_a_registry_known_schemas_flow_and_unknown_ones_wait(
    behind_registry_proxy: Scene, registry_proxy: Proxy, broken_server: int, how: str
) -> None:
    scene = behind_registry_proxy
    worker = scene.worker
    encoder = Encoder(scene.stack)
    real = registry_proxy.target
    unready = f"waiting for the schema registry: {GPS.source} [0]"
    with scene.load(rejects=NO_REJECTS):
        scene.start().wait_ready(READY_S_MAX)
        scene.flows()
        if how == "hung":
            registry_proxy.faults = Faults(silent=True)
        else:
            registry_proxy.target = 1 if how == "dead" else broken_server
            registry_proxy.reset_all()
        scene.struck()
        sender = Sender(scene)
        waiting = [encoder.framed(2, device_id=DEVICES[0], event_time=now_ms()) for _ in range(100)]
        for value in waiting:
            sender.send(DEVICES[0], value)
        sender.flush()
        wait_until(lambda: worker.readiness()[1].strip() == unready, "the worker says that it waits")
        before = scene.committed()
        wait_until(lambda: moved(before, scene.committed()) >= {1, 2}, "partitions that wait for nothing flow")
        wait_until(lambda: worker.said("the schema registry does not answer"), "the log says why")
        assert 503 == worker.readiness()[0]
        assert [] == read(scene.stack, GPS.dlq)
        registry_proxy.faults = Faults()
        registry_proxy.target = real
        scene.lifted()
        scene.recovers()
        wait_until(lambda: worker.readiness()[0] == 200, "the worker is ready again")
    report = scene.exactly_once()
    assert 0 == report.rejected


def moved(before: dict[int, int], after: dict[int, int]) -> set[int]:
    return {partition for partition, offset in after.items() if offset > before.get(partition, -1)}


# --- 18: bombs --------------------------------------------------------------------------------------------------------

ARRAY_SUBJECT = "tests.bomb-value"


def zigzag(number: int) -> bytes:
    """An Avro long."""
    rest, out = (number << 1) ^ (number >> 63), b""
    while rest > 0x7F:
        out += bytes([rest & 0x7F | 0x80])
        rest >>= 7
    return out + bytes([rest])


@pytest.mark.fault(row=18, what="huge records, compression bomb, count bombs")
def test_bombs_are_rejected_before_memory_is_spent(scene: Scene) -> None:
    encoder = Encoder(scene.stack)
    schema, schema_id = position_schema(scene.stack, 1)
    with_array = json.loads(schema)
    with_array["fields"].append({"name": "bomb", "type": {"type": "array", "items": "long"}})
    array_id = Registry(settings_of(scene.stack)).register(ARRAY_SUBJECT, json.dumps(with_array))
    with scene.load(rejects=NO_REJECTS):
        scene.start().wait_ready(READY_S_MAX)
        scene.flows()
        before_mb = rss_mb(scene.worker.pid)
        bombs = {
            "array of 2^60": frame(array_id) + encoder.body() + zigzag(2**60),
            "array of -2^60": frame(array_id) + encoder.body() + zigzag(-(2**60)) + zigzag(8),
            "text of 2^60": frame(schema_id) + zigzag(2**60) + b"x" * 40,
            "text of 2^31": frame(schema_id) + zigzag(2**31) + b"x" * 40,
            "negative text": frame(schema_id) + zigzag(-5) + b"x" * 40,
            "huge": encoder.framed() + bytes(900_000),
        }
        sender = Sender(scene, **{
            "compression.type": "gzip", "message.max.bytes": 200_000_000, "batch.size": 200_000_000, "linger.ms": 2_000,
        })  # fmt: skip
        for bomb in bombs.values():
            sender.send(DEVICES[0], bomb)
        zeros = encoder.framed(device_id=DEVICES[1]) + bytes(900_000)
        for _ in range(100):  # one batch: 90 MB in less than 1 MB
            sender.send(DEVICES[1], zeros)
        sender.flush()
        assert sender.refused == []
        peak = Peak(scene.worker.pid)
        scene.result.injected = len(bombs) + 100
        scene.lifted()
        with peak:
            scene.recovers()
    report = scene.exactly_once()
    assert scene.result.injected == report.rejected
    scene.note(f"+{peak.mb - before_mb:.0f} MB at the most")
    assert peak.mb - before_mb < 500


class Peak:
    """Largest resident size of a process during a block."""

    def __init__(self, pid: int) -> None:
        self.mb = rss_mb(pid)
        self._pid = pid
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ends.wait(0.02):
            self.mb = max(self.mb, rss_mb(self._pid))


# --- 19: clocks -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.fault(row=19, what="a device's clock 50 s and 10 years ahead")
def test_a_device_ahead_of_its_time_drags_no_watermark(scene: Scene) -> None:
    """Beyond `skew_ms_max` it is rejected; within it is accepted, and nobody else is late for it."""
    encoder = Encoder(scene.stack)
    with scene.load(start_ms=now_ms(), late=0.0, duplicate_delayed=0.0, rejects=NO_REJECTS) as traffic:
        scene.start().wait_ready(READY_S_MAX)
        sender = Sender(scene)
        for number in range(200):
            ahead_ms = 50_000 if number % 2 else 10 * 365 * 86_400_000
            at_ms = traffic.timestamp_ms  # by our own clock the traffic itself would be late on a busy machine
            for device in DEVICES:
                sender.send(device, encoder.framed(device_id=device, event_time=at_ms + ahead_ms), at_ms)
            scene.struck()
            traffic.wait_for(1)
        sender.flush()
        scene.recovers()
    for device in DEVICES:  # at the end of the log, time goes on: what is ahead comes out too
        end_ms = now_ms() + 55_000
        sender.send(device, encoder.framed(device_id=device, event_time=end_ms), end_ms)
    sender.flush()
    report = scene.exactly_once()
    assert 300 == report.rejected
    assert 0 == report.late


@pytest.mark.slow
@pytest.mark.fault(row=19, what="a producer's clock 50 min and 2 h ahead, record timestamps too")
def test_a_producer_ahead_of_its_time_is_rejected_and_makes_nobody_late(scene: Scene) -> None:
    """Its record timestamps are ahead as well, which makes them no time. Kafka refuses what is over an hour ahead."""
    encoder = Encoder(scene.stack)
    with scene.load(start_ms=now_ms(), late=0.0, duplicate_delayed=0.0, rejects=NO_REJECTS) as traffic:
        scene.start().wait_ready(READY_S_MAX)
        sender, refused = Sender(scene), Sender(scene)
        for _ in range(50):
            for device in DEVICES:
                ahead_ms = now_ms() + 3_000_000
                sender.send(device, encoder.framed(device_id=device, event_time=ahead_ms), ahead_ms)
            far_ms = now_ms() + 7_200_000
            refused.send(DEVICES[0], encoder.framed(event_time=far_ms), far_ms)
            scene.struck()
            traffic.wait_for(1)
        sender.flush()
        refused.flush()
        scene.recovers()
    assert [] == sender.refused
    # A batch is refused as a whole: INVALID_TIMESTAMP for the first bad record, INVALID_RECORD for those with it.
    codes = {error.code() for error in refused.refused}
    assert {KafkaError.INVALID_TIMESTAMP} == codes - {KafkaError.INVALID_RECORD}
    assert 50 == len(refused.refused)
    report = scene.exactly_once()
    assert 150 == report.rejected
    assert 0 == report.late


@pytest.mark.fault(row=19, what="record timestamps of -1, 0, 1970, in seconds and ten years ahead")
def test_a_record_without_a_time_of_its_own_is_judged_by_the_clock_and_drags_no_watermark(scene: Scene) -> None:
    """The topics take any timestamp, as in Kafka 3. Of each kind one event in time is clean, one ahead is rejected."""
    encoder = Encoder(scene.stack)
    accept_any_timestamp(scene.stack, GPS.source, GPS.clean, GPS.late, GPS.dlq)
    raw = RawProducer(scene.stack.bootstrap_servers)
    began = now_ms()
    stamps = (-1, 0, 86_400_000, began // 1_000, began + DECADE_MS)
    with scene.load(start_ms=began, late=0.0, duplicate_delayed=0.0, rejects=NO_REJECTS):
        scene.start().wait_ready(READY_S_MAX)
        for number, timestamp_ms in enumerate(stamps):
            for ahead_ms in (0, DECADE_MS):
                device = f"stamped-{number}"
                value = encoder.framed(device_id=device, event_time=began + ahead_ms)
                raw.send(GPS.source, partition_of(device.encode(), PARTITIONS), device.encode(), value, timestamp_ms)
        scene.struck()
        scene.recovers()
    report = scene.exactly_once()
    raw.close()
    assert len(stamps) == report.rejected
    assert 0 == report.late
    clean = {message.key() for message in read(scene.stack, GPS.clean)}
    assert {b"stamped-%d" % number for number in range(len(stamps))} <= clean


# --- 27: headers ------------------------------------------------------------------------------------------------------

NOT_UTF_8 = b"tr\xfccker"


@pytest.mark.fault(row=27, what="header name that is not UTF-8, 2,000 headers, 1 MB header")
def test_a_record_with_odd_headers_costs_one_record(make_scene: MakeScene) -> None:
    """Its neighbours flow, and its dead letter has all that can be kept."""
    most = 900_000
    scene = make_scene(
        "a", environment={"STREAMS_RECORD_BYTES_MAX": str(most)}, limits=replace(LIMITS, record_bytes_max=most)
    )
    encoder = Encoder(scene.stack)
    raw = RawProducer(scene.stack.bootstrap_servers)
    value = encoder.framed(device_id=DEVICES[0], event_time=now_ms())
    many = [(b"h%d" % number, b"v") for number in range(2_000)]
    with scene.load(rejects=NO_REJECTS):
        scene.start().wait_ready(READY_S_MAX)
        pid = scene.worker.pid
        headers = [(b"own", b"1"), (NOT_UTF_8, b"2"), (b"empty", None)]
        raw.send(GPS.source, 0, DEVICES[0].encode(), value, now_ms(), headers)
        flows: dict[str, Sequence[tuple[bytes, bytes | None]]] = {"2,000": many, "nameless": [(b"", b"x"), (b"", None)]}
        for name, odd in flows.items():
            event = encoder.framed(device_id=DEVICES[0], event_time=now_ms(), event_id=name)
            raw.send(GPS.source, 0, DEVICES[0].encode(), event, now_ms(), odd)
        large = encoder.framed(device_id=DEVICES[0], event_time=now_ms())
        raw.send(GPS.source, 0, DEVICES[0].encode(), large, now_ms(), [(b"large", bytes(1_000_000))])
        raw.send(GPS.source, 1, DEVICES[1].encode(), b"junk", now_ms(), many)
        raw.close()
        scene.result.injected = 5
        scene.lifted()
        scene.recovers()
        assert pid == scene.worker.pid
    report = scene.exactly_once()
    assert 3 == report.rejected
    letters = {dict(one.headers() or ())["dlq.reason"]: one for one in read(scene.stack, GPS.dlq)}
    assert {b"bad_header", b"too_large", b"not_framed"} == letters.keys()
    bad = letters[b"bad_header"]
    assert (DEVICES[0].encode(), value) == (bad.key(), bad.value())
    assert [("own", b"1"), ("empty", None)] == headers_of(bad)[:2]
    assert [("large", bytes(1_000_000))] == headers_of(letters[b"too_large"])[:1]
    assert 2_000 + 13 == len(letters[b"not_framed"].headers() or [])


@pytest.mark.slow
@pytest.mark.fault(row=27, what="header name that is not UTF-8 in the dead-letter topic")
def test_dead_letters_with_such_headers_are_listed_shown_and_replayed(scene: Scene) -> None:
    """One is ours, of a record that came so; one was written by somebody else, and has such a header itself."""
    stack = scene.stack
    encoder = Encoder(stack)
    value = encoder.framed(device_id=DEVICES[0], event_time=now_ms())
    raw = RawProducer(stack.bootstrap_servers)
    scene.start().wait_ready(READY_S_MAX)
    raw.send(GPS.source, 0, DEVICES[0].encode(), value, now_ms(), [(NOT_UTF_8, b"2")])
    scene.struck()
    scene.recovers()
    named = [(b"__streams.errors.topic", GPS.source.encode()), (b"dlq.reason", b"malformed"), (NOT_UTF_8, b"")]
    raw.send(GPS.dlq, 0, b"k", b"v", now_ms(), named)
    raw.close()
    listed = run(stack, "dlq", "list", "--format", "json")
    assert listed.returncode == 0, listed.stderr
    letters = {letter["reason"]: letter["id"] for letter in json.loads(listed.stdout)["entries"]}
    assert {"bad_header", "malformed"} == letters.keys()
    for letter_id in letters.values():
        shown = run(stack, "dlq", "show", letter_id)
        assert shown.returncode == 0, shown.stderr
    replayed = run(stack, "dlq", "replay", "--reason", "bad_header", "--why", "tried without the header")
    assert replayed.returncode == 0, replayed.stderr
    end_of_run_in(scene.worker, scene.environment)
    wait_until(lambda: value in {message.value() for message in read(stack, GPS.clean)}, "it is clean by now")


# --- 21: the dead-letter topic is gone --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.fault(row=21, what="dead-letter topic deleted, then applied again")
def test_without_a_dead_letter_topic_nothing_is_committed_and_nothing_dropped(scene: Scene) -> None:
    """It is deleted before the first reject: what is in a topic that somebody deletes is gone, whoever wrote it."""
    missing = f"topics are missing ({GPS.dlq}): create them with `streams topics apply`"
    encoder = Encoder(scene.stack)
    bad = [b"not a position %d" % number for number in range(300)]
    with scene.load(rejects=NO_REJECTS):
        scene.start().wait_ready(READY_S_MAX)
        pid = scene.worker.pid
        scene.flows()
        delete_topics(admin_of(scene.stack), {GPS.dlq})
        sender = Sender(scene)
        for number, value in enumerate(bad):
            sender.send(DEVICES[number % 3], value)
            sender.send(DEVICES[number % 3], encoder.framed(device_id=DEVICES[number % 3], event_time=now_ms()))
        sender.flush()
        scene.struck()
        wait_until(lambda: scene.worker.said(missing), "the worker says what is missing")
        frozen_at = scene.committed()
        wait_until(lambda: len(scene.worker.said(missing)) > 2, "it tries again")
        assert frozen_at == scene.committed()
        assert metric(scene.worker, "streams_aborts_total", reason="missing_topic") > 0
        applied = run(scene.stack, "topics", "apply")
        assert applied.returncode == 0, applied.stderr
        scene.lifted()
        scene.recovers()
        assert pid == scene.worker.pid
    report = scene.exactly_once()
    assert len(bad) == report.rejected
    assert sorted(bad) == sorted(message.value() or b"" for message in read(scene.stack, GPS.dlq))
