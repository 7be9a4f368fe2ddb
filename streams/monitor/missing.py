"""Topics that a flow cannot do without and the cluster does not have. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from streams.flow.declaration import Pipeline

ADVICE: Final = (
    "`streams topics apply` creates it, empty; a worker goes on then, what was in it has to be sent or replayed again"
)


@dataclass(frozen=True, slots=True)
class MissingTopic:
    """A topic of a flow whose other topics are there."""

    topic: str
    group: str
    """Consumer group of the flow's workers."""

    @property
    def why(self) -> str:
        """What is wrong, in one sentence without a full stop."""
        return "the topic does not exist: deleted, or never created; workers do not go on without it"


def missing_topics(topics: Collection[str], flows: Sequence[Pipeline]) -> tuple[MissingTopic, ...]:
    """Declared topics that are none of `topics`. A flow that has not a single one is not in use here: not named."""
    there = frozenset(topics)
    found = []
    for flow in flows:
        declared = [topic.name for topic in flow.topics()]
        if not there.isdisjoint(declared):
            found += [MissingTopic(name, flow.group) for name in declared if name not in there]
    return tuple(found)
