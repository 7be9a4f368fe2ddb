"""The cluster under a load test: a stack of its own, or one that is there already; and the topics of each point."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource

from loadtest.prepare import prepare_pipeline
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.flow.discover import select_pipelines
from streams.kafka.admin import admin_client, described, partition_counts, settled, wait_for_broker
from streams.local.stack import running_stack
from streams.settings import Settings, load_settings

_DELETE_S_MAX: Final = 30.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """The Kafka cluster and the registry that a load test uses."""

    settings: Settings
    broker_pid: int | None
    """None: the broker is not a process of this load test."""


@contextmanager
def cluster(directory: Path, *, use_running: bool) -> Iterator[Cluster]:
    """A stack of our own in `directory`, or the cluster that the environment names."""
    if use_running:
        yield Cluster(load_settings(), None)
        return
    with running_stack(directory) as stack:
        settings = load_settings(
            kafka_bootstrap_servers=stack.bootstrap_servers, schema_registry_url=stack.registry_url
        )
        yield Cluster(settings, stack.kafka_pid)


def broker_configuration(settings: Settings) -> dict[str, str]:
    """What a broker says of its configuration where it is not the default; what is secret is left out.

    Raises:
        StreamsError: the cluster does not answer.

    """
    client = wait_for_broker(settings)
    broker = min(client.list_topics(timeout=_DELETE_S_MAX).brokers)
    resource = ConfigResource(ConfigResource.Type.BROKER, str(broker))
    entries = settled("asking for the broker's configuration", client.describe_configs([resource])[resource])
    return {
        name: str(entry.value)
        for name, entry in sorted(entries.items())
        if not entry.is_default and not entry.is_sensitive and entry.value
    }


@contextmanager
def fresh_topics(
    settings: Settings, name: str, prefix: str, partitions: int, *, keep: bool
) -> Iterator[tuple[Settings, Pipeline]]:
    """Topics of a flow that begin with `prefix`, deleted afterwards unless they are to be kept.

    Raises:
        StreamsError: there is such a topic already, or the cluster does not answer.

    """
    ours = settings.model_copy(update={"streams_topic_prefix": prefix})
    (pipeline,) = select_pipelines([name], prefix=prefix)
    client = wait_for_broker(settings)
    names = [topic.name for topic in (*pipeline.topics(), *pipeline.growth_topics())]
    there = sorted(set(names) & partition_counts(client).keys())
    if there:
        raise StreamsError(f"the topic {there[0]} is there already, and not of this load test: choose another --name")
    prepare_pipeline(ours, name, partitions)
    try:
        yield ours, pipeline
    finally:
        if not keep:
            _delete(settings, names, pipeline.group)


def _delete(settings: Settings, names: list[str], group: str) -> None:
    client = admin_client(settings)
    deadline = time.monotonic() + _DELETE_S_MAX
    wanted = set(names)
    for topic, future in client.delete_topics(names, operation_timeout=_DELETE_S_MAX).items():
        try:
            future.result(_DELETE_S_MAX)
        except KafkaException as error:
            print(f"loadtest: {topic} could not be deleted: {described(error)}")
            wanted.discard(topic)
    for future in client.delete_consumer_groups([group], request_timeout=_DELETE_S_MAX).values():
        try:
            future.result(_DELETE_S_MAX)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:  # else no worker has consumed
                print(f"loadtest: group {group} could not be deleted: {described(error)}")
    while wanted & partition_counts(client).keys() and time.monotonic() < deadline:
        time.sleep(0.1)
