"""One bad record of every kind among good ones: one dead letter each, bytes equal, and the good ones in clean."""

import io
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import fastavro
import pytest
from confluent_kafka import Message, Producer

from loadtest.fleet.traffic import UNKNOWN_SCHEMA_ID
from loadtest.oracle.decode import plain_schema
from loadtest.oracle.read import TopicReader
from logistics.flows.gps import GPS
from streams import __version__
from streams.kafka.partitioner import partition_of
from streams.local.stack import Stack
from tests.integration.kafka_helpers import headers_of
from tests.integration.workers import (
    PARTITIONS,
    RECORD_BYTES_MAX,
    foreign_schema_id,
    fresh_world,
    position_schema,
    wait_drained,
    workers,
)

pytestmark = pytest.mark.kafka

Headers = list[tuple[str, bytes]]
DEVICE = "car-7"
START_MS = int(time.time() * 1000) - 600_000
OURS = {
    *(f"__streams.errors.{name}" for name in ("exception", "message", "stacktrace", "topic", "partition", "offset")),
    *(f"dlq.{name}" for name in ("id", "reason", "attempt", "group", "schema_id", "first_failed_at", "app_version")),
}


@dataclass
class Sent:
    """A record on its way into the source topic; `reason` None: it is good."""

    name: str
    value: bytes | None
    reason: str | None = None
    key: bytes | None = DEVICE.encode()
    headers: Headers = field(default_factory=list)
    schema_id: int | None = None
    partition: int = -1
    offset: int = -1


@dataclass
class Outcome:
    sent: dict[str, Sent]
    letters: list[Message]
    clean: list[Message]

    def letters_of(self, sent: Sent) -> list[Message]:
        where = (str(sent.partition).encode(), str(sent.offset).encode())
        names = ("__streams.errors.partition", "__streams.errors.offset")
        return [one for one in self.letters if tuple(dict(one.headers() or ())[name] for name in names) == where]


class Encoder:
    """Positions as bytes, each a second after the one before."""

    def __init__(self, stack: Stack) -> None:
        self.schemas = {version: position_schema(stack, version) for version in (1, 2)}
        self._parsed = {version: plain_schema(text) for version, (text, _) in self.schemas.items()}
        self._number = 0

    def body(self, version: int = 1, **changed: Any) -> bytes:
        self._number += 1
        values = {
            "event_id": f"event-{self._number}",
            "device_id": DEVICE,
            "sequence": self._number,
            "event_time": START_MS + self._number * 1_000,
            "latitude": 52.5,
            "longitude": 13.4,
            "speed_kmh": 50.0,
            "heading_deg": None,
            "altitude_m": 34.5,
        }
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, self._parsed[version], {**values, **changed})
        return buffer.getvalue()

    def framed(self, version: int = 1, **changed: Any) -> bytes:
        return frame(self.schemas[version][1]) + self.body(version, **changed)


def frame(schema_id: int) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big")


INVALID: dict[str, dict[str, Any]] = {
    "empty id": {"event_id": ""},
    "id too long": {"event_id": "x" * 129},
    "latitude too high": {"latitude": 90.1},
    "latitude too low": {"latitude": -90.1},
    "longitude too high": {"longitude": 180.1},
    "longitude too low": {"longitude": -180.1},
    "latitude not a number": {"latitude": math.nan},
    "longitude not a number": {"longitude": math.nan},
    "speed not a number": {"speed_kmh": math.nan},
    "heading not a number": {"heading_deg": math.nan},
    "negative time": {"event_time": -1},
}
REJECTED = [
    "text",
    "empty value",
    "no value",
    "unknown schema",
    "short",
    "nothing behind the frame",
    "trailing bytes",
    "foreign schema",
    *INVALID,
    "empty key",
    "key too long",
    "other key",
    "no key",
    "ahead of its time",
    "too large",
    "headers of its own",
]


def bad_records(encoder: Encoder, stack: Stack) -> Iterator[Sent]:
    ours, foreign = encoder.schemas[1][1], foreign_schema_id(stack)
    good = encoder.framed
    yield Sent("text", b'{"device_id": "car-7"}', "not_framed")
    yield Sent("empty value", b"", "not_framed")
    yield Sent("no value", None, "not_framed")
    yield Sent(
        "unknown schema", frame(UNKNOWN_SCHEMA_ID) + encoder.body(), "unknown_schema", schema_id=UNKNOWN_SCHEMA_ID
    )
    yield Sent("short", good()[:-3], "malformed", schema_id=ours)
    yield Sent("nothing behind the frame", frame(ours), "malformed", schema_id=ours)
    yield Sent("trailing bytes", good() + b"\0", "malformed", schema_id=ours)
    yield Sent("foreign schema", frame(foreign) + encoder.body(), "incompatible_schema", schema_id=foreign)
    for name, changed in INVALID.items():
        yield Sent(name, good(**changed), "invalid")
    yield Sent("empty key", good(device_id=""), "invalid", key=b"")
    yield Sent("key too long", good(device_id="k" * 1_025), "invalid", key=b"k" * 1_025)
    yield Sent("other key", good(), "key_mismatch", key=b"car-8")
    yield Sent("no key", good(), "key_mismatch", key=None)
    yield Sent("ahead of its time", good(event_time=int(time.time() * 1000) + 86_400_000), "future_timestamp")
    yield Sent("too large", good() + bytes(RECORD_BYTES_MAX), "too_large")
    own: Headers = [("trace", b"\x00\xff"), ("trace", b"twice"), ("dlq-like", b"kept")]
    yield Sent("headers of its own", good(latitude=-91.0), "invalid", headers=own)


def good_records(encoder: Encoder) -> Iterator[Sent]:
    ids = {version: b"\0" + schema_id.to_bytes(4, "big") for version, (_, schema_id) in encoder.schemas.items()}
    yield Sent("plain", encoder.framed())
    yield Sent("with headers", encoder.framed(), headers=[("trace", b"1"), ("empty", b"")])
    yield Sent("version 2", encoder.framed(2))
    yield Sent("version 2 without altitude", encoder.framed(2, altitude_m=None))
    yield Sent("id in header", encoder.body(), headers=[("__value_schema_id", ids[1]), ("trace", b"2")])
    yield Sent("version 2 by header", encoder.body(2), headers=[("__value_schema_id", ids[2])])


GOOD = ["plain", "with headers", "version 2", "version 2 without altitude", "id in header", "version 2 by header"]


@pytest.fixture(scope="module")
def outcome(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Everything sent through one worker: good records first, then every bad one between two good ones."""
    probe = fresh_world(stack)
    encoder = Encoder(stack)
    sent = list(good_records(encoder))
    for number, bad in enumerate(bad_records(encoder, stack)):
        sent += [bad, Sent(f"plain {number}", encoder.framed())]
    produce(stack, sent)
    with workers(stack, tmp_path_factory.mktemp("rejects"), "a") as (worker,):
        worker.start().wait_ready()
        wait_drained(probe, worker)
    reader = TopicReader(stack.bootstrap_servers)
    try:
        letters, clean = list(reader.records(GPS.dlq)), list(reader.records(GPS.clean))
    finally:
        reader.close()
    return Outcome({one.name: one for one in sent}, letters, clean)


def produce(stack: Stack, records: list[Sent]) -> None:
    producer = Producer(
        {"bootstrap.servers": stack.bootstrap_servers, "partitioner": "murmur2_random", "enable.idempotence": True}
    )

    def placed(one: Sent) -> Any:
        def report(error: object, message: Message) -> None:
            assert error is None, error
            one.partition, one.offset = message.partition() or 0, message.offset() or 0

        return report

    for one in records:
        producer.produce(GPS.source, one.value, one.key, headers=[*one.headers] or None, on_delivery=placed(one))
    assert producer.flush(30) == 0
    assert all(one.offset >= 0 for one in records)


def test_every_kind_of_bad_record_was_sent(outcome: Outcome) -> None:
    bad = {name: one for name, one in outcome.sent.items() if one.reason is not None}

    assert list(bad) == REJECTED
    assert len(outcome.letters) == len(bad)


@pytest.mark.parametrize("name", REJECTED)
def test_a_bad_record_becomes_one_dead_letter_with_its_key_bytes_and_headers(outcome: Outcome, name: str) -> None:
    sent = outcome.sent[name]

    (letter,) = outcome.letters_of(sent)

    assert (sent.key, sent.value) == (letter.key(), letter.value())
    headers = headers_of(letter)
    assert sent.headers == headers[: len(sent.headers)]
    added = dict(headers[len(sent.headers) :])
    assert OURS == added.keys()
    assert len(headers) == len(sent.headers) + len(OURS)


@pytest.mark.parametrize("name", REJECTED)
def test_a_dead_letter_says_what_happened_and_where(outcome: Outcome, name: str) -> None:
    sent = outcome.sent[name]

    (letter,) = outcome.letters_of(sent)

    found = {key: (value or b"").decode() for key, value in headers_of(letter) if key in OURS}
    assert sent.reason == found["dlq.reason"]
    class_name = "".join(word.capitalize() for word in (sent.reason or "").split("_"))
    assert f"streams.{class_name}" == found["__streams.errors.exception"]
    assert found["__streams.errors.message"]
    assert GPS.source == found["__streams.errors.topic"]
    assert "1" == found["dlq.attempt"]
    assert GPS.group == found["dlq.group"]
    assert __version__ == found["dlq.app_version"]
    assert START_MS < int(found["dlq.first_failed_at"]) <= time.time() * 1000
    value = sent.value or b""
    carried = str(int.from_bytes(value[1:5], "big")) if len(value) >= 5 and value[0] == 0 else ""
    assert carried == found["dlq.schema_id"]  # whatever it was rejected for
    assert sent.schema_id is None or str(sent.schema_id) == carried
    if sent.key:
        assert partition_of(sent.key, PARTITIONS) == letter.partition()


def test_each_dead_letter_has_an_id_of_its_own(outcome: Outcome) -> None:
    ids = {dict(letter.headers() or ())["dlq.id"] for letter in outcome.letters}

    assert len(ids) == len(outcome.letters)


def test_the_good_records_come_out_in_order_and_unchanged(outcome: Outcome) -> None:
    good = [one for one in outcome.sent.values() if one.reason is None]

    assert [one.value for one in good] == [message.value() for message in outcome.clean]
    assert {DEVICE.encode()} == {message.key() for message in outcome.clean}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_record_of_any_version_and_framing_is_clean_with_its_headers(outcome: Outcome, name: str) -> None:
    sent = outcome.sent[name]

    (found,) = [message for message in outcome.clean if message.value() == sent.value]

    assert sent.headers == (found.headers() or [])
