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
from streams.flow.declaration import DEAD_LETTERS_SUFFIX, JOURNAL_SUFFIX, LATE_SUFFIX, with_topics
from streams.flow.plan import Deduplicate, Filter, FoldTo, MapBatches, Plan, Process, Reorder, Source, Step, WindowTo
from streams.operators.fold.aggregate import Segments
from streams.operators.spec import OperatorSpec

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_OPERATOR: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
_SIMILAR: Final = 0.6
_CUSTOM: Final = "lambda"


def checked(plan: Plan) -> Plan:
    """The plan, if nothing is wrong with it.

    Raises:
        ValueError: something is; the message names the flow and what to do.

    """
    try:
        _check_names(plan)
        _check_source(plan.source)
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
    if len(sources) > 1:
        topics = [step.verb.topic for step in sources if isinstance(step.verb, Source)]
        if len(set(topics)) == 1:
            raise ValueError(f"source({topics[0]!r}) is there twice: let all branches begin with one of them")
        raise ValueError(f"it has several sources, {' and '.join(topics)}: declare a flow for each of them")
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
    named = (source.id, source.key, source.time, source.order, *source.fields, *source.texts)
    twice = [name for name, count in Counter(named).items() if count > 1]
    if twice:
        raise ValueError(f"the field {twice[0]!r} is named twice by source({source.topic!r})")
    for name, (low, high) in source.ranges.items():
        if name not in source.fields:
            hint = did_you_mean(name, source.fields)
            raise ValueError(f"ranges names {name!r}, which is not one of fields={list(source.fields)}{hint}")
        if not low <= high:
            raise ValueError(f"the range of {name!r} begins with {low} and ends with {high}")


def _check_order(plan: Plan) -> None:
    """Folds, windows and clean events come after one deduplication and one reordering."""
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
            case FoldTo() | WindowTo() if "reorder" not in before:
                raise ValueError(f"{step.id} needs events in order: call .reorder() before it")
            case FoldTo() | WindowTo() if "deduplicate" not in before:
                raise ValueError(f"{step.id} would fold copies twice: call .deduplicate() before it")
            case Process(spec=spec) if spec.keyed and not {"deduplicate", "reorder"} <= before:
                raise ValueError(f"{step.id} keeps rows by key: call .deduplicate() and .reorder() before it")
            case _:
                pass
        seen[step.id] = before | {step.verb.kind}


def _check_topics(plan: Plan) -> None:
    source = plan.source.topic
    if not plan.topics:
        raise ValueError(
            "nothing comes out of it: end it with .to(topic), .fold(..., to=topic) or .window(..., to=topic)"
        )
    for step in plan.steps:
        if isinstance(step.verb, Filter | MapBatches) and not plan.following(step):
            raise ValueError(f"nothing comes out after {step.id}: end the branch with a step that writes a topic")
    own = {source: "its source", **{f"{source}{suffix}": f"written for {source} already" for suffix in _SUFFIXES}}
    for topic in (source, *plan.topics):
        if not _TOPIC.fullmatch(topic):
            raise ValueError(f"{topic!r} is no name of a topic: 1 to 200 of A-Z, a-z, 0-9, '.', '_' and '-'")
    for topic, count in Counter(plan.topics).items():
        if count > 1:
            raise ValueError(f"{topic} is written twice: each output has a topic of its own")
        if topic in own:
            raise ValueError(f"{topic} cannot be an output of it: {own[topic]}")


_SUFFIXES: Final = (LATE_SUFFIX, DEAD_LETTERS_SUFFIX, f"{DEAD_LETTERS_SUFFIX}.audit", JOURNAL_SUFFIX)


def _check_folds(plan: Plan) -> None:
    """A fold reads only what the source declares: it is tried on one event that has just that."""
    source = plan.source
    known = (*source.fields, *source.texts)
    for step in plan.steps:
        if not isinstance(step.verb, FoldTo | WindowTo):
            continue
        for name in getattr(step.verb.aggregate, "reads", ()):
            if name not in known:
                raise ValueError(_undeclared(step, name, known))
        try:
            _try_on_one_event(step.verb.aggregate, source)
        except LookupError as error:
            named = re.search(r"'([^']+)'", str(error))
            if named is not None:
                raise ValueError(_undeclared(step, named[1], known)) from None
            raise ValueError(
                f"{step.id} reads more than source({source.topic!r}) declares: fields={list(source.fields)}, "
                f"texts={list(source.texts)} ({error})"
            ) from None


def _undeclared(step: Step, name: str, known: Iterable[str]) -> str:
    return f"{step.id} reads {name!r}, which is in neither fields nor texts of the source{did_you_mean(name, known)}"


def _try_on_one_event(aggregate: Any, source: Source) -> None:
    zero = np.zeros(1, dtype=np.int64)
    segments = Segments(
        event_time=zero,
        sequence=zero,
        payload=np.zeros((len(source.fields), 1)),
        texts=object_rows([np.array([b""], dtype=object)] * len(source.texts), 1),
        prior=zero,
        start=zero,
        end=zero,
        fields=Fields(source.fields, source.texts),
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
    """Its state and its topics can be told apart from those of others, and its topics can be moved."""
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
