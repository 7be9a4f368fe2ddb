"""The declared flows of this deployment (`STREAMS_TOPIC_PREFIX`), by their source and dead-letter topics."""

from dataclasses import dataclass

from streams.flow.declaration import Pipeline
from streams.flow.discover import select_pipelines
from streams.settings import Settings


@dataclass(frozen=True, slots=True)
class Flows:
    """The declared flows, their topics with the prefix of this deployment; each input beside a source stands alone."""

    declared: tuple[Pipeline, ...]

    @classmethod
    def of(cls, settings: Settings) -> "Flows":
        """The declared flows for `settings`."""
        declared = select_pipelines(None, prefix=settings.streams_topic_prefix)
        further = (each.reading(one) for each in declared for one in each.further_inputs)
        return cls((*declared, *further))

    def by_source(self, topic: str) -> Pipeline | None:
        """The flow that reads `topic`."""
        return next((each for each in self.declared if each.source == topic), None)

    def by_dlq(self, topic: str) -> Pipeline | None:
        """The flow whose rejects are in `topic`."""
        return next((each for each in self.declared if each.dlq == topic), None)

    @property
    def dlqs(self) -> tuple[str, ...]:
        """Dead-letter topics of all flows."""
        return tuple(each.dlq for each in self.declared)

    def dlq_named(self, topic: str) -> str:
        """The dead-letter topic that a user means by `topic`.

        A source stands for its own dead-letter topic. In a set with a prefix, a declared name without it means the
        topic of this set, never that of another one.
        """
        exact = {name: each.dlq for each in self.declared for name in (each.source, each.dlq)}
        bare = {name.removeprefix(each.prefix): each.dlq for each in self.declared for name in (each.source, each.dlq)}
        return exact.get(topic) or bare.get(topic) or topic

    def hint(self, topic: str) -> str:
        """What to do about a missing topic."""
        declared = {each.name for flow in self.declared for each in flow.topics()}
        if topic in declared:
            return "run `streams topics apply`"
        return f"dead-letter topics are {', '.join(self.dlqs)}, or any other one that exists"
