"""From a plan to what the engine runs.

The engine runs one chain: deduplicate, reorder, one topic of clean events, then folds and windows.
"""

from streams.flow.declaration import CLEAN_SUFFIX, Pipeline, Table, Window
from streams.flow.plan import Filter, FoldTo, MapBatches, Plan, To, WindowTo

_CHAIN = "source(...).deduplicate(...).reorder().to(...)"


def lowered(plan: Plan) -> Pipeline:
    """The pipeline of a plan that was checked.

    Raises:
        ValueError: the engine of this version cannot run it; the message says what it can.

    """
    custom = next((step for step in plan.steps if isinstance(step.verb, Filter | MapBatches)), None)
    if custom is not None:
        raise ValueError(f"flow {plan.name!r}: {custom.id}: the engine of this version runs no functions over batches")
    kinds = {step.verb.kind for step in plan.steps}
    clean = [(step, step.verb.topic) for step in plan.steps if isinstance(step.verb, To)]
    if not {"deduplicate", "reorder"} <= kinds or len(clean) != 1:
        raise ValueError(
            f"flow {plan.name!r}: the engine of this version runs {_CHAIN} with one topic of clean events, and "
            f"folds and windows after reorder()"
        )
    ((step, clean_topic),) = clean
    if {each.id: each for each in plan.steps}[step.after or ""].verb.kind not in {"reorder", "fold", "window"}:
        raise ValueError(f"flow {plan.name!r}: {step.id} comes after reorder(): {_CHAIN}")
    source = plan.source
    return Pipeline(
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
    )
