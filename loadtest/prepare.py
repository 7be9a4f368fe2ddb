"""Topics and schemas of a flow made ready for traffic, with the product's own code."""

from typing import Final

from streams.errors import StreamsError
from streams.flow.discover import select_pipelines
from streams.kafka.admin import wait_for_broker
from streams.kafka.topics import TopicStatus, apply_topics
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry, wait_for_registry
from streams.schemas.registration import register_schemas
from streams.settings import Settings

REGISTRY_WAIT_S: Final = 30.0


def prepare_pipeline(settings: Settings, name: str, partitions: int) -> tuple[str, int]:
    """Create the flow's topics, register all schemas; return version 1 of the source's schema and its id.

    Raises:
        StreamsError: the topics exist with another number of partitions, or Kafka or the registry does not answer.

    """
    (pipeline,) = select_pipelines([name], prefix=settings.streams_topic_prefix)
    for topic in apply_topics(wait_for_broker(settings), [pipeline], partitions=partitions):
        if topic.status is TopicStatus.DRIFT:
            raise StreamsError(
                f"topic {topic.name} {topic.drift[0]}: measure on a stack of its own, or remove the topic"
            )
    registry = Registry(settings)
    wait_for_registry(registry, timeout_s=REGISTRY_WAIT_S)
    catalog = Catalog.load()
    ids = {(each.subject, each.version): each.schema_id for each in register_schemas(catalog, registry)}
    schema_id = ids.get((pipeline.subject, 1))
    if schema_id is None:
        raise StreamsError(f"{pipeline.subject}: the registry did not take version 1")
    return catalog.versions(pipeline.subject)[0].text, schema_id
