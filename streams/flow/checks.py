"""What is checked when a flow is declared, without schemas, Kafka or a worker."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from streams.batch.columns import object_rows
from streams.batch.events import Fields
from streams.batch.rows import empty_rows
from streams.flow.declaration import JOURNAL_SUFFIX, with_topics
from streams.flow.inputs import DEAD_LETTERS_SUFFIX, LATE_SUFFIX
from streams.flow.plan import (
    Deduplicate,
    Filter,
    FoldTo,
    MapBatches,
    Merge,
    Plan,
    Process,
    Reorder,
    SessionTo,
    Source,
    Step,
    To,
    WindowTo,
)
from streams.operators.fold.aggregate import Segments
from streams.operators.spec import OperatorSpec

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_OPERATOR: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
_INPUT: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SIMILAR: Final = 0.6
_CUSTOM: Final = "lambda"


def checked(plan: Plan) -> Plan:
    """The plan, if nothing is wrong with it.

    Raises:
        ValueError: something is; the message names the flow and what to do.

    """
    try:
        _check_names(plan)
        for source in plan.sources:
            _check_source(source)
        _check_merge(plan)
        _check_order(plan)
        _check_topics(plan)
        _check_folds(plan)
        _check_operators(plan)
        _check_sinks(plan)
    except ValueError as error:
        raise ValueError(f"flow {plan.name!r}: {error}") from None
    return plan


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean "sequence"?` if one of the known names is like it; else nothing."""
    similar = difflib.get_close_matches(name, list(known), n=1, cutoff=_SIMILAR)
    return f"; did you mean {similar[0]!r}?" if similar else ""


def _check_names(plan: Plan) -> None:
    if not _NAME.fullmatch(plan.name):
        raise ValueError("the name of a flow is 1 to 100 of A-Z, a-z, 0-9, _ and -: its consumer group is called by it")
    sources = [step for step in plan.steps if isinstance(step.verb, Source)]
    if len([step for step in plan.steps if isinstance(step.verb, Merge)]) > 1:
        raise ValueError("merge is there twice: let all branches begin after one merge(...)")
    if len(sources) > 1 and plan.merge is None:
        topics = [step.verb.topic for step in sources if isinstance(step.verb, Source)]
        if len(set(topics)) == 1:
            raise ValueError(f"source({topics[0]!r}) is there twice: let all branches begin with one of them")
        raise ValueError(
            f"it has several sources, {' and '.join(topics)}: merge(...) them, or declare a flow for each of them"
        )
    if any(_CUSTOM in step.id for step in plan.steps):
        raise ValueError("a lambda has no name that stays the same: give its step a name (name=...)")
    twice = [name for name, count in Counter(step.id for step in plan.steps).items() if count > 1]
    if twice:
        _refuse_twice(twice[0])


def _refuse_twice(step: str) -> None:
    verb, _, of = step.partition(":")
    if verb in {"filter", "map_batches"}:
        raise ValueError(f"two steps are called {step}: give them different names (name=...)")
    if verb == "process":
        raise ValueError(f"two steps are called {step}: let the name of the operator depend on what tells them apart")
    if of:
        return  # a topic that is written twice: `_check_topics` says so
    raise ValueError(f"{verb} is there twice: let all branches begin after one {verb}()")


def _check_source(source: Source) -> None:
    roles = (
        (source.key, source.time, source.order)
        if source.is_table
        else (source.id, source.key, source.time, source.order)
    )
    named = (*roles, *source.fields, *source.texts)
    if source.is_internal and source.key in source.texts:
        named = tuple(name for name in named if name != source.key)  # it is read to tell events that have none
    twice = [name for name, count in Counter(named).items() if count > 1]
    if twice:
        raise ValueError(f"the field {twice[0]!r} is named twice by source({source.topic!r})")
    for name, (low, high) in source.ranges.items():
        if name not in source.fields:
            hint = did_you_mean(name, source.fields)
            raise ValueError(f"ranges names {name!r}, which is not one of fields={list(source.fields)}{hint}")
        if not low <= high:
            raise ValueError(f"the range of {name!r} begins with {low} and ends with {high}")


def _check_merge(plan: Plan) -> None:
    """Check that all steps come after the streams were merged, and that the streams' names differ."""
    merge = plan.merge
    if merge is None:
        return
    for name in plan.input_names:
        if not _INPUT.fullmatch(name):
            raise ValueError(f"merge: {name!r} is no name of an input: a letter, then up to 39 of a-z, 0-9 and _")
    after = {step.id for step in plan.steps if merge in plan.above(step)}
    for step in plan.steps:
        if step.id not in after and step is not merge and not isinstance(step.verb, Source | Deduplicate | Reorder):
            raise ValueError(f"{step.id} comes before merge: let it come after it")
        if step.id in after and isinstance(step.verb, To):
            raise ValueError(
                f"{step.id}: the events of several sources are of several schemas, which no topic has: write rows of "
                "them, with .process(...), .fold(...) or .window(...)"
            )


def _check_order(plan: Plan) -> None:
    """Check that folds, windows and clean events come after one deduplication and one reordering."""
    seen: dict[str | None, frozenset[str]] = {None: frozenset()}
    for step in plan.steps:
        before = seen[step.after]
        match step.verb:
            case Deduplicate() if "deduplicate" in before:
                raise ValueError("deduplicate is there twice: once is enough, whatever comes in between")
            case Deduplicate() if "reorder" in before:
                raise ValueError("deduplicate comes before reorder: an event is held once, not each of its copies")
            case Reorder() if "reorder" in before:
                raise ValueError("reorder is there twice: once is enough")
            case FoldTo() | WindowTo() | SessionTo() if "reorder" not in before:
                raise ValueError(f"{step.id} needs events in order: call .reorder() before it")
            case FoldTo() | WindowTo() | SessionTo() if "deduplicate" not in before:
                raise ValueError(f"{step.id} would fold copies twice: call .deduplicate() before it")
            case Process(spec=spec) if spec.keyed and not {"deduplicate", "reorder"} <= before:
                raise ValueError(f"{step.id} keeps rows by key: call .deduplicate() and .reorder() before it")
            case _:
                pass
        seen[step.id] = before | {step.verb.kind}


def _check_topics(plan: Plan) -> None:
    if not plan.topics:
        raise ValueError(
            "nothing comes out of it: end it with .to(topic), .fold(..., to=topic) or .window(..., to=topic)"
        )
    for step in plan.steps:
        if isinstance(step.verb, Filter | MapBatches) and not plan.following(step):
            raise ValueError(f"nothing comes out after {step.id}: end the branch with a step that writes a topic")
    sources = [source.topic for source in plan.sources]
    own = dict.fromkeys(sources, "its source")
    own |= {f"{source}{suffix}": f"written for {source} already" for source in sources for suffix in _SUFFIXES}
    for topic in (*sources, *plan.topics):
        if not _TOPIC.fullmatch(topic):
            raise ValueError(f"{topic!r} is no name of a topic: 1 to 200 of A-Z, a-z, 0-9, '.', '_' and '-'")
    for topic, count in Counter(plan.topics).items():
        if count > 1:
            raise ValueError(f"{topic} is written twice: each output has a topic of its own")
        if topic in own:
            raise ValueError(f"{topic} cannot be an output of it: {own[topic]}")


_SUFFIXES: Final = (LATE_SUFFIX, DEAD_LETTERS_SUFFIX, f"{DEAD_LETTERS_SUFFIX}.audit", JOURNAL_SUFFIX)


def _check_folds(plan: Plan) -> None:
    """Check that a fold reads only declared fields: it is tried on one event that has just those."""
    for step in plan.steps:
        if not isinstance(step.verb, FoldTo | WindowTo | SessionTo):
            continue
        fields = plan.fields_at(step)
        known = (*fields.payload, *fields.texts)
        for name in getattr(step.verb.aggregate, "reads", ()):
            if name not in known:
                raise ValueError(_undeclared(step, name, known))
        try:
            _try_on_one_event(step.verb.aggregate, fields)
        except LookupError as error:
            named = re.search(r"'([^']+)'", str(error))
            if named is not None:
                raise ValueError(_undeclared(step, named[1], known)) from None
            raise ValueError(
                f"{step.id} reads more than source({plan.source.topic!r}) declares: fields={list(fields.payload)}, "
                f"texts={list(fields.texts)} ({error})"
            ) from None


def _undeclared(step: Step, name: str, known: Iterable[str]) -> str:
    return f"{step.id} reads {name!r}, which is in neither fields nor texts of the source{did_you_mean(name, known)}"


def _try_on_one_event(aggregate: Any, fields: Fields) -> None:
    zero = np.zeros(1, dtype=np.int64)
    segments = Segments(
        event_time=zero,
        sequence=zero,
        payload=np.zeros((len(fields.payload), 1)),
        texts=object_rows([np.array([b""], dtype=object)] * len(fields.texts), 1),
        prior=zero,
        start=zero,
        end=zero,
        fields=fields,
    )
    with np.errstate(all="ignore"):
        aggregate.fold(empty_rows(aggregate.dtype, 1), segments)


def _check_operators(plan: Plan) -> None:
    for step in plan.steps:
        if isinstance(step.verb, Process):
            _check_operator(step, step.verb.spec)


def _check_sinks(plan: Plan) -> None:
    for name, count in Counter(sink.name for sink in plan.sinks).items():
        if count > 1:
            raise ValueError(f"two sinks are called {name}: give them different names (name=...)")
    for sink in plan.sinks:
        if sink.topic not in plan.topics:
            hint = did_you_mean(sink.topic, plan.topics)
            raise ValueError(f"sink {sink.name} reads {sink.topic}, which is no output of the flow{hint}")


def _check_operator(step: Step, spec: OperatorSpec) -> None:
    """Check that an operator's state and topics have names of their own, and that its topics can be moved."""
    if not _OPERATOR.fullmatch(spec.name):
        raise ValueError(f"the name of {step.id} is 1 to 100 of A-Z, a-z, 0-9, '.', '_' and '-': its state goes by it")
    with_topics(spec, {output.topic: f"moved.{output.topic}" for output in spec.outputs})
    for state in spec.keyed:
        output = next((one for one in spec.outputs if one.topic == state.name), None)
        if state.is_table and (output is None or output.columns is None or not output.is_compacted):
            raise ValueError(
                f"{step.id} keeps the table {state.name}, which its state is restored from: outputs has that topic "
                f"with columns, empty and is_compacted=True"
            )
