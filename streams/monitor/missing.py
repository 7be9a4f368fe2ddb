"""Topics that a flow needs and the cluster does not have. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from streams.flow.declaration import Pipeline

ADVICE: Final = "`streams topics apply` creates it, empty, and workers go on; send or replay its records again"


@dataclass(frozen=True, slots=True)
class MissingTopic:
    """A missing topic of a flow whose other topics exist."""

    topic: str
    group: str
    """Consumer group of the flow's workers."""

    @property
    def why(self) -> str:
        """The problem in one sentence without a full stop."""
        return "the topic does not exist: deleted, or never created; workers do not go on without it"


def missing_topics(topics: Collection[str], flows: Sequence[Pipeline]) -> tuple[MissingTopic, ...]:
    """Declared topics that are not in `topics`. A flow without a single topic is not in use here and is left out."""
    there = frozenset(topics)
    found = []
    for flow in flows:
        declared = [topic.name for topic in flow.topics()]
        if not there.isdisjoint(declared):
            found += [MissingTopic(name, flow.group) for name in declared if name not in there]
    return tuple(found)
