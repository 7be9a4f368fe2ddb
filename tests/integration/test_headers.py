"""Headers that are not UTF-8, and bombs of them: read in one way everywhere, and one record costs one record."""

import re
import threading
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import NewTopic

from streams.engine.log import LogRow
from streams.kafka.changelog import KafkaChangelog
from streams.kafka.headers import headers_of, read_headers
from streams.local.stack import Stack
from streams.resilience.retry import Retrier
from tests.integration.kafka_helpers import admin_of, delete_topics, settings_of
from tests.integration.raw_producer import RawHeaders, RawProducer

pytestmark = pytest.mark.kafka

TOPIC = "tests.headers"
BAD = b"tr\xfccker"
SENT: list[RawHeaders] = [
    [],
    [(b"a", b"1"), (b"a", None), (b"", b"empty name"), ("ü".encode(), b"\xff")],
    [(b"before", b"1"), (BAD, b"2"), (b"after", None)],
    [(BAD, None)],
    [(BAD, b"1"), (b"\xff\xfe", b"2"), (b"last", b"3")],
    [(b"h%d" % number, b"v") for number in range(2_000)],
    [(b"big", bytes(1_000_000))],
    [],
]
READ: list[list[tuple[str, bytes | None]] | None] = [
    None,
    [("a", b"1"), ("a", None), ("", b"empty name"), ("ü", b"\xff")],
    [("before", b"1"), ("after", None)],
    [],
    [("last", b"3")],
    [(f"h{number}", b"v") for number in range(2_000)],
    [("big", bytes(1_000_000))],
    None,
]
LOST = {2: 1, 3: 1, 4: 2}


@pytest.fixture(scope="module")
def topic(stack: Stack) -> str:
    client = admin_of(stack)
    delete_topics(client, {TOPIC})
    client.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(30)
    producer = RawProducer(stack.bootstrap_servers)
    for headers in SENT:
        producer.send(TOPIC, 0, b"k", b"v", 1_700_000_000_000, headers)
    producer.close()
    return TOPIC


@pytest.fixture
def messages(stack: Stack, topic: str) -> list[Message]:
    consumer = Consumer({"bootstrap.servers": stack.bootstrap_servers, "group.id": "tests-headers"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[Message] = []
    while len(found) < len(SENT):
        found += consumer.consume(len(SENT) - len(found), 1.0)
    consumer.close()
    return found


def test_a_batch_has_all_headers_that_are_text_and_says_where_others_are_missing(messages: list[Message]) -> None:
    assert (READ, LOST) == read_headers(messages)


def test_a_batch_without_such_a_header_says_so_with_none(messages: list[Message]) -> None:
    good = [message for row, message in enumerate(messages) if row not in LOST]
    assert ([READ[row] for row in range(len(READ)) if row not in LOST], None) == read_headers(good)


def test_a_message_may_be_asked_again_by_anybody(messages: list[Message]) -> None:
    """The client's own second answer has pairs without a name, and reading one ends the process."""
    for _ in range(2):
        assert [headers or [] for headers in READ] == [headers_of(message) for message in messages]
    assert READ == [message.headers() for message in messages]
    assert (READ, None) == read_headers(messages)


def test_a_changelog_with_such_records_is_read(stack: Stack, topic: str) -> None:

    changelog = KafkaChangelog(settings_of(stack), group="tests", source=topic, retrier=Retrier(threading.Event()))
    rows = [row for batch in changelog.read(topic, 0, 0, len(SENT)) for row in batch]
    changelog.close()
    assert [LogRow(offset, b"k", b"v", headers) for offset, headers in enumerate(READ)] == rows


def test_nothing_but_this_one_module_asks_a_message_for_its_headers() -> None:
    root = Path(__file__).parents[2]
    found = [
        path.relative_to(root).as_posix()
        for package in ("streams", "loadtest")
        for path in (root / package).rglob("*.py")
        if re.search(r"\.headers\(\)|Message\.headers", path.read_text())
    ]
    assert ["streams/kafka/headers.py"] == found
