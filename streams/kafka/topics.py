"""Creates declared topics that are missing, and compares the others with their declaration. It changes none.

All topics of a flow have the same number of partitions, so that a key's rows live in the partition of the same
number in each of them; where they do not, that is drift. So is a configuration entry that differs from its
declaration, whatever differs from what was asked for (`Wanted`), partitions of one topic with different numbers of
replicas, and a topic that cannot be written with acks=all since it has fewer replicas than must be in sync.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from confluent_kafka import KafkaError
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from streams.acls.rights import Operation, on_topic
from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.flow.topics import PARTITIONS_DEFAULT, Topic
from streams.kafka import acls
from streams.kafka.admin import REQUEST_TIMEOUT_S, partition_counts, replica_counts, settled
from streams.resilience.retry import Backoff, Retrier, quietly
from streams.text import counted

REPLICATION_OF_BROKER: Final = -1
"""The broker's `default.replication.factor`."""
CREATED_WAIT_S: Final = 15.0
"""How long topics just created may take to be listed."""
MIN_INSYNC: Final = "min.insync.replicas"
RETENTION_MS: Final = "retention.ms"
RETENTION_BYTES: Final = "retention.bytes"
CLEANUP: Final = "cleanup.policy"
_LOOKING: Final = (Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS)


class TopicStatus(StrEnum):
    """State of a declared topic."""

    CREATED = "created"
    OK = "ok"
    DRIFT = "drift"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Properties wanted for all topics: given to new ones, compared with existing ones. None: no preference.

    Without it a new topic has as many partitions as its flow's source, 3 where there is none yet, and the broker's
    defaults of replicas.
    """

    partitions: int | None = None
    replicas: int | None = None
    min_insync: int | None = None
    """Replicas that must have a record before it counts as written (acks=all)."""

    def __post_init__(self) -> None:
        if self.replicas is not None and self.min_insync is not None and self.min_insync > self.replicas:
            raise UsageError(
                f"{self.min_insync} replicas cannot be in sync where there are {self.replicas}: nothing can be written"
            )


@dataclass(frozen=True, slots=True)
class TopicState:
    """A declared topic as it is (0 partitions: missing), and each difference from its declaration."""

    pipeline: str
    name: str
    status: TopicStatus
    partitions: int = 0
    drift: tuple[str, ...] = ()
    replicas: int = 0
    """Replicas of the partition with the fewest."""
    min_insync: int = 0
    retention_ms: int | None = None
    """None: records are not deleted by age."""
    retention_bytes: int | None = None
    """Bytes that a partition keeps; None: records are not deleted by size."""
    is_compacted: bool = False


@dataclass(frozen=True, slots=True)
class _Existing:
    partitions: int
    replicas: tuple[int, ...]
    """Numbers of replicas that partitions have, each once, the smallest first."""
    config: dict[str, str]

    @property
    def min_insync(self) -> int:
        return int(self.config.get(MIN_INSYNC, 1))

    @property
    def is_compacted(self) -> bool:
        return "compact" in self.config.get(CLEANUP, "")

    def limit(self, name: str) -> int | None:
        """A limit of retention, if there is one and the topic deletes records by it."""
        found = int(self.config.get(name, -1))
        return found if found >= 0 and "delete" in self.config.get(CLEANUP, "") else None


def apply_topics(
    client: AdminClient, pipelines: Sequence[Pipeline], *, partitions: int | None = None, wanted: Wanted | None = None
) -> list[TopicState]:
    """Create the missing topics of `pipelines` and report the state of all. Running it again changes nothing.

    `partitions`: short for `Wanted(partitions)`.

    Raises:
        StreamsError: the broker refuses or does not answer; topics created before that stay.

    """
    wanted = wanted or Wanted(partitions)
    created: set[str] = set()
    for pipeline in pipelines:
        existing = _existing(client, [topic.name for topic in _declared(pipeline)])
        count = wanted.partitions or _partitions_of(existing, pipeline) or PARTITIONS_DEFAULT
        missing = [topic for topic in _declared(pipeline) if topic.name not in existing]
        _create(client, missing, count, wanted)
        created |= {topic.name for topic in missing}
    return [
        replace(state, status=TopicStatus.CREATED) if state.name in created and not state.drift else state
        for state in list_topics(client, pipelines, wanted=wanted)
    ]


def list_topics(
    client: AdminClient, pipelines: Sequence[Pipeline], *, wanted: Wanted | None = None
) -> list[TopicState]:
    """State of the declared topics of `pipelines`, in the order of their declaration; changes nothing.

    Raises:
        StreamsError: the broker refuses or does not answer.

    """
    declared = [(pipeline, topic) for pipeline in pipelines for topic in _declared(pipeline)]
    existing = _existing(client, [topic.name for _, topic in declared])
    return [_compared(pipeline, topic, existing, wanted or Wanted()) for pipeline, topic in declared]


def message_bytes_max(client: AdminClient, topic: str) -> int:
    """Largest message that a topic accepts.

    Raises:
        StreamsError: no such topic, or no answer.

    """
    resource = ConfigResource(ResourceType.TOPIC, topic)
    found = client.describe_configs([resource], request_timeout=REQUEST_TIMEOUT_S)[resource]
    return int(settled(f"configuration of {topic}", found)["max.message.bytes"].value)


def create_topic(client: AdminClient, topic: Topic, *, partitions: int) -> None:
    """Create a topic that is created only when needed, and wait until it is listed; an existing one is left unchanged.

    Raises:
        StreamsError: the broker refuses or does not answer.

    """
    if topic.name not in partition_counts(client):
        _create(client, [topic], partitions, Wanted())


def _declared(pipeline: Pipeline) -> tuple[Topic, ...]:
    return (*pipeline.topics(), *pipeline.growth_topics(), *pipeline.sink_topics())


def _compared(pipeline: Pipeline, topic: Topic, existing: dict[str, _Existing], wanted: Wanted) -> TopicState:
    found = existing.get(topic.name)
    if found is None:
        return TopicState(pipeline.name, topic.name, TopicStatus.MISSING)
    drift = []
    expected = topic.partitions or _partitions_of(existing, pipeline)
    if topic.partitions is not None:
        if found.partitions != topic.partitions:
            drift.append(f"has {counted(found.partitions, 'partition')}, declared is {topic.partitions}")
    elif wanted.partitions is not None and found.partitions != wanted.partitions:
        drift.append(f"has {counted(found.partitions, 'partition')}, asked for {wanted.partitions}")
        if topic.name == pipeline.source and found.partitions < wanted.partitions:
            drift.append(f"use `streams topics grow {topic.name} --partitions {wanted.partitions}`")
    elif expected is not None and found.partitions != expected:
        drift.append(f"has {counted(found.partitions, 'partition')}, {pipeline.source} has {expected}")
        if found.partitions < expected and topic.name in pipeline.changelogs:
            drift.append("do not add any here, its state is in these (runbook partitions-not-consumed)")
    for name, value in topic.config().items():
        actual = found.config.get(name)
        if actual != value:
            drift.append(f"{name} is {actual}, declared is {value}")
    drift += _replica_drift(found, wanted)
    return TopicState(
        pipeline.name,
        topic.name,
        TopicStatus.DRIFT if drift else TopicStatus.OK,
        found.partitions,
        tuple(drift),
        replicas=found.replicas[0],
        min_insync=found.min_insync,
        retention_ms=found.limit(RETENTION_MS),
        retention_bytes=found.limit(RETENTION_BYTES),
        is_compacted=found.is_compacted,
    )


def _replica_drift(found: _Existing, wanted: Wanted) -> list[str]:
    numbers, drift = " or ".join(map(str, found.replicas)), []
    if wanted.replicas is not None and found.replicas != (wanted.replicas,):
        drift.append(f"replication factor is {numbers}, asked for {wanted.replicas}")
    elif len(found.replicas) > 1:
        drift.append(f"replication factor is {numbers}: not all partitions have the same")
    if wanted.min_insync is not None and found.min_insync != wanted.min_insync:
        drift.append(f"{MIN_INSYNC} is {found.min_insync}, asked for {wanted.min_insync}")
    if found.min_insync > found.replicas[0]:
        drift.append(
            f"{MIN_INSYNC} is {found.min_insync} with a replication factor of {found.replicas[0]}: it cannot be written"
        )
    return drift


def _partitions_of(existing: dict[str, _Existing], pipeline: Pipeline) -> int | None:
    """Partitions that the topics of a flow should have: the source's, else those of its first existing topic."""
    return next((existing[topic.name].partitions for topic in pipeline.topics() if topic.name in existing), None)


def _existing(client: AdminClient, names: Iterable[str]) -> dict[str, _Existing]:
    # A topic that one flow writes and another reads is declared by both; a request that names one twice is refused.
    wanted, there = list(dict.fromkeys(names)), replica_counts(client)
    acls.require(client, (on_topic(name, one) for name in wanted for one in _LOOKING))
    found = [name for name in wanted if name in there]
    if not found:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in found]
    configs = client.describe_configs(resources, request_timeout=REQUEST_TIMEOUT_S)
    return {
        resource.name: _Existing(
            len(there[resource.name]),
            tuple(sorted(set(there[resource.name]))),
            {name: entry.value for name, entry in settled(f"configuration of {resource.name}", future).items()},
        )
        for resource, future in configs.items()
    }


def _create(client: AdminClient, topics: Sequence[Topic], partitions: int, wanted: Wanted) -> None:
    if not topics:
        return
    replicas = REPLICATION_OF_BROKER if wanted.replicas is None else wanted.replicas
    more = {} if wanted.min_insync is None else {MIN_INSYNC: str(wanted.min_insync)}
    new = [
        NewTopic(topic.name, topic.partitions or partitions, replicas, config={**topic.config(), **more})
        for topic in topics
    ]
    for name, future in client.create_topics(new, request_timeout=REQUEST_TIMEOUT_S).items():
        settled(f"creating topic {name}", future, fine=(KafkaError.TOPIC_ALREADY_EXISTS,))
    _await_created(client, {topic.name for topic in topics})


def _await_created(client: AdminClient, names: set[str]) -> None:
    """Wait for topics to be listed: the controller acknowledges a creation before brokers learn of it."""

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
