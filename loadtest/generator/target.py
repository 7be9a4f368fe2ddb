"""The topic that is written to, and the schemas that are written with: found, or refused, before anything is sent."""

from typing import Final

from loadtest.fleet.mix import Schemas
from streams.errors import StreamsError, UsageError
from streams.kafka.admin import partition_counts, wait_for_broker
from streams.operators.declaration import Pipeline
from streams.registry.catalog import Catalog
from streams.registry.client import Registry
from streams.settings import Settings

PREFIX: Final = "loadtest."
"""Names of topics that are a load test's own begin so."""


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
            "(`streams topics apply` creates those of the pipelines)"
        )
    return found


def find_schemas(settings: Settings, pipeline: Pipeline, *, foreign: bool) -> Schemas:
    """The schemas of a pipeline's source as they are registered; with `foreign`, one that is none of them as well.

    Raises:
        StreamsError: the registry does not answer, or does not know one of them.

    """
    catalog, registry = Catalog.load(), Registry(settings)
    schema = catalog.versions(pipeline.subject)[0]
    foreign_id = None
    if foreign:
        other = next(subject for subject in catalog.subjects() if subject != pipeline.subject)
        foreign_id = registry.lookup(other, catalog.versions(other)[0].text)
    return Schemas(schema.text, registry.lookup(schema.subject, schema.text), foreign_id=foreign_id)
