"""Envelopes of other programs: the headers as those programs write them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.batch.rejects import DeadLetter, Reason, Reject
from streams.deadletters.letter.envelope import envelope_headers, id_of_place
from streams.deadletters.letter.foreign import (
    Envelope,
    Kind,
    message_of,
    origin_of,
    own_headers_of,
    read_envelope,
    read_envelopes,
    shown_header,
)
from streams.deadletters.letter.letter import parts_of

SOURCE = b"gps.positions.v1"
OWN = [("trace", b"1"), ("x-request-id", None)]


def int4(number: int) -> bytes:
    return struct.pack(">i", number)


def int8(number: int) -> bytes:
    return struct.pack(">q", number)


CONNECT = [
    ("__connect.errors.topic", SOURCE), ("__connect.errors.partition", b"1"), ("__connect.errors.offset", b"404269"),
    ("__connect.errors.connector.name", b"sink-1"), ("__connect.errors.task.id", b"0"),
    ("__connect.errors.exception.class.name", b"org.apache.kafka.connect.errors.DataException"),
    ("__connect.errors.exception.message", None),
]  # fmt: skip
SPRING = [
    ("kafka_dlt-original-topic", SOURCE), ("kafka_dlt-original-partition", int4(2)),
    ("kafka_dlt-original-offset", int8(7)), ("kafka_dlt-original-timestamp", int8(1_700_000_000_000)),
    ("kafka_dlt-original-consumer-group", b"grp"),
    ("kafka_dlt-exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
    ("kafka_dlt-exception-cause-fqcn", b"com.example.FleetException"),
    ("kafka_dlt-exception-message", "kaputt äöü".encode()),
]  # fmt: skip
RETRYABLE = [
    ("kafka_original-topic", SOURCE), ("kafka_original-partition", int4(1)), ("kafka_original-offset", int8(8)),
    ("kafka_original-timestamp", int8(1_700_000_000_000)), ("kafka_dlt-original-consumer-group", b"grp"),
    ("kafka_exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
    ("kafka_exception-cause-fqcn", b"com.example.FleetException"), ("kafka_exception-message", b"broken"),
    ("retry_topic-attempts", int4(3)), ("retry_topic-backoff-timestamp", int8(1_700_000_000_000)),
]  # fmt: skip
CLOUD = [
    ("x-original-topic", SOURCE), ("x-original-partition", int4(0)), ("x-original-offset", int8(3)),
    ("x-original-timestamp", int8(1_700_000_000_000)), ("x-exception-message", b"no"),
    ("x-exception-fqcn", b"c.Third"),
]  # fmt: skip
SMALLRYE = [
    ("dead-letter-topic", SOURCE), ("dead-letter-partition", b"0"), ("dead-letter-offset", b"5"),
    ("dead-letter-reason", b"no"), ("dead-letter-exception-class-name", b"d.Fourth"),
]  # fmt: skip


def read(
    headers: list[tuple[str, None] | tuple[str, bytes]] | list[tuple[str, None]] | list[tuple[str, bytes]],
) -> Envelope:
    return read_envelope(headers, topic="t.dlq", partition=2, offset=3, timestamp_ms=4)


@pytest.mark.parametrize(
    ("headers", "kind", "reason", "message", "origin"),
    [
        (CONNECT, Kind.CONNECT, "DataException", "", (1, 404269, "sink-1")),
        (SPRING, Kind.SPRING, "FleetException", "kaputt äöü", (2, 7, "grp")),
        (RETRYABLE, Kind.SPRING, "FleetException", "broken", (1, 8, "grp")),
        (CLOUD, Kind.SPRING_CLOUD_STREAM, "Third", "no", (0, 3, None)),
        (SMALLRYE, Kind.SMALLRYE, "Fourth", "no", (0, 5, None)),
    ],
)
def test_every_dialect_says_where_the_record_belongs_and_why_it_failed(
    headers: list[tuple[str, None] | tuple[str, bytes]] | list[tuple[str, bytes]],
    kind: Kind,
    reason: str,
    message: str,
    origin: tuple[int, int, str | None],
) -> None:
    letter = [*OWN, *headers]
    found = read(letter)
    assert (kind, SOURCE.decode(), reason, 1) == (found.kind, found.source, found.reason, found.attempt)
    assert id_of_place("t.dlq-2@3").encode() == found.id
    assert message == message_of(letter)
    where = origin_of(letter)
    assert (SOURCE.decode(), *origin) == (where.topic, where.partition, where.offset, where.group)
    assert OWN == own_headers_of(letter)
    assert OWN == parts_of(letter).own
    together = read_envelopes([letter], topic="t.dlq", partitions=[2], offsets=[3], timestamps=[4])
    assert [(kind, SOURCE.decode(), reason)] == list(
        zip(together.kinds, together.sources, together.reasons, strict=True)
    )


@pytest.mark.parametrize("first", [CONNECT, SPRING, RETRYABLE, CLOUD, SMALLRYE])
@pytest.mark.parametrize("second", [CONNECT, SPRING, RETRYABLE, CLOUD, SMALLRYE])
def test_of_a_letter_that_went_through_two_dead_letter_topics_the_first_one_counts(
    first: list[tuple[str, None] | tuple[str, bytes]] | list[tuple[str, bytes]],
    second: list[tuple[str, None] | tuple[str, bytes]] | list[tuple[str, bytes]],
) -> None:
    elsewhere = [(name, b"elsewhere" if value == SOURCE else value) for name, value in second]
    letter = [*OWN, *first, *elsewhere]
    assert read(first)._replace(id=b"") == read(letter)._replace(id=b"")
    assert origin_of(first) == origin_of(letter)
    assert OWN == own_headers_of(letter)


@given(st.permutations([CONNECT[0], SPRING[0], RETRYABLE[0], CLOUD[0], SMALLRYE[0]]))
def test_the_first_header_that_names_a_topic_decides(order: list[tuple[str, bytes]]) -> None:
    named = [(name, f"topic-{number}".encode()) for number, (name, _) in enumerate(order)]
    assert "topic-0" == read(named).source == origin_of(named).topic


def test_a_record_that_the_worker_rejected_is_ours_whatever_headers_it_came_with() -> None:
    came_with = [*CONNECT, ("kafka_dlt-original-topic", b"victim"), ("x-original-topic", b"victim")]
    reject = Reject(0, Reason.INVALID, "m", 7)
    letter = envelope_headers(
        DeadLetter(reject, 1, 42, 1_700, b"k", b"v", came_with), source="s", group="g", now_ms=1_700
    )
    for headers in (letter, [*letter, ("kafka_dlt-original-topic", b"s.dlq")]):
        assert (Kind.STREAMS, "s", "invalid") == (read(headers).kind, read(headers).source, read(headers).reason)
        assert ("m", 42) == (message_of(headers), origin_of(headers).offset)
    assert came_with == own_headers_of(letter) == parts_of(letter).own
    together = read_envelopes([letter], topic="t", partitions=[0], offsets=[0], timestamps=[0])
    assert ["s"] == list(together.sources)


def test_headers_that_only_look_alike_stay_the_records_own() -> None:
    own = [("x-original-host", b"h"), ("dead-letter-box", b"b"), ("kafka_key-exception", b"k")]
    assert Kind.BROKEN == read(own).kind
    assert own == own_headers_of(own)
    assert [own[0], own[1]] == own_headers_of([own[0], own[1], *CONNECT])


@pytest.mark.parametrize("headers", [CONNECT[1:], SPRING[1:], [("kafka_dlt-original-topic", None), *SPRING[1:]]])
def test_an_envelope_without_its_topic_is_broken(
    headers: list[tuple[str, None] | tuple[str, bytes]] | list[tuple[str, bytes]],
) -> None:
    assert (Kind.BROKEN, "") == (read(headers).kind, read(headers).source)


def test_numbers_are_shown_in_digits_and_what_is_no_number_as_it_is() -> None:
    assert "7" == shown_header("kafka_dlt-original-offset", int8(7))
    assert "404269" == shown_header("__connect.errors.offset", b"404269")
    assert "3" == shown_header("retry_topic-attempts", int4(3))
    assert "x" == shown_header("kafka_dlt-original-offset", b"x")
    assert "-" == shown_header("dlq.id", None)
    assert "\\xff" == shown_header("dead-letter-offset", b"\xff")


@given(st.lists(st.tuples(st.sampled_from([name for name, _ in (*SPRING, *CLOUD, *SMALLRYE, *CONNECT)]),
                          st.none() | st.binary(max_size=9))))  # fmt: skip
def test_any_values_are_read_without_an_error(
    headers: list[tuple[str, None] | tuple[str, bytes]] | list[tuple[str, None]] | list[tuple[str, bytes]],
) -> None:
    assert read(headers).reason
    origin_of(headers)
    message_of(headers)
    own_headers_of(headers)
