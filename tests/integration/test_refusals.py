"""What an output topic of the real broker refuses: found by the producer, record by record, and by the whole worker."""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer

from logistics.flows.gps import GPS
from streams.local.stack import Stack
from streams.resilience.retry import Retrier
from streams.sinks.base import Committed, CycleAborted, OutputRefused, Refused, one_record
from streams.sinks.kafka.transactions import KafkaTransactions
from tests.integration.kafka_helpers import alter_topic, fresh_topics, settings_of
from tests.integration.workers import PARTITIONS, read

pytestmark = pytest.mark.kafka

GROUP = "tests.refusals"
RUNS_MAX = 40
DAY_MS = 86_400_000


def now_ms() -> int:
    return int(time.time() * 1000)


# --- the producer -----------------------------------------------------------------------------------------------------


class Member(KafkaTransactions):
    """A transactional producer of a group without members."""

    membership: object


@pytest.fixture
def transactions(stack: Stack) -> Iterator[Member]:
    fresh_topics(stack, PARTITIONS, flows=[GPS.name])
    consumer = Consumer({"bootstrap.servers": stack.bootstrap_servers, "group.id": GROUP})
    made = Member(settings_of(stack), transactional_id="tests.refusals", source=GPS.source, retrier=Retrier())
    made.membership = consumer.consumer_group_metadata()
    made.reopen()
    yield made
    made.close()
    consumer.close()


def run_until_found(
    transactions: Member, rows: list[tuple[str, bytes | None, bytes, int, int | None]]
) -> tuple[list[Refused], int]:
    """Send `rows` (topic, key, value, timestamp, partition) in cycles, without what is refused, until one is committed.

    Returns all that was refused, and the number of cycles.
    """
    refused: list[Refused] = []
    for number in range(1, RUNS_MAX):
        out = {(each.topic, each.key, each.value) for each in refused}
        sent = [row for row in rows if row[:3] not in out]
        try:
            transactions.begin()
            for topic, key, value, timestamp, partition in sent:
                transactions.produce(one_record(topic, key, value, timestamp, partition=partition, origin=2))
            transactions.send_offsets({0: Committed(number, number)}, transactions.membership)
            transactions.commit()
        except OutputRefused as error:
            refused += error.refused
            transactions.abort()
        except CycleAborted:
            transactions.abort()
        else:
            return refused, number
    raise AssertionError(f"not committed within {RUNS_MAX} cycles; refused: {refused}")


def rows_to(topic: str, count: int) -> list[Any]:
    return [(topic, b"key-%d" % number, b"value-%d" % number, now_ms(), None) for number in range(count)]


def test_one_timestamp_that_the_broker_refuses_is_found_among_thousands(stack: Stack, transactions: Member) -> None:
    rows = rows_to(GPS.late, 5_000)
    rows[3_456] = (GPS.late, b"key", b"from the future", now_ms() + 10 * DAY_MS, None)

    refused, _ = run_until_found(transactions, rows)

    assert [(GPS.late, b"from the future", 2)] == [(each.topic, each.value, each.partition) for each in refused]
    assert "Invalid timestamp" in refused[0].why
    assert 4_999 == len(read(stack, GPS.late))


def test_several_in_one_batch_are_all_found(stack: Stack, transactions: Member) -> None:
    rows = rows_to(GPS.late, 500)
    bad = [7, 8, 300]
    for number in bad:
        rows[number] = (*rows[number][:3], now_ms() + 10 * DAY_MS, None)

    refused, _ = run_until_found(transactions, rows)

    assert {rows[number][2] for number in bad} == {each.value for each in refused}
    assert 497 == len(read(stack, GPS.late))


def test_a_record_too_large_for_its_topic_is_found_and_small_ones_share_no_blame(
    stack: Stack, transactions: Member
) -> None:
    table = GPS.tables[0].topic
    rows = rows_to(table, 1_500)
    rows[1_000] = (table, os.urandom(1_100_000), b"row", now_ms(), 0)

    refused, _ = run_until_found(transactions, rows)

    assert [rows[1_000][1]] == [each.key for each in refused]
    assert 1_499 == len(read(stack, table))


def test_a_topic_with_a_small_limit_gets_small_batches_and_loses_nothing(stack: Stack, transactions: Member) -> None:
    alter_topic(stack, GPS.late, max_message_bytes="5000")
    rows: list[tuple[str, bytes | None, bytes, int, int | None]] = [
        (GPS.late, b"key", os.urandom(100), now_ms(), None) for _ in range(3_000)
    ]

    refused, _ = run_until_found(transactions, rows)

    assert [] == refused
    assert 3_000 == len(read(stack, GPS.late))


def test_a_partition_that_an_output_does_not_have_is_named_at_once(stack: Stack, transactions: Member) -> None:
    rows = rows_to(GPS.dlq, 100)
    rows[50] = (GPS.dlq, None, b"of partition 7", now_ms(), 7)

    refused, runs = run_until_found(transactions, rows)

    assert [b"of partition 7"] == [each.value for each in refused]
    assert runs <= 3
    assert 99 == len(read(stack, GPS.dlq))
