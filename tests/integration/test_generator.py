"""The generator as a process, on a real Kafka: what it says it sent is what is in the topic."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from confluent_kafka.admin import NewTopic

from loadtest.oracle.decode import Decoder, Record, newest_schema, registry_schemas
from loadtest.oracle.events import Event, Reject
from loadtest.oracle.read import TopicReader
from streams.kafka.admin import partition_counts, settled
from streams.kafka.partitioner import partition_of as partition_of_key
from streams.local.stack import Stack
from tests.integration.kafka_helpers import admin_of, delete_topics, fresh_topics, partition_of

pytestmark = pytest.mark.kafka

PARTITIONS = 4
TOPIC = "loadtest.generator"


@pytest.fixture(scope="module", autouse=True)
def _schemas(stack: Stack) -> None:
    fresh_topics(stack)


@pytest.fixture
def topic(stack: Stack) -> Iterator[str]:
    client = admin_of(stack)
    delete_topics(client, {TOPIC})
    settled("creating", client.create_topics([NewTopic(TOPIC, PARTITIONS)])[TOPIC])
    while partition_counts(client).get(TOPIC) != PARTITIONS:
        time.sleep(0.05)
    yield TOPIC
    delete_topics(client, {TOPIC})


def start(stack: Stack, *arguments: object) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "SCHEMA_REGISTRY_URL": stack.registry_url,
    }
    command = [sys.executable, "-m", "loadtest.generator", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], timeout_s: float = 90) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Lines of progress, and the last one."""
    out, said = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, said
    assert said == ""
    *progress, last = map(json.loads, out.splitlines())
    assert last["done"] is True
    return progress, last


def records_of(stack: Stack, topic: str) -> list[tuple[int, Record]]:
    """Partition and record of everything in the topic."""
    with closing(TopicReader(stack.bootstrap_servers)) as reader:
        return [
            (
                partition_of(each),
                Record(each.offset() or 0, each.timestamp()[1], each.key() or b"", each.value() or b""),
            )
            for each in reader.records(topic)
        ]


def test_what_the_generator_says_it_sent_is_in_the_topic(stack: Stack, topic: str) -> None:
    arguments = ("--topic", topic, "--events", 30_000, "--devices", 300, "--seed", 5, "--too-large", 0)
    _, said = finish(start(stack, *arguments))
    found = records_of(stack, topic)
    assert said["records"] == 30_000 == len(found)
    assert all(partition == partition_of_key(record.key or b"", PARTITIONS) for partition, record in found)
    decoder = Decoder(registry_schemas(stack.registry_url), newest_schema("gps.positions.v1-value"), Event)
    decoded = decoder.decode([record for _, record in found])
    undecodable = Counter(each.reason for each in decoded if isinstance(each, Reject))
    assert undecodable == {
        reason: count
        for reason, count in said["rejects"].items()
        if reason in {"not_framed", "unknown_schema", "malformed", "incompatible_schema"}
    }
    events = [event for event in decoded if isinstance(event, Event)]
    assert len(events) - len({event.identity for event in events}) == said["duplicates"]
    timestamps = [record.timestamp_ms for _, record in found]
    assert (min(timestamps), max(timestamps)) == (said["first_timestamp_ms"], said["last_timestamp_ms"])


def test_two_processes_share_devices_and_records(stack: Stack, topic: str) -> None:
    arguments = ("--topic", topic, "--events", 9_001, "--devices", 90, "--start-ms", int(time.time() * 1000) - 600_000)
    both = [start(stack, *arguments, "--index", index, "--of", 2) for index in range(2)]
    assert sum(finish(process)[1]["records"] for process in both) == 9_001 == len(records_of(stack, topic))


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_says_what_it_has_sent(stack: Stack, topic: str, told: signal.Signals) -> None:
    process = start(stack, "--pipeline", "orders", "--topic", topic, "--rate", 3_000)
    assert process.stdout is not None
    lines: list[dict[str, Any]] = []
    while not lines or lines[-1]["sent"] < 1_000:
        lines.append(json.loads(process.stdout.readline()))
    process.send_signal(told)
    _, said = finish(process)
    assert said["records"] == len(records_of(stack, topic)) > 1_000
    assert [line["sent"] for line in lines] == sorted(line["sent"] for line in lines)


def test_a_topic_that_does_not_exist_is_said_in_one_line_and_not_created(stack: Stack) -> None:
    process = start(stack, "--topic", "loadtest.nowhere", "--events", 5)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "there is no topic loadtest.nowhere" in said
    assert len(said.splitlines()) == 1
    assert "loadtest.nowhere" not in partition_counts(admin_of(stack))
