"""The topic that is written to, and the schemas that are written with: found, or refused, before anything is sent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from confluent_kafka.admin import NewTopic

from loadtest.fleet.mix import Schemas
from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.kafka.admin import partition_counts, settled, wait_for_broker
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from streams.settings import Settings

PREFIX: Final = "loadtest."
"""Prefix of the names of topics that belong to a load test."""


def refuse_foreign_topic(topic: str) -> None:
    """Return if the topic is a load test's own by its name.

    Raises:
        UsageError: it is not.

    """
    if not topic.startswith(PREFIX):
        raise UsageError(
            f"{topic} may hold events that matter: simulated ones go to topics that begin with `{PREFIX}`, "
            "or elsewhere with --any-topic"
        )


def find_topic(settings: Settings, topic: str) -> int:
    """Number of partitions of the topic.

    Raises:
        StreamsError: no broker answers, or there is no such topic.

    """
    found = partition_counts(wait_for_broker(settings)).get(topic)
    if found is None:
        raise StreamsError(
            f"there is no topic {topic} at {settings.kafka_bootstrap_servers}: create it "
            "(`streams topics apply` creates those of the flows)"
        )
    return found


@contextmanager
def own_topic(settings: Settings, name: str, partitions: int) -> Iterator[str]:
    """A new topic of a load test's own, removed at the end.

    Raises:
        StreamsError: no broker answers, or it refuses.

    """
    client = wait_for_broker(settings)
    topic = f"{PREFIX}{name}.{os.getpid()}"
    settled(f"creating topic {topic}", client.create_topics([NewTopic(topic, partitions)])[topic])
    try:
        yield topic
    finally:
        settled(f"removing topic {topic}", client.delete_topics([topic])[topic])


def find_schemas(settings: Settings, pipeline: Pipeline, *, newer: bool, foreign: bool) -> Schemas:
    """Version 1 of the schema of a flow's source as it is registered, and what else is asked for.

    `newer`: version 2 as well; `foreign`: the id of a schema that cannot be read as one of the events.

    Raises:
        StreamsError: the registry does not answer, or does not know one of them.

    """
    catalog, registry = Catalog.load(), Registry(settings)
    first, *later = catalog.versions(pipeline.subject)
    second = later[0] if newer else None
    foreign_id = None
    if foreign:
        other = next(subject for subject in catalog.subjects() if subject != pipeline.subject)
        foreign_id = registry.lookup(other, catalog.versions(other)[0].text)
    return Schemas(
        first.text,
        registry.lookup(first.subject, first.text),
        None if second is None else second.text,
        None if second is None else registry.lookup(second.subject, second.text),
        foreign_id,
    )
