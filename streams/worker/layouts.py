"""How a flow was grown, read once: for a worker that starts, and for commands that inspect its state."""

from collections.abc import Mapping

from streams.flow.declaration import Pipeline
from streams.growth.layouts import Layouts
from streams.growth.record import layouts_of
from streams.kafka.growth_topic import GrowthTopic
from streams.settings import Settings


def read_layouts(settings: Settings, pipeline: Pipeline, partitions: int) -> Layouts | None:
    """The layouts of a flow by its growth topic; None: it was never grown.

    `partitions`: by how many its state is divided if it was never grown.

    Raises:
        StreamsError: no answer, or the topic holds something else.

    """
    topic = GrowthTopic(settings, pipeline)
    try:
        records = topic.read()
    finally:
        topic.close()
    return layouts_of(records, partitions) if records else None


def state_partitions(pipeline: Pipeline, counts: Mapping[str, int]) -> int:
    """The number of partitions that state is divided into if the flow never grew: all topics with state have these."""
    return min(counts[topic] for topic in pipeline.changelogs)


def first_partitions(pipeline: Pipeline, counts: Mapping[str, int], layouts: Layouts | None) -> int:
    """The number of partitions that the flow's state was divided into at first."""
    return state_partitions(pipeline, counts) if layouts is None else layouts.known[0].partitions
