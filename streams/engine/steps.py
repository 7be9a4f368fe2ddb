"""The tree of operators of a partition, as it is run, and what comes of a run for the committer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from streams.batch.columns import Headers
from streams.engine.effects import PartitionEffects
from streams.flow.chain import SOURCE, Placed
from streams.operators.base import Operator
from streams.operators.output import EventRecords, Output


@dataclass(frozen=True, slots=True)
class Step:
    """An operator that takes events."""

    name: str
    operator: Operator
    after: int
    """Whose output it gets: 0, what came in; n, that of the n-th step."""
    decides: bool
    """As of `Placed`."""


def steps_of(tree: Sequence[Placed], operators: Mapping[str, Operator]) -> list[Step]:
    """Steps in the order in which they run. An operator that does not override `process` is passed by."""
    steps: list[Step] = []
    outputs = {SOURCE: 0}
    for placed in tree:
        name, after = placed.spec.name, outputs[placed.after]
        if type(operators[name]).process is Operator.process:
            outputs[name] = after
        else:
            steps.append(Step(name, operators[name], after, placed.decides))
            outputs[name] = len(steps)
    return steps


def collected(
    partition: int, steps: Sequence[Step], outputs: Sequence[Output], misrouted: int, misrouted_keys: Sequence[bytes]
) -> PartitionEffects:
    """The effects of one run: `outputs` are those of `steps`.

    An event has one outcome, that of the way to the clean topic. What the other steps drop is counted beside it, and
    what they write says nothing of the outcome.
    """
    records: list[EventRecords] = []
    dropped: Counter[str] = Counter()
    beside: Counter[tuple[str, str]] = Counter()
    found: Counter[str] = Counter()
    replayed: dict[str, list[Headers]] = {}
    for step, output in zip(steps, outputs, strict=True):
        found.update(output.found)
        if not step.decides:
            beside.update({(step.name, outcome): count for outcome, count in output.dropped.items()})
            records += [replace(one, outcome="") if one.outcome else one for one in output.records]
            continue
        records += output.records
        dropped.update(output.dropped)
        for outcome, headers in output.dropped_replayed.items():
            replayed.setdefault(outcome, []).extend(headers)
    refused = [one for output in outputs for one in output.refused]
    return PartitionEffects(
        partition, records, dropped, replayed, found, refused, misrouted, misrouted_keys, beside=beside
    )
