"""The tree of operators of a partition, as it is run, and what comes of a run for the committer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from streams.batch.columns import Headers
from streams.engine.effects import PartitionEffects
from streams.flow.chain import Placed, source_name
from streams.operators.base import Operator
from streams.operators.output import EventRecords, Output


@dataclass(frozen=True, slots=True)
class Step:
    """An operator that takes events."""

    name: str
    operator: Operator
    after: tuple[int, ...]
    """Whose outputs it gets: those of inputs, in their order, are followed by those of steps. One that merges gets
    several."""
    gets: frozenset[int]
    """Numbers of the inputs whose events reach the step."""
    decides: bool
    """The same as in `Placed`."""


def steps_of(
    tree: Sequence[Placed], operators: Mapping[str, Operator], gets: Mapping[str, Sequence[int]], inputs: int
) -> list[Step]:
    """Steps in the order in which they run. An operator that overrides neither `process` nor `merge` is passed by.

    `gets` as of `TaskConfig`; so many `inputs` are there.
    """
    steps: list[Step] = []
    outputs = {source_name(number): number for number in range(inputs)}
    for placed in tree:
        name, after = placed.spec.name, tuple(outputs[giver] for giver in placed.givers)
        if not placed.also_after and type(operators[name]).process is Operator.process:
            outputs[name] = after[0]
        else:
            outputs[name] = inputs + len(steps)
            steps.append(Step(name, operators[name], after, frozenset(gets[name]), placed.decides))
    return steps


def collected(
    partition: int,
    input_number: int,
    steps: Sequence[Step],
    outputs: Sequence[Output | None],
    misrouted: int,
    misrouted_keys: Sequence[bytes],
) -> PartitionEffects:
    """The effects of one run, of what came from an input: `outputs` are those of `steps`, None of those that rested.

    An event has one outcome, that of the way to the clean topic. What the other steps drop is counted beside it, and
    what they write says nothing of the outcome.
    """
    records: list[EventRecords] = []
    dropped: Counter[str] = Counter()
    beside: Counter[tuple[str, str]] = Counter()
    found: Counter[str] = Counter()
    replayed: dict[str, list[Headers]] = {}
    for step, output in zip(steps, outputs, strict=True):
        if output is None:
            continue
        found.update(output.found)
        if not step.decides:
            beside.update({(step.name, outcome): count for outcome, count in output.dropped.items()})
            records += [replace(one, outcome="") if one.outcome else one for one in output.records]
            continue
        records += output.records
        dropped.update(output.dropped)
        for outcome, headers in output.dropped_replayed.items():
            replayed.setdefault(outcome, []).extend(headers)
    refused = [one for output in outputs if output is not None for one in output.refused]
    return PartitionEffects(
        partition, records, dropped, replayed, found, refused, misrouted, misrouted_keys, input_number, beside
    )
