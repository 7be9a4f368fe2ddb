import json
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from logistics.flows.gps import GPS
from streams.flow.declaration import Pipeline
from streams.flow.discover import select_pipelines
from streams.kafka.admin import partition_counts, settled
from streams.kafka.partitioner import PARTITIONER
from streams.kafka.partitioner import partition_of as partition_of_key
from streams.kafka.topics import TopicStatus, apply_topics, list_topics
from streams.local.stack import Stack
from streams.schemas.catalog import schemas_dir
from streams.schemas.client import Registry, RegistryUnavailable, UnknownSchema, wait_for_registry
from streams.settings import load_settings
from tests.integration.kafka_helpers import alter_topic, delete_topics, fresh_topics, partition_of, run, settings_of
from tests.integration.workers import wait_until

pytestmark = pytest.mark.kafka

SOURCE = GPS.source


def test_apply_creates_what_is_declared_and_applied_again_changes_nothing(stack: Stack) -> None:
    client = fresh_topics(stack)
    flows = select_pipelines(None)
    delete_topics(client, {topic.name for flow in flows for topic in (*flow.topics(), *flow.growth_topics())})
    listed = run(stack, "topics", "list", "--format", "json")
    assert listed.returncode == 100
    assert {"missing"} == {row["status"] for row in json.loads(listed.stdout)}
    first = run(stack, "topics", "apply", "--format", "json")
    assert first.returncode == 0, first.stderr
    assert counted(first.stdout, flows) == {("created", 3, False), ("created", 1, True)}
    second = run(stack, "topics", "apply", "--format", "json")
    assert second.returncode == 0, second.stderr
    assert counted(second.stdout, flows) == {("ok", 3, False), ("ok", 1, True)}
    assert {"unchanged"} == {row["status"] for row in json.loads(second.stdout)["schemas"]}
    ids = [row["id"] for row in json.loads(first.stdout)["schemas"]]
    assert ids == [row["id"] for row in json.loads(second.stdout)["schemas"]]
    assert run(stack, "topics", "list").returncode == 0


def counted(printed: str, flows: Sequence[Pipeline]) -> set[tuple[str, int, bool]]:
    """State and partitions of the topics, and whether it is one that tells of growths."""
    growth = {flow.growth for flow in flows}
    return {(row["status"], row["partitions"], row["topic"] in growth) for row in json.loads(printed)["topics"]}


def test_another_number_of_partitions_is_reported_and_not_changed(stack: Stack) -> None:
    client = fresh_topics(stack)
    result = run(stack, "topics", "apply", "--partitions", "6")
    assert result.returncode == 100
    assert f"{SOURCE}            " in result.stdout
    assert "has 3 partitions, asked for 6" in result.stdout
    assert f"use `streams topics grow {SOURCE} --partitions 6`" in result.stdout
    assert "missing or differ" in result.stderr
    assert partition_counts(client)[SOURCE] == 3


def test_replicas_are_created_as_asked_for_and_what_has_others_is_named(stack: Stack) -> None:
    client = fresh_topics(stack)
    delete_topics(client, {GPS.late})
    made = run(
        stack,
        "topics",
        "apply",
        "--replication-factor",
        "1",
        "--min-insync",
        "1",
        "--format",
        "json",
        STREAMS_LOG_FORMAT="json",
    )
    assert made.returncode == 0, made.stderr
    rows = {row["topic"]: row for row in json.loads(made.stdout)["topics"]}
    assert ("created", 1, 1) == tuple(rows[GPS.late][name] for name in ("status", "replicas", "min_insync"))
    config = client.describe_configs([ConfigResource(ResourceType.TOPIC, GPS.late)])
    (entries,) = [settled("configuration", future) for future in config.values()]
    assert "1" == entries["min.insync.replicas"].value
    assert ConfigSource.DYNAMIC_TOPIC_CONFIG.value == entries["min.insync.replicas"].source, "set, not the default"

    other = run(stack, "topics", "apply", "--replication-factor", "3", "--min-insync", "2", "--format", "json")
    assert other.returncode == 100
    drift = {row["topic"]: row["drift"] for row in json.loads(other.stdout)["topics"]}
    asked = ["replication factor is 1, asked for 3", "min.insync.replicas is 1, asked for 2"]
    assert dict.fromkeys(drift, asked) == drift

    alter_topic(stack, GPS.clean, min_insync_replicas="2")
    (found,) = [state for state in list_topics(client, [GPS]) if state.status is TopicStatus.DRIFT]
    assert (GPS.clean, ("min.insync.replicas is 2 with a replication factor of 1: it cannot be written",)) == (
        found.name, found.drift,
    )  # fmt: skip


def test_more_in_sync_than_there_are_is_refused_before_anything_is_asked(stack: Stack) -> None:
    result = run(
        stack,
        "topics",
        "apply",
        "--replication-factor",
        "2",
        "--min-insync",
        "3",
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1",
    )
    assert (2, 1) == (result.returncode, result.stderr.count("\n"))
    assert "3 replicas cannot be in sync where there are 2" in result.stderr


def test_more_replicas_than_brokers_are_refused_in_a_line(stack: Stack) -> None:
    client = fresh_topics(stack)
    delete_topics(client, {GPS.late})
    result = run(stack, "topics", "apply", "--replication-factor", "3")
    assert (1, 1) == (result.returncode, result.stderr.count("\n"))
    assert f"creating topic {GPS.late}: " in result.stderr
    assert "replication" in result.stderr.lower()


def test_the_list_shows_replicas_and_for_how_long_records_are_kept(stack: Stack) -> None:
    fresh_topics(stack)
    alter_topic(stack, GPS.late, retention_bytes=str(512 << 20))
    lines = run(stack, "topics", "list").stdout.splitlines()
    kept = {line.split()[0]: line for line in lines}
    assert ["topic", "partitions", "replicas", "in", "sync", "kept", "state"] == lines[0].split()
    assert re.fullmatch(rf"{GPS.source} +3 +1 +>=1  7 d +ok", kept[GPS.source])
    assert "30 d" in kept[GPS.dlq]
    assert "for good" in kept[GPS.journal]
    assert "last per key" in kept[GPS.tables[0].topic]
    assert "7 d, 512 MiB a partition" in kept[GPS.late]
    rows = {row["topic"]: row for row in json.loads(run(stack, "topics", "list", "--format", "json").stdout)}
    wanted = ("replicas", "min_insync", "retention_ms", "retention_bytes", "compacted")
    assert (1, 1, 7 * 86_400_000, None, False) == tuple(rows[GPS.source][name] for name in wanted)
    assert (1, 1, None, None, True) == tuple(rows[GPS.tables[0].topic][name] for name in wanted)


def test_partitions_added_to_the_source_alone_are_named_where_none_must_be_added(stack: Stack) -> None:
    client = fresh_topics(stack)
    settled("growing", client.create_partitions([NewPartitions(SOURCE, 6)])[SOURCE])
    wait_until(lambda: partition_counts(client).get(SOURCE) == 6, "the source has grown")
    drift = {state.name: "; ".join(state.drift) for state in apply_topics(client, [GPS])}
    for topic in GPS.changelogs:
        assert f"has 3 partitions, {SOURCE} has 6; do not add any here" in drift[topic]
    assert f"has 3 partitions, {SOURCE} has 6" == drift[GPS.clean]


def test_topics_that_are_not_co_partitioned_are_reported(stack: Stack) -> None:
    client = fresh_topics(stack)
    settled("growing", client.create_partitions([NewPartitions(GPS.clean, 6)])[GPS.clean])
    (found,) = [state for state in apply_topics(client, [GPS]) if state.status is TopicStatus.DRIFT]
    assert found.name == GPS.clean
    assert found.drift == (f"has 6 partitions, {SOURCE} has 3",)


def test_a_changed_configuration_is_reported_and_not_changed(stack: Stack) -> None:
    client = fresh_topics(stack)
    entry = ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, GPS.journal, incremental_configs=[entry])
    settled("altering", client.incremental_alter_configs([resource])[resource])
    for act in (apply_topics, list_topics):
        (found,) = [state for state in act(client, [GPS]) if state.status is TopicStatus.DRIFT]
        assert found.name == GPS.journal
        assert found.drift == ("retention.ms is 1000, declared is -1",)


def test_a_missing_topic_gets_as_many_partitions_as_the_source_has(stack: Stack) -> None:
    client = fresh_topics(stack, partitions=5)
    delete_topics(client, {GPS.late})
    states = apply_topics(client, [GPS])
    assert {5} == {state.partitions for state in states if state.name != GPS.growth}
    assert [GPS.late] == [state.name for state in states if state.status is TopicStatus.CREATED]


def test_a_refused_schema_is_reported_with_the_reason_and_later_versions_are_not_tried(
    stack: Stack, tmp_path: Path
) -> None:
    schemas = tmp_path / "schemas"
    shutil.copytree(schemas_dir(), schemas)
    subject = "tests.refused.v1-value"
    (schemas / GPS.subject).rename(schemas / subject)
    said = schemas / "subjects.toml"
    said.write_text(said.read_text(encoding="utf-8").replace(GPS.subject, subject), encoding="utf-8")
    schema = json.loads((schemas / subject / "2.avsc").read_text(encoding="utf-8"))
    schema["fields"].append({"name": "fuel_l", "type": "double"})
    (schemas / subject / "3.avsc").write_text(json.dumps(schema), encoding="utf-8")
    schema["fields"][-1]["default"] = 0.0
    (schemas / subject / "4.avsc").write_text(json.dumps(schema), encoding="utf-8")
    preview = run(stack, "schemas", "register", subject, "--dry-run", STREAMS_SCHEMAS_DIR=str(schemas))
    assert (preview.returncode, preview.stdout.count("would register")) == (100, 2)
    assert "fuel_l: added without a default" in preview.stdout
    registry = Registry(settings_of(stack))
    assert registry.versions(subject) == []
    result = run(stack, "schemas", "register", subject, "--format", "json", STREAMS_SCHEMAS_DIR=str(schemas))
    assert result.returncode == 100
    assert f"{subject} version 3" in result.stderr
    rows = json.loads(result.stdout)
    assert [row["status"] for row in rows] == ["registered", "registered", "incompatible"]
    assert "fuel_l" in rows[2]["reasons"][0]
    assert registry.versions(subject) == [1, 2]
    assert registry.compatibility(subject) == "BACKWARD_TRANSITIVE"
    assert registry.check(subject, (schemas / subject / "3.avsc").read_text(encoding="utf-8"))
    assert registry.check(subject, (schemas / subject / "4.avsc").read_text(encoding="utf-8")) == []


def test_an_unknown_schema_is_told_from_a_registry_that_does_not_answer(stack: Stack) -> None:
    fresh_topics(stack)
    registry = Registry(settings_of(stack))
    wait_for_registry(registry, timeout_s=5)
    with pytest.raises(UnknownSchema, match="no schema with id 2147483647"):
        registry.schema_by_id(2**31 - 1)
    for url in (
        "http://user:secret@127.0.0.1:1/x",
        stack.registry_url + "/nowhere",
        f"http://{stack.bootstrap_servers}",
    ):
        broken = Registry(load_settings(schema_registry_url=url), timeout_s=1)
        with pytest.raises(
            RegistryUnavailable, match=r"no (usable )?answer from the schema registry at http://127"
        ) as raised:
            broken.schema_by_id(2**31 - 1)
        assert "secret" not in str(raised.value)


def test_our_partitioner_agrees_with_librdkafka(stack: Stack) -> None:
    client = fresh_topics(stack)
    topic = "tests.partitioner"
    delete_topics(client, {topic})
    settled("creating", client.create_topics([NewTopic(topic, 12, 1)])[topic])
    seeded = random.Random(8123)
    landed: dict[bytes, int] = {}
    producer = Producer(
        {"bootstrap.servers": stack.bootstrap_servers, "partitioner": PARTITIONER, "enable.idempotence": True}
    )

    def lands(error: object, sent: Message) -> None:
        landed[sent.key() or b""] = partition_of(sent)

    for _ in range(3000):
        key = seeded.randbytes(seeded.randint(1, 40))
        producer.produce(topic, b"", key, on_delivery=lands)
    producer.flush(30)
    assert len(landed) > 2900
    assert {key: partition_of_key(key, 12) for key in landed} == landed


@pytest.mark.slow  # in short: test_outages, a worker; every command waits for ten seconds
def test_a_broker_that_does_not_answer_is_one_clear_line(stack: Stack) -> None:
    result = run(stack, "topics", "list", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "no Kafka broker answers at 127.0.0.1:1" in result.stderr
    assert "streams local up" in result.stderr
