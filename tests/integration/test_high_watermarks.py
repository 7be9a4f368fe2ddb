"""Ends of partitions that are added while a worker runs."""

import time

import pytest
from confluent_kafka.admin import NewPartitions

from streams.clock import monotonic_ms
from streams.kafka.group_positions import GroupPositions
from streams.local.stack import Stack
from streams.sources.kafka.high_watermarks import HighWatermarks
from tests.integration.kafka_helpers import admin_of, delete_topics, recreate_topic, settings_of
from tests.integration.workers import wait_until

pytestmark = pytest.mark.kafka

TOPIC = "tests.high-watermarks"


def test_partitions_that_come_later_are_answered_too(stack: Stack) -> None:
    """A client that knows the topic from before answers that there are none, for a minute or more."""
    client = admin_of(stack)
    recreate_topic(stack, TOPIC, 2)
    high = HighWatermarks(settings_of(stack), topics=[TOPIC], client_id="test")

    def is_answered(partitions: list[int]) -> bool:
        high.ask(partitions, monotonic_ms())
        time.sleep(0.1)
        found = [answer for answer, _ in high.answers()]
        return any(answer.keys() >= set(partitions) for answer in found)

    wait_until(lambda: is_answered([0, 1]), "both are answered")
    client.create_partitions([NewPartitions(TOPIC, 4)])[TOPIC].result(30)
    wait_until(lambda: is_answered([2]) and is_answered([3]), "the new ones are answered", timeout_s=30)
    wait_until(lambda: is_answered([0, 1, 2, 3]), "all in one question")
    high.close()
    delete_topics(client, {TOPIC})


def test_positions_of_a_group_know_partitions_that_come_later(stack: Stack) -> None:
    client = admin_of(stack)
    recreate_topic(stack, TOPIC, 2)
    positions = GroupPositions(settings_of(stack), group="tests.high-watermarks", topics=[TOPIC])
    assert positions.ends([3, 0, 1]) == {0: 0, 1: 0}
    client.create_partitions([NewPartitions(TOPIC, 4)])[TOPIC].result(30)
    wait_until(lambda: positions.ends([0, 1, 3]).keys() == {0, 1, 3}, "the new one has an end", timeout_s=30)
    positions.close()
    delete_topics(client, {TOPIC})
