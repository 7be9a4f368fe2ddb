"""A flow as a topology: for a terminal and for programs. `streams.flow.drawing` makes a picture of it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from streams.flow.builder import Flow
from streams.flow.declaration import Pipeline
from streams.flow.discover import Declared
from streams.flow.durations import written
from streams.flow.plan import (
    Deduplicate,
    FoldTo,
    Merge,
    Output,
    Plan,
    Process,
    Reorder,
    SessionTo,
    Source,
    Step,
    To,
    WindowTo,
    written_by,
)
from streams.sinks.spec import dead_letters_of, group_of


def listed(flows: Iterable[Declared]) -> list[dict[str, Any]]:
    """A row for each flow: name, source, outputs, and where it is declared."""
    return [
        {
            "name": each.flow.name,
            "source": each.flow.plan.source.topic,
            "outputs": list(each.flow.plan.topics),
            "group": each.flow.pipeline.group,
            "declared_in": f"{each.module}:{each.constant}",
        }
        for each in flows
    ]


def as_text(flow: Flow, pipeline: Pipeline, bounds: Mapping[str, int]) -> Iterator[str]:
    """Lines that show the steps one below the other, then the further topics and the bounds in force.

    `pipeline` is the flow's, perhaps with a prefix; `bounds` are milliseconds and counts by the name of the setting.
    """
    yield f"flow {flow.name}, consumer group {pipeline.group}"
    yield ""
    yield from _branch(flow.plan, flow.plan.steps[0], pipeline, "", "")
    yield ""
    yield "also written"
    width = max(len(name) for name, _ in beside(pipeline))
    for name, what in beside(pipeline):
        yield f"  {name:<{width}}  {what}"
    if pipeline.sinks:
        yield ""
        yield "copied out of Kafka by `streams sink NAME`"
        width = max(len(sink.name) for sink in pipeline.sinks)
        for sink in pipeline.sinks:
            yield f"  {sink.name:<{width}}  {sink.topic} to {sink.kind}, {sink.where}"
    yield ""
    yield "bounds in force"
    names = {name: name.upper() for name in bounds}
    width = max(map(len, names.values()))
    for name, value in bounds.items():
        yield f"  {names[name]:<{width}}  {value}"
    yield ""
    yield "flagged as silent after"
    silent = silent_after_ms(pipeline)
    width = max(map(len, silent))
    for name, after_ms in silent.items():
        yield f"  {name:<{width}}  {written(after_ms)}"


def as_json(flow: Flow, pipeline: Pipeline, bounds: Mapping[str, int]) -> dict[str, Any]:
    """The topology as a JSON document."""
    return {
        "name": flow.name,
        "group": pipeline.group,
        "steps": [
            {
                "id": step.id,
                "kind": step.verb.kind,
                "after": step.after,
                "topic": topic_of(step, pipeline),
                "writes": [f"{pipeline.prefix}{topic}" for topic in written_by(step.verb)],
                "does": " ".join(part for part in (said(step, pipeline)) if part),
            }
            for step in flow.plan.steps
        ],
        "topics": [
            {"name": topic.name, "cleanup": topic.cleanup.value, "subject": topic.subject}
            for topic in pipeline.topics()
        ],
        "sinks": [
            {
                "name": sink.name,
                "kind": sink.kind,
                "topic": sink.topic,
                "where": sink.where,
                "group": group_of(sink, pipeline.prefix),
                "dead_letters": dead_letters_of(sink, pipeline.prefix),
            }
            for sink in pipeline.sinks
        ],
        "bounds": dict(bounds),
        "silent_after_ms": silent_after_ms(pipeline),
    }


def silent_after_ms(pipeline: Pipeline) -> dict[str, int]:
    """After how long the monitor flags the source and each class of its devices as silent, by the monitor's names."""
    after_s = {pipeline.source: pipeline.silent_after_s}
    after_s |= {f"{pipeline.source}/{one.name}": one.silent_after_s for one in pipeline.device_classes}
    return {name: round(seconds * 1_000) for name, seconds in after_s.items()}


def beside(pipeline: Pipeline) -> tuple[tuple[str, str], ...]:
    """Topics that every flow has in addition to its outputs, and their content."""
    of_inputs = (
        pair
        for one in pipeline.inputs
        for pair in (
            (one.late, "events that arrived too late to be in order, or beyond the horizon"),
            (one.dlq, "records that are not valid events, with the reason"),
            (one.audit, "what was done about each dead letter"),
        )
    )
    return (
        *of_inputs,
        (pipeline.journal, "changelog of the state"),
    )


def topic_of(step: Step, pipeline: Pipeline) -> str | None:
    """Topic that a step reads or writes, with the flow's prefix."""
    verb = step.verb
    return f"{pipeline.prefix}{verb.topic}" if isinstance(verb, Source | Output) else None


def said(step: Step, pipeline: Pipeline) -> tuple[str, str]:
    """A step's description and details."""
    topic = topic_of(step, pipeline) or ""
    match step.verb:
        case Source() as verb:
            stage = ", written by the stage before" if verb.is_internal else ""
            known = "" if verb.is_table else f"id {verb.id}, "
            kind = "table" if verb.is_table else "source"
            words = f"{kind} {topic}", f"{known}key {verb.key}, time {verb.time}, order {verb.order}{stage}"
        case Merge(names=names):
            topics = [f"{name} {one.topic}" for name, one in zip(names, pipeline.inputs, strict=True)]
            words = "merge", ", ".join(topics)
        case Deduplicate(horizon_ms=horizon_ms):
            words = "deduplicate", f"horizon {written(horizon_ms)}"
        case Reorder():
            words = "reorder", f"out of orderness {written(pipeline.bounds.lateness_ms)}"
        case To():
            is_clean = pipeline.event_topics and topic == pipeline.clean
            words = f"to {topic}", "original bytes, counted as clean" if is_clean else "original bytes"
        case FoldTo(aggregate=aggregate):
            words = f"fold to {topic}", f"{_name(aggregate)}, the last row of each key"
        case WindowTo(aggregate=aggregate, size_ms=size_ms, grace_ms=grace_ms, advance_ms=advance_ms):
            every = f", every {written(advance_ms)}" if advance_ms else ""
            details = f"{_name(aggregate)}, size {written(size_ms)}{every}, grace {written(grace_ms)}"
            words = f"window to {topic}", details
        case SessionTo(aggregate=aggregate, gap_ms=gap_ms, grace_ms=grace_ms):
            words = f"session to {topic}", f"{_name(aggregate)}, gap {written(gap_ms)}, grace {written(grace_ms)}"
        case Process(spec=spec, topics=topics):
            to = [f"writes {pipeline.prefix}{topic}" for topic in topics]
            words = f"process {spec.name}", ", ".join([_name(spec), *to])
        case verb:
            words = f"{verb.kind} {verb.name}", ""
    return words


def _branch(plan: Plan, step: Step, pipeline: Pipeline, lead: str, below: str) -> Iterator[str]:
    what, details = said(step, pipeline)
    yield f"{lead}{what}{f'  ({details})' if details else ''}"
    following = plan.following(step)
    for place, after in enumerate(following):
        if len(following) == 1:
            yield from _branch(plan, after, pipeline, below, below)
        elif place < len(following) - 1:
            yield from _branch(plan, after, pipeline, f"{below}├─ ", f"{below}│  ")
        else:
            yield from _branch(plan, after, pipeline, f"{below}└─ ", f"{below}   ")


def _name(aggregate: object) -> str:
    return type(aggregate).__name__
