"""The plan of a flow: its steps as frozen values, in the order in which events pass them.

`streams.flow.builder` makes it, `streams.flow.topology` shows it, `streams.flow.lowering` turns it into what the engine
runs.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from streams.batch.events import Fields
from streams.flow.bounds import Bounds
from streams.flow.declaration import DeviceClass, with_topics
from streams.operators.fold.aggregate import Aggregate, WindowAggregate
from streams.operators.merge.section import merged_fields
from streams.operators.spec import OperatorSpec
from streams.sinks.spec import SinkSpec

BatchFunction = Callable[[Any], Any]
"""A function of a `pyarrow.RecordBatch` of the declared fields."""


@dataclass(frozen=True, slots=True)
class Source:
    """A topic of events: which fields identify, key, time and order them, and which ones are read besides."""

    topic: str
    id: str
    key: str
    time: str
    order: str
    fields: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    silent_after_s: float = 300.0
    device_classes: tuple[DeviceClass, ...] = ()
    declared_subject: str = ""
    is_internal: bool = False
    """Whether the stage before writes it (`key_by`)."""
    is_table: bool = False
    """Whether its events are rows of a table (`table`)."""

    kind = "source"

    @property
    def subject(self) -> str:
        """Subject of the schema that its events are read by: the declared one, else `<topic>-value`."""
        return self.declared_subject or f"{self.topic}-value"


@dataclass(frozen=True, slots=True)
class Deduplicate:
    """Passes the first copy of each event."""

    horizon_ms: int

    kind = "deduplicate"


@dataclass(frozen=True, slots=True)
class Reorder:
    """Passes events of each key in the order of (event time, order, id)."""

    kind = "reorder"


@dataclass(frozen=True, slots=True)
class Merge:
    """Passes the events of several sources in one order."""

    names: tuple[str, ...]
    """Names of the inputs, in the order of their sources."""

    kind = "merge"


@dataclass(frozen=True, slots=True)
class MapBatches:
    """Passes what a function makes of the declared fields of each batch."""

    function: BatchFunction
    name: str

    kind = "map_batches"


@dataclass(frozen=True, slots=True)
class Filter:
    """Passes the events for which a function is true; the others are counted as `filtered`."""

    function: BatchFunction
    name: str

    kind = "filter"


@dataclass(frozen=True, slots=True)
class Process:
    """Passes the events through an operator of your own, which may write topics of its own."""

    spec: OperatorSpec

    kind = "process"

    @property
    def name(self) -> str:
        """The operator's name."""
        return self.spec.name

    @property
    def topics(self) -> tuple[str, ...]:
        """Topics that the operator writes."""
        return tuple(one.topic for one in self.spec.outputs)


@dataclass(frozen=True, slots=True)
class To:
    """Writes each event, its bytes as they came, to a topic."""

    topic: str

    kind = "to"


@dataclass(frozen=True, slots=True)
class FoldTo:
    """Writes the changed row of each key to a compacted topic."""

    topic: str
    aggregate: Aggregate
    subject: str = ""

    kind = "fold"


@dataclass(frozen=True, slots=True)
class WindowTo:
    """Writes a row for each closed window of each key to a topic."""

    topic: str
    aggregate: WindowAggregate
    size_ms: int
    grace_ms: int
    subject: str = ""
    advance_ms: int = 0

    kind = "window"


@dataclass(frozen=True, slots=True)
class SessionTo:
    """Writes a row for each session of each key that is over to a topic."""

    topic: str
    aggregate: WindowAggregate
    gap_ms: int
    grace_ms: int
    subject: str = ""

    kind = "session"


@dataclass(frozen=True, slots=True)
class IntoSink:
    """Copies a topic into a target outside of Kafka; the events pass as they are."""

    spec: SinkSpec

    kind = "sink"


Verb = Source | Deduplicate | Reorder | Merge | MapBatches | Filter | Process | To | FoldTo | WindowTo | SessionTo
Output = To | FoldTo | WindowTo | SessionTo


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan."""

    id: str
    """Stable and unique within the flow: the verb, with the topic that it writes or the name of its function."""
    verb: Verb
    after: str | None
    """The step whose events it gets; None for a source."""
    also_after: tuple[str, ...] = ()
    """Further steps whose events it merges with those of `after`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps of a flow, each after the one whose events it gets."""

    name: str
    steps: tuple[Step, ...]
    bounds: Bounds
    further_bounds: tuple[Bounds, ...] = ()
    """Bounds of the sources after the first one."""
    sinks: tuple[SinkSpec, ...] = ()
    """The sinks, which copy topics: not steps, since no event passes them."""

    @property
    def source(self) -> Source:
        """The source; where several sources are merged, the first one."""
        found = self.steps[0].verb
        assert isinstance(found, Source)  # noqa: S101 - the builder begins with it
        return found

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources, in the order in which they are merged."""
        return tuple(step.verb for step in self.steps if isinstance(step.verb, Source))

    @property
    def merge(self) -> Step | None:
        """The step that merges the sources; None where there is one source."""
        return next((step for step in self.steps if isinstance(step.verb, Merge)), None)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the sources, where they are merged."""
        merge = self.merge
        return merge.verb.names if merge is not None and isinstance(merge.verb, Merge) else ("",)

    def fields_at(self, step: Step) -> Fields:
        """Fields of the events that `step` gets."""
        each = [(name, Fields(one.fields, one.texts)) for name, one in zip(self.input_names, self.sources, strict=True)]
        is_merged = any(isinstance(above.verb, Merge) for above in self.above(step))
        return merged_fields(each) if is_merged else each[0][1]

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Steps that write a topic and change nothing about the events."""
        return tuple(step.verb for step in self.steps if isinstance(step.verb, Output))

    @property
    def topics(self) -> tuple[str, ...]:
        """Topics that the steps name and write, in the order of the steps."""
        return tuple(topic for step in self.steps for topic in written_by(step.verb))

    def following(self, step: Step) -> tuple[Step, ...]:
        """Steps that get the events of `step`."""
        return tuple(each for each in self.steps if step.id in {each.after, *each.also_after})

    def above(self, step: Step) -> Iterator[Step]:
        """All steps that events have passed before `step`, the nearest first; the source is the last one."""
        steps = {each.id: each for each in self.steps}
        while step.after is not None:
            step = steps[step.after]
            yield step

    def giver(self, step: Step) -> Step:
        """The step whose events `step` gets: the nearest before it that does more than write events unchanged."""
        return next(above for above in self.above(step) if not isinstance(above.verb, Output))

    def with_topics(self, name: str, topics: Mapping[str, str]) -> "Plan":
        """The same plan as flow `name`, each topic in `topics` replaced by another one.

        It has no sinks: rows of both flows would meet in one table.
        """
        new_ids = {step.id: _id_with(step, topics) for step in self.steps}
        steps = tuple(
            Step(
                new_ids[step.id],
                _verb_with(step.verb, topics),
                None if step.after is None else new_ids[step.after],
                tuple(new_ids[one] for one in step.also_after),
            )
            for step in self.steps
        )
        return replace(self, name=name, steps=steps, sinks=())


def written_by(verb: Verb) -> tuple[str, ...]:
    """Topics that a verb names and writes."""
    match verb:
        case To(topic=topic) | FoldTo(topic=topic) | WindowTo(topic=topic) | SessionTo(topic=topic):
            return (topic,)
        case Process(topics=topics):
            return topics
        case _:
            return ()


def step_id(verb: Verb) -> str:
    """Id of a verb's step: `fold:vehicles.state.v1`, `filter:is_moving`, `reorder`."""
    match verb:
        case Source(topic=of) | To(topic=of) | FoldTo(topic=of) | WindowTo(topic=of) | SessionTo(topic=of):
            return f"{verb.kind}:{of}"
        case MapBatches(name=of) | Filter(name=of) | Process(name=of):
            return f"{verb.kind}:{of}"
        case _:
            return verb.kind


def _verb_with(verb: Verb, topics: Mapping[str, str]) -> Verb:
    if isinstance(verb, Source | Output):
        return replace(verb, topic=topics.get(verb.topic, verb.topic))
    if isinstance(verb, Process):
        return Process(with_topics(verb.spec, topics))
    return verb


def _id_with(step: Step, topics: Mapping[str, str]) -> str:
    changed = _verb_with(step.verb, topics)
    return step.id if changed is step.verb else step_id(changed)
