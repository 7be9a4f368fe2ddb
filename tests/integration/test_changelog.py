"""The reader of changelogs on a real broker."""

import logging

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from streams.kafka.admin import settled
from streams.kafka.changelog import KafkaChangelog
from streams.local.stack import Stack
from streams.resilience.retry import Retrier
from tests.integration.kafka_helpers import admin_of, delete_topics, settings_of

pytestmark = pytest.mark.kafka

TOPICS = ("tests.changelog.a", "tests.changelog.b", "tests.changelog.c")
RECORDS = 5
ASKED_LATE = "refresh unavailable topics"
"""What the client says of a topic whose leader it asks for once in a second."""


def test_no_topic_is_waited_for_that_the_reader_has_not_read_before(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    """Each further topic of a restore cost a second: the client asks where a new one is when its timer runs."""
    admin = admin_of(stack)
    delete_topics(admin, {*TOPICS})
    for topic, future in admin.create_topics([NewTopic(topic, 1, 1) for topic in TOPICS]).items():
        settled(topic, future)
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "enable.idempotence": True})
    for topic in TOPICS:
        for number in range(RECORDS):
            producer.produce(topic, b"%d" % number, b"k")
    assert 0 == producer.flush(30)
    changelog = KafkaChangelog(settings_of(stack), group="tests.changelog", source=TOPICS[0], retrier=Retrier())
    changelog._config["debug"] = "metadata"
    with caplog.at_level(logging.DEBUG, logger="librdkafka"):
        for topic in (*TOPICS, TOPICS[0]):
            rows = [row.value for batch in changelog.read(topic, 0, 0, RECORDS) for row in batch]
            assert [b"%d" % number for number in range(RECORDS)] == rows
            changelog._reader.poll(0)  # type: ignore[union-attr]  # the client's log lines come with a call
    changelog.close()
    delete_topics(admin, {*TOPICS})
    said = [record.getMessage() for record in caplog.records]
    assert any("Received metadata" in line for line in said), "the client says what it asks for"
    assert [] == [line for line in said if ASKED_LATE in line]


def test_a_read_ends_where_it_was_told_to_although_the_log_goes_on(stack: Stack) -> None:
    """A standby reads up to an offset while the owner of the partition goes on writing."""
    admin, topic = admin_of(stack), TOPICS[0]
    delete_topics(admin, {topic})
    settled(topic, admin.create_topics([NewTopic(topic, 1, 1)])[topic])
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "enable.idempotence": True})
    for number in range(RECORDS):
        producer.produce(topic, b"%d" % number, b"k")
    assert 0 == producer.flush(30)
    changelog = KafkaChangelog(settings_of(stack), group="tests.changelog", source=topic, retrier=Retrier())
    offsets = [row.offset for batch in changelog.read(topic, 0, 1, 3) for row in batch]
    changelog.close()
    delete_topics(admin, {topic})
    assert [1, 2] == offsets
