"""From a plan to what the engine runs.

The engine runs a tree of operators, in the order in which the steps were declared. Branches that only write topics are
a chain.
"""

from itertools import pairwise
from typing import Final

from streams.flow.chain import CLEAN, SOURCE, operators_of
from streams.flow.declaration import CLEAN_SUFFIX, Pipeline, Table, Window
from streams.flow.plan import Filter, FoldTo, MapBatches, Output, Plan, Process, Source, Step, To, WindowTo, written_by
from streams.operators.spec import OperatorSpec
from streams.operators.stateless.arrow import Filter as FilterSpec
from streams.operators.stateless.arrow import MapBatches as MapSpec

_CHAIN: Final = "source(...).deduplicate(...).reorder().to(...)"


def lowered(plan: Plan) -> Pipeline:
    """The flow of a plan that was checked. The topic of the first `to` is the clean one.

    Raises:
        ValueError: the engine of this version cannot run it; the message says what it can.

    """
    kinds = {step.verb.kind for step in plan.steps}
    events = [step for step in plan.steps if isinstance(step.verb, To)]
    if not {"deduplicate", "reorder"} <= kinds or not events:
        raise ValueError(
            f"flow {plan.name!r}: the engine of this version runs {_CHAIN} with a topic of clean events, and "
            f"folds, windows and further topics after reorder()"
        )
    for step in events:
        if "reorder" not in {above.verb.kind for above in plan.above(step)}:
            raise ValueError(f"flow {plan.name!r}: {step.id} comes after reorder(): {_CHAIN}")
    clean, *further = events
    clean_topic, *event_topics = (topic for step in (clean, *further) for topic in written_by(step.verb))
    source = plan.source
    custom = tuple(spec for step in plan.steps if (spec := _spec_of(step)) is not None)
    order = tuple(_place_of(step, clean) for step in plan.steps if not isinstance(step.verb, Source))
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
        tables=tuple(
            Table(verb.topic, verb.aggregate, verb.subject) for verb in plan.outputs if isinstance(verb, FoldTo)
        ),
        windows=tuple(
            Window(verb.topic, verb.aggregate, verb.size_ms, verb.grace_ms, verb.subject)
            for verb in plan.outputs
            if isinstance(verb, WindowTo)
        ),
        silent_after_s=source.silent_after_s,
        device_classes=source.device_classes,
        clean_topic="" if clean_topic == f"{source.topic}{CLEAN_SUFFIX}" else clean_topic,
        bounds=plan.bounds,
        operators=custom,
        order=order if custom or further else (),
        branches=_branches(plan, clean),
        event_topics=tuple(event_topics),
    )
    operators_of(pipeline)  # refuses operators that contradict each other
    return pipeline


def _branches(plan: Plan, clean: Step) -> dict[str, str]:
    """Places of the steps that do not get the events of the step before them, with those whose events they get.

    Steps that only write a topic pass all events on as they are: those after them are said to get the events of the
    step before.
    """
    found = {}
    for previous, step in pairwise(plan.steps):
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


def _place_of(step: Step, clean: Step) -> str:
    """Name of a step in the order of a flow."""
    spec = _spec_of(step)
    if spec is not None:
        return spec.name
    if isinstance(step.verb, Source):
        return SOURCE
    return CLEAN if step is clean else step.id
