"""What integration tests need of a real Kafka: fresh declared topics, all visible records of a topic, the command."""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, cast

import fastavro
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from streams.batch.columns import Headers
from streams.flow.discover import select_pipelines
from streams.kafka.admin import partition_counts, settled
from streams.kafka.topics import apply_topics
from streams.local.kafka import Extension
from streams.local.stack import Stack
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from streams.schemas.registration import register_schemas
from streams.settings import Settings, load_settings
from tests.integration.forked import run_forked

QUICK_START: Final = Extension(java=("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"))
"""Of a broker for tests: a start and each restart cost half of the processor time. None is busy for so long that better
code would pay for being compiled."""


@dataclass(frozen=True, slots=True)
class Record:
    partition: int
    key: bytes
    value: bytes


def settings_of(stack: Stack) -> Settings:
    return load_settings(kafka_bootstrap_servers=stack.bootstrap_servers, schema_registry_url=stack.registry_url)


def admin_of(stack: Stack) -> AdminClient:
    return AdminClient({"bootstrap.servers": stack.bootstrap_servers})


def delete_topics(client: AdminClient, names: set[str]) -> None:
    there = names & partition_counts(client).keys()
    for name, future in client.delete_topics(sorted(there)).items() if there else ():
        settled(f"deleting {name}", future)
    deadline = time.monotonic() + 30
    while names & client.list_topics(timeout=10).topics.keys():
        assert time.monotonic() < deadline, "topics are not deleted"
        time.sleep(0.05)


def delete_subjects(client: SchemaRegistryClient, names: Iterable[str]) -> None:
    """Take subjects back for good, those that refer to others before these."""
    left = set(names)
    while left:
        gone = {name for name in left if _is_deleted(client, name)}
        assert gone, f"not deleted: {left}"
        left -= gone


def _is_deleted(client: SchemaRegistryClient, name: str) -> bool:
    try:
        client.delete_subject(name)
        client.delete_subject(name, permanent=True)  # else what it refers to counts as in use
    except SchemaRegistryError:
        return False
    return True


def fresh_topics(stack: Stack, partitions: int = 3, *, flows: Collection[str] | None = None) -> AdminClient:
    """Declared topics with as many partitions, and registered schemas; the topics of `flows` (None: all) are empty."""
    client = admin_of(stack)
    pipelines = select_pipelines(None)
    counts = partition_counts(client)
    stale = {
        topic.name
        for pipeline in pipelines
        for topic in (*pipeline.topics(), *pipeline.growth_topics())
        if flows is None
        or pipeline.name in flows
        or counts.get(topic.name) not in {None, topic.partitions or partitions}
    }
    delete_topics(client, stale)
    apply_topics(client, pipelines, partitions=partitions)
    register_schemas(Catalog.load(), Registry(settings_of(stack)))
    return client


def alter_topic(stack: Stack, topic: str, **config: str) -> None:
    """Set entries of a topic's configuration; names with underscores for dots."""
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    client = admin_of(stack)
    for future in client.incremental_alter_configs([resource]).values():
        settled(f"configuration of {topic}", future)


def recreate_topic(stack: Stack, topic: str, partitions: int) -> None:
    """An empty topic of this name, with another number of partitions."""
    client = admin_of(stack)
    delete_topics(client, {topic})
    for future in client.create_topics([NewTopic(topic, partitions, 1)]).values():
        settled(f"creating {topic}", future)
    deadline = time.monotonic() + 30
    while partition_counts(client).get(topic) != partitions:
        assert time.monotonic() < deadline, f"{topic} is not listed"
        time.sleep(0.05)


def committed_records(stack: Stack, topic: str, partitions: int = 3) -> list[Record]:
    """Every record that a read_committed consumer sees, each partition in log order.

    While records are being sent, too: then a consumer is never told that it has reached the end, and it is enough to
    reach what was the end a second after this began.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": stack.bootstrap_servers,
            "group.id": "tests-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found: list[Record] = []
    ended: set[int] = set()
    ends: dict[int, int] = {}
    deadline = time.monotonic() + 60
    while len(ended) < partitions:
        assert time.monotonic() < deadline, f"only partitions {ended} of {topic} could be read to their end"
        if not ends and time.monotonic() > deadline - 59:
            ends = {one: log_end_of(consumer, topic, one) for one in range(partitions)}
        for message in consumer.consume(10_000, 0.05):
            error = message.error()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                ended.add(partition_of(message))
            else:
                found.append(Record(partition_of(message), message.key() or b"", message.value() or b""))
                end = ends.get(found[-1].partition)
                if end is not None and (message.offset() or 0) >= end - 1:
                    ended.add(found[-1].partition)
    consumer.close()
    return found


def log_end_of(consumer: Consumer, topic: str, partition: int) -> int:
    """The offset after the last record; asked again where the broker has just come up."""
    for _ in range(100):
        with contextlib.suppress(KafkaException):
            return consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)[1]
        time.sleep(0.1)
    raise AssertionError(f"the broker does not tell the end of {topic}-{partition}")


def partition_of(message: Message) -> int:
    partition = message.partition()
    assert partition is not None
    return partition


def headers_of(message: Message) -> Headers:
    """Headers as they came: the client's own type says that they might be a dict, or text, which they never are."""
    return cast("Headers | None", message.headers()) or []


def log_end(stack: Stack, topic: str, partitions: int = 3) -> int:
    """Sum of the end offsets of a topic: it grows with every record, visible or not."""
    consumer = Consumer({"bootstrap.servers": stack.bootstrap_servers, "group.id": "tests-reader"})
    ends = [consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)[1] for partition in range(partitions)]
    consumer.close()
    return sum(ends)


def decoded(records: list[Record], subject: str) -> list[dict[str, Any]]:
    """Events inside framed records, by fastavro; times in milliseconds."""
    return [decoded_value(record.value, subject) for record in records]


def decoded_value(value: bytes, subject: str) -> dict[str, Any]:
    """The event or row inside a framed value."""
    found = fastavro.schemaless_reader(io.BytesIO(value[5:]), _parsed(subject), None)
    assert isinstance(found, dict)
    return found


@cache
def _parsed(subject: str) -> Any:
    return fastavro.parse_schema(_plain(json.loads(Catalog.load().latest(subject).text)))


def _plain(kind: Any) -> Any:
    """The schema without logical types."""
    if isinstance(kind, list):
        return [_plain(each) for each in kind]
    if isinstance(kind, dict):
        return {name: _plain(each) for name, each in kind.items() if name != "logicalType"}
    return kind


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "streams", *map(str, arguments)]


def run(stack: Stack, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command against the stack; its exit status is the caller's to check."""
    return run_forked([*map(str, arguments)], {**os.environ, **stack.environment(), **environment})


def start(stack: Stack, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        env={**os.environ, **stack.environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
