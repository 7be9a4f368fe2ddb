"""Turns a plan into what the engine runs.

The engine runs a tree of operators, in the order in which the steps were declared. Branches that only write topics are
a chain.
"""

from itertools import pairwise
from typing import Final

from streams.flow.bounds import Bounds
from streams.flow.chain import CLEAN, SOURCE, operators_of
from streams.flow.declaration import CLEAN_SUFFIX, Pipeline, Table, Window
from streams.flow.inputs import Input
from streams.flow.plan import (
    Filter,
    FoldTo,
    MapBatches,
    Output,
    Plan,
    Process,
    SessionTo,
    Source,
    Step,
    To,
    WindowTo,
    written_by,
)
from streams.operators.spec import OperatorSpec
from streams.operators.stateless.arrow import Filter as FilterSpec
from streams.operators.stateless.arrow import MapBatches as MapSpec

_CHAIN: Final = "source(...).deduplicate(...).reorder().to(...)"


def lowered(plan: Plan) -> Pipeline:
    """The flow of a plan that was checked. The topic of its first `to` is the clean one.

    Raises:
        ValueError: the engine of this version cannot run it; the message says what it can.

    """
    kinds = {step.verb.kind for step in plan.steps}
    events = [step for step in plan.steps if isinstance(step.verb, To)]
    if not {"deduplicate", "reorder"} <= kinds:
        raise ValueError(
            f"flow {plan.name!r}: the engine of this version runs {_CHAIN}, with folds, windows, operators and topics "
            f"after reorder()"
        )
    for step in events:
        if "reorder" not in {above.verb.kind for above in plan.above(step)}:
            raise ValueError(f"flow {plan.name!r}: {step.id} comes after reorder(): {_CHAIN}")
    clean = plan.merge or next(iter(events), None)
    topics = [topic for step in events for topic in written_by(step.verb)]
    source = plan.source
    custom = tuple(spec for step in plan.steps if (spec := _spec_of(step)) is not None)
    main = _main(plan)
    pipeline = Pipeline(
        name=plan.name,
        source=source.topic,
        id_field=source.id,
        key_field=source.key,
        time_field=source.time,
        sequence_field=source.order,
        payload_fields=source.fields,
        text_fields=source.texts,
        field_ranges=source.ranges,
        subject=source.subject,
        tables=tuple(
            Table(verb.topic, verb.aggregate, verb.subject) for verb in plan.outputs if isinstance(verb, FoldTo)
        ),
        windows=tuple(_window(verb) for verb in plan.outputs if isinstance(verb, WindowTo | SessionTo)),
        silent_after_s=source.silent_after_s,
        device_classes=source.device_classes,
        clean_topic=_clean_topic(source.topic, clean, topics),
        bounds=plan.bounds,
        operators=custom,
        order=_order(main, clean) if custom or topics[1:] or clean is None else (),
        branches=_branches(plan, main, clean),
        event_topics=tuple(topics[1:]),
        source_is_internal=source.is_internal,
        input_name=plan.input_names[0],
        further_inputs=_further_inputs(plan),
        sinks=plan.sinks,
    )
    operators_of(pipeline)  # refuses operators that contradict each other
    return pipeline


def _clean_topic(source: str, clean: Step | None, topics: list[str]) -> str | None:
    """The first of the topics that events are written to; empty: the usual one, or none of a flow that merges."""
    if clean is None:
        return None
    return "" if not topics or topics[0] == f"{source}{CLEAN_SUFFIX}" else topics[0]


def _order(main: list[Step], clean: Step | None) -> tuple[str, ...]:
    """Places of the steps; without a step that makes events clean, they are clean once they are in order."""
    places = [_place_of(step, clean) for step in main if not isinstance(step.verb, Source)]
    if clean is None:
        places.insert(places.index("reorder") + 1, CLEAN)
    return tuple(places)


def _window(verb: WindowTo | SessionTo) -> Window:
    if isinstance(verb, SessionTo):
        return Window(verb.topic, verb.aggregate, 0, verb.grace_ms, verb.subject, gap_ms=verb.gap_ms)
    return Window(verb.topic, verb.aggregate, verb.size_ms, verb.grace_ms, verb.subject, verb.advance_ms)


def _main(plan: Plan) -> list[Step]:
    """All steps but those of sources that are merged with the first one."""
    merge = plan.merge
    if merge is None:
        return list(plan.steps)
    ids = {step.id: step for step in plan.steps}
    beside = {above.id for name in merge.also_after for above in (ids[name], *plan.above(ids[name]))}
    return [step for step in plan.steps if step.id not in beside]


def _further_inputs(plan: Plan) -> tuple[Input, ...]:
    """The inputs beside the first source."""
    named = zip(plan.input_names[1:], plan.sources[1:], plan.further_bounds, strict=True)
    return tuple(_input(name, one, bounds) for name, one, bounds in named)


def _input(name: str, one: Source, bounds: Bounds) -> Input:
    return Input(
        topic=one.topic,
        name=name,
        id_field=one.id,
        key_field=one.key,
        time_field=one.time,
        sequence_field=one.order,
        payload_fields=one.fields,
        text_fields=one.texts,
        field_ranges=one.ranges,
        subject=one.subject,
        bounds=bounds,
        is_internal=one.is_internal,
        is_table=one.is_table,
    )


def _branches(plan: Plan, main: list[Step], clean: Step | None) -> dict[str, str]:
    """Places of the steps that do not get the events of the step before them, with those whose events they get.

    Steps that only write a topic pass all events on unchanged: the steps after them are recorded as getting the events
    of the step before.
    """
    found = {}
    for previous, step in pairwise(main):
        given = plan.giver(step)
        if given is not (plan.giver(previous) if isinstance(previous.verb, Output) else previous):
            found[_place_of(step, clean)] = _place_of(given, clean)
    return found


def _spec_of(step: Step) -> OperatorSpec | None:
    match step.verb:
        case Filter(function=function, name=name):
            return FilterSpec(name, function)
        case MapBatches(function=function, name=name):
            return MapSpec(name, function)
        case Process(spec=spec):
            return spec
        case _:
            return None


def _place_of(step: Step, clean: Step | None) -> str:
    """Name of a step in the order of a flow."""
    spec = _spec_of(step)
    if spec is not None:
        return spec.name
    if isinstance(step.verb, Source):
        return SOURCE
    return CLEAN if step is clean else step.id
