"""Declared topics: created when missing, compared when there, never changed.

All topics of a pipeline have the same number of partitions, so that a key's rows live in the partition of the same
number in each of them; where they do not, that is drift. So is a configuration entry that differs from its
declaration, and a number of partitions that differs from the one asked for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from confluent_kafka import KafkaError
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but the stubs do not re-export them
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from streams.errors import StreamsError
from streams.kafka.admin import REQUEST_TIMEOUT_S, partition_counts, settled
from streams.operators.declaration import PARTITIONS_DEFAULT, Pipeline, Topic
from streams.retry import Backoff, Retrier, quietly
from streams.text import counted

REPLICATION_OF_BROKER: Final = -1
"""The broker's `default.replication.factor`."""
CREATED_WAIT_S: Final = 15.0
"""How long topics just created may take to be listed."""


class TopicStatus(StrEnum):
    """How a declared topic stands."""

    CREATED = "created"
    OK = "ok"
    DRIFT = "drift"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class TopicState:
    """A declared topic, the partitions it has (0: missing), and each difference from its declaration."""

    pipeline: str
    name: str
    status: TopicStatus
    partitions: int = 0
    drift: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Existing:
    partitions: int
    config: dict[str, str]


def apply_topics(
    client: AdminClient, pipelines: Sequence[Pipeline], *, partitions: int | None = None
) -> list[TopicState]:
    """Create the missing topics of `pipelines` and report how all of them stand. Running it again changes nothing.

    `partitions`: of topics to be created, and asserted of those that exist. None: what the pipeline's source topic has,
    or 3 where it does not exist either. The replication factor is the broker's default.

    Raises:
        StreamsError: the broker refuses or does not answer; topics created before that stay.

    """
    created: set[str] = set()
    for pipeline in pipelines:
        existing = _existing(client, [topic.name for topic in pipeline.topics()])
        count = partitions or _partitions_of(existing, pipeline) or PARTITIONS_DEFAULT
        missing = [topic for topic in pipeline.topics() if topic.name not in existing]
        _create(client, missing, count)
        created |= {topic.name for topic in missing}
    return [
        TopicState(state.pipeline, state.name, TopicStatus.CREATED, state.partitions)
        if state.name in created and not state.drift
        else state
        for state in list_topics(client, pipelines, partitions=partitions)
    ]


def list_topics(
    client: AdminClient, pipelines: Sequence[Pipeline], *, partitions: int | None = None
) -> list[TopicState]:
    """How the declared topics of `pipelines` stand, in the order of their declaration; changes nothing.

    Raises:
        StreamsError: the broker refuses or does not answer.

    """
    declared = [(pipeline, topic) for pipeline in pipelines for topic in pipeline.topics()]
    existing = _existing(client, [topic.name for _, topic in declared])
    return [_compared(pipeline, topic, existing, partitions) for pipeline, topic in declared]


def message_bytes_max(client: AdminClient, topic: str) -> int:
    """Largest message that a topic takes.

    Raises:
        StreamsError: no such topic, or no answer.

    """
    resource = ConfigResource(ResourceType.TOPIC, topic)
    found = client.describe_configs([resource], request_timeout=REQUEST_TIMEOUT_S)[resource]
    return int(settled(f"configuration of {topic}", found)["max.message.bytes"].value)


def _compared(pipeline: Pipeline, topic: Topic, existing: dict[str, _Existing], partitions: int | None) -> TopicState:
    found = existing.get(topic.name)
    if found is None:
        return TopicState(pipeline.name, topic.name, TopicStatus.MISSING)
    drift = []
    expected = _partitions_of(existing, pipeline)
    if partitions is not None and found.partitions != partitions:
        drift.append(f"has {counted(found.partitions, 'partition')}, asked for {partitions}")
    elif expected is not None and found.partitions != expected:
        drift.append(f"has {counted(found.partitions, 'partition')}, {pipeline.source} has {expected}")
    for name, value in topic.config().items():
        actual = found.config.get(name)
        if actual != value:
            drift.append(f"{name} is {actual}, declared is {value}")
    status = TopicStatus.DRIFT if drift else TopicStatus.OK
    return TopicState(pipeline.name, topic.name, status, found.partitions, tuple(drift))


def _partitions_of(existing: dict[str, _Existing], pipeline: Pipeline) -> int | None:
    """Partitions that the topics of a pipeline should have: the source's, else those of its first existing topic."""
    return next((existing[topic.name].partitions for topic in pipeline.topics() if topic.name in existing), None)


def _existing(client: AdminClient, names: Iterable[str]) -> dict[str, _Existing]:
    there = partition_counts(client)
    found = [name for name in names if name in there]
    if not found:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in found]
    configs = client.describe_configs(resources, request_timeout=REQUEST_TIMEOUT_S)
    return {
        resource.name: _Existing(
            there[resource.name],
            {name: entry.value for name, entry in settled(f"configuration of {resource.name}", future).items()},
        )
        for resource, future in configs.items()
    }


def _create(client: AdminClient, topics: Sequence[Topic], partitions: int) -> None:
    if not topics:
        return
    new = [NewTopic(topic.name, partitions, REPLICATION_OF_BROKER, config=topic.config()) for topic in topics]
    for name, future in client.create_topics(new, request_timeout=REQUEST_TIMEOUT_S).items():
        settled(f"creating topic {name}", future, fine=(KafkaError.TOPIC_ALREADY_EXISTS,))
    _await_created(client, {topic.name for topic in topics})


def _await_created(client: AdminClient, names: set[str]) -> None:
    """Creation is acknowledged by the controller; brokers learn of it a moment later."""

    def ask() -> None:
        if missing := names - partition_counts(client).keys():
            raise _NotListed(f"topic {min(missing)} was created, but the broker does not list it: try again")

    Retrier(say=quietly).call(
        "waiting for new topics to be listed",
        ask,
        passing=_NotListed,
        backoff=Backoff(first_s=0.05, pause_s_max=0.5, give_up_s=CREATED_WAIT_S),
    )


class _NotListed(StreamsError):
    pass
