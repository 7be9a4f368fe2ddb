"""Whether a registered draft is in use, according to the records of every topic that may hold its subject."""

from collections.abc import Sequence

from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka.admin import partition_counts_with_leaderless, wait_for_broker
from streams.kafka.schema_use import schema_use
from streams.schemas.unregistration import Draft, Use, topics_of
from streams.settings import Settings


def use_of_draft(settings: Settings, draft: Draft, pipelines: Sequence[Pipeline]) -> Use:
    """What the newest records of the topics say about a draft's id; without a broker that is one of the `gaps`."""
    declared = [topic.name for each in pipelines for topic in each.topics() if topic.subject == draft.subject]
    try:
        partitions = partition_counts_with_leaderless(wait_for_broker(settings))
        chosen = topics_of(draft.subject, declared, list(partitions))
        return schema_use(settings, {topic: partitions[topic] for topic in chosen}, draft.registered.schema_id)
    except StreamsError as error:
        return Use((), 0, {}, (f"the topics could not be read ({error})",))
