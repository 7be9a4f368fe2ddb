"""From a plan to what the engine runs.

The engine runs one chain, in the order in which the steps were declared. Branches that only write topics are one too.
"""

from collections.abc import Iterator
from typing import Final

from streams.flow.chain import operators_of
from streams.flow.declaration import CLEAN_SUFFIX, Pipeline, Table, Window
from streams.flow.plan import Filter, FoldTo, MapBatches, Plan, Process, Source, Step, To, WindowTo
from streams.operators.spec import OperatorSpec
from streams.operators.stateless.arrow import Filter as FilterSpec
from streams.operators.stateless.arrow import MapBatches as MapSpec

_CHAIN: Final = "source(...).deduplicate(...).reorder().to(...)"


def lowered(plan: Plan) -> Pipeline:
    """The pipeline of a plan that was checked.

    Raises:
        ValueError: the engine of this version cannot run it; the message says what it can.

    """
    _require_chain(plan)
    kinds = {step.verb.kind for step in plan.steps}
    clean = [(step, step.verb.topic) for step in plan.steps if isinstance(step.verb, To)]
    if not {"deduplicate", "reorder"} <= kinds or len(clean) != 1:
        raise ValueError(
            f"flow {plan.name!r}: the engine of this version runs {_CHAIN} with one topic of clean events, and "
            f"folds and windows after reorder()"
        )
    ((step, clean_topic),) = clean
    if "reorder" not in _before(plan, step):
        raise ValueError(f"flow {plan.name!r}: {step.id} comes after reorder(): {_CHAIN}")
    source = plan.source
    custom = tuple(spec for step in plan.steps if (spec := _spec_of(step)) is not None)
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
        order=tuple(_place_of(step) for step in plan.steps if not isinstance(step.verb, Source)) if custom else (),
    )
    operators_of(pipeline)  # refuses operators that contradict each other
    return pipeline


def _before(plan: Plan, step: Step) -> set[str]:
    """Kinds of the steps that events have passed before `step`."""
    steps = {each.id: each for each in plan.steps}
    found = set()
    while step.after is not None:
        step = steps[step.after]
        found.add(step.verb.kind)
    return found


def _require_chain(plan: Plan) -> None:
    """What changes or drops events comes before the branches part: the engine runs one chain.

    Raises:
        ValueError: a branch has a function, a deduplication or a reordering of its own.

    """
    for fork in (step for step in plan.steps if len(plan.following(step)) > 1):
        apart = [step for step in _below(plan, fork) if not isinstance(step.verb, To | FoldTo | WindowTo)]
        if apart:
            raise ValueError(
                f"flow {plan.name!r}: {apart[0].id} is on one of several branches after {fork.id}: the engine of this "
                f"version runs one chain. Put it before the branches part, or into one flow for each branch"
            )


def _below(plan: Plan, step: Step) -> Iterator[Step]:
    """All steps after a step."""
    for after in plan.following(step):
        yield after
        yield from _below(plan, after)


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


def _place_of(step: Step) -> str:
    """Name of a step in the order of a pipeline."""
    spec = _spec_of(step)
    if spec is not None:
        return spec.name
    return step.verb.kind if isinstance(step.verb, To) else step.id
