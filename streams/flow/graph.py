"""A flow as nodes and edges: topics, steps and sinks, and what counts the events that pass between them. Pure.

For pictures with live rates; `topology.py` has the same flow as text.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from streams.flow.builder import Flow
from streams.flow.declaration import Pipeline
from streams.flow.plan import Deduplicate, Output, Reorder, Source, Step, written_by
from streams.flow.topology import said, topic_of

NodeKind = Literal["topic", "step", "sink", "beside"]


@dataclass(frozen=True, slots=True)
class Node:
    """A box of the picture."""

    id: str
    """Name of a topic, or the id that a step has in the plan."""
    kind: NodeKind
    """`beside`: a topic that events go to which do not pass the flow (late, dead letters)."""
    title: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """Events pass from one node to another. At most one of the attributes says what counts them."""

    start: str
    end: str
    topic: str = ""
    """Records that arrive in this topic."""
    consumed: str = ""
    """Records of this topic that the flow's group commits."""
    outcomes: tuple[str, ...] = ()
    """Events with one of these outcomes."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A flow. Each node but the sources comes after those that it gets events from."""

    name: str
    group: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def graph_of(flow: Flow, pipeline: Pipeline) -> Graph:
    """The graph of a flow; `pipeline` is the flow's, perhaps with a prefix."""
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    for step in flow.plan.steps:
        node = _node(step, pipeline)
        nodes[node.id] = node
        edges += _edges_into(flow, step, node.id, pipeline)
        for topic in written_by(step.verb):
            name = f"{pipeline.prefix}{topic}"
            nodes[name] = Node(name, "topic", name)
            edges.append(Edge(node.id, name, topic=name))
    for name, detail, start in _beside(flow, pipeline):
        nodes[name] = Node(name, "beside", name, detail)
        edges.append(Edge(start, name, topic=name))
    for sink in pipeline.sinks:
        nodes[f"sink {sink.name}"] = Node(
            f"sink {sink.name}", "sink", f"sink {sink.name}", f"{sink.kind}, {sink.where}"
        )
        edges.append(Edge(sink.topic, f"sink {sink.name}"))
    return Graph(flow.name, pipeline.group, tuple(nodes.values()), tuple(edges))


def _node(step: Step, pipeline: Pipeline) -> Node:
    what, details = said(step, pipeline)
    if isinstance(step.verb, Source):
        topic = topic_of(step, pipeline) or ""
        return Node(topic, "topic", topic, f"key {step.verb.key}")
    if isinstance(step.verb, Output):
        name = details.partition(", ")[0]
        is_copy = step.verb.kind == "to"
        return Node(step.id, "step", "to" if is_copy else f"{step.verb.kind} {name}", details if is_copy else "")
    return Node(step.id, "step", what, details.partition(", ")[0])


def _edges_into(flow: Flow, step: Step, end: str, pipeline: Pipeline) -> Iterator[Edge]:
    """Edges from the steps that the events of `step` come from; steps that write events unchanged are skipped."""
    if step.after is None:
        return
    steps = {each.id: each for each in flow.plan.steps}
    givers = [flow.plan.giver(step), *(steps[name] for name in step.also_after)]
    for giver in givers:
        start = _node(giver, pipeline).id
        if isinstance(giver.verb, Source):
            yield Edge(start, end, consumed=start)
        elif len(flow.plan.sources) > 1:
            yield Edge(start, end)  # outcomes are counted over all sources
        elif isinstance(giver.verb, Deduplicate):
            yield Edge(start, end, outcomes=("clean", "late"))
        elif isinstance(giver.verb, Reorder):
            yield Edge(start, end, outcomes=("clean",))
        else:
            yield Edge(start, end)


def _beside(flow: Flow, pipeline: Pipeline) -> Iterator[tuple[str, str, str]]:
    """Topics of events that do not pass: name, content, and the node at which they leave the flow."""
    for one in pipeline.inputs:
        steps = [step for step in flow.plan.steps if not isinstance(step.verb, Source)]
        last = next((step.id for step in steps if isinstance(step.verb, Reorder)), one.topic)
        yield one.late, "too late, or beyond the horizon", last if len(pipeline.inputs) == 1 else one.topic
        yield one.dlq, "dead letters", one.topic
