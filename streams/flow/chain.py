"""The operators of a flow: in which order they run, and whose events each of them gets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from streams.flow.declaration import Pipeline, Window
from streams.operators.dedup.operator import Dedup
from streams.operators.fold.operator import FoldTable
from streams.operators.merge.operator import Merge
from streams.operators.quarantine.operator import Quarantine
from streams.operators.reorder.operator import Reorder
from streams.operators.spec import OperatorSpec
from streams.operators.stateless.counted import Counted
from streams.operators.stateless.publish import Publish
from streams.operators.window.spec import SessionWindow, TumblingWindow

SOURCE: Final = ""
"""Name of the source in place of an operator's name."""
CLEAN: Final = "to"
"""Place of the step that writes the clean topic."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An operator at its place in the tree."""

    spec: OperatorSpec
    after: str
    """Name of the operator whose events it gets; `SOURCE`: those of the source, as `source_name` says of others."""
    decides: bool
    """Whether it is on the way from the source to the clean topic: only there an event gets its outcome, once."""
    also_after: tuple[str, ...] = ()
    """Further operators whose events it merges with those of `after`."""

    @property
    def givers(self) -> tuple[str, ...]:
        """Names of all operators whose events it gets."""
        return (self.after, *self.also_after)


def source_name(number: int) -> str:
    """Name of an input of the flow in place of an operator's name; inputs are counted from 0."""
    return f"{SOURCE}#{number}" if number else SOURCE


def operators_of(pipeline: Pipeline) -> tuple[OperatorSpec, ...]:
    """The operators that `pipeline` declares, in the order in which they run.

    Raises:
        ValueError: two operators have the same name or record a bound under the same one, or rows by key have no table
            to travel with.

    """
    return tuple(placed.spec for placed in tree_of(pipeline))


def tree_of(pipeline: Pipeline) -> tuple[Placed, ...]:
    """As `operators_of`, with the operators whose events each one gets, which come before it.

    Raises:
        ValueError: as `operators_of`.

    """
    bounds = pipeline.bounds
    gate = Quarantine(bounds.quarantine_rejects, bounds.quarantine_cooldown_ms)
    beside = _further_chains(pipeline)
    chain = _in_order(pipeline)
    specs = (gate, *(spec for one in beside for spec in one), *chain.values())
    if twice := _first_repeated([spec.name for spec in specs]):
        raise ValueError(f"{pipeline.name}: two operators are called {twice!r}")
    recorded = (one.recorded for one in pipeline.further_inputs)
    bounds_named = [*bounds.recorded, *(name for one in recorded for name in one)]
    if twice := _first_repeated([*bounds_named, *(name for spec in specs for name in spec.bounds)]):
        raise ValueError(
            f"{pipeline.name}: the bound {twice!r} is recorded twice: let its name begin with that of the operator"
        )
    after: dict[str, str] = {gate.name: SOURCE}
    for number, one in enumerate(beside, 1):
        names = [spec.name for spec in one]
        after |= dict(zip(names, [source_name(number), *names[:-1]], strict=True))
    before = [gate.name, *(spec.name for spec in chain.values())]
    for (place, spec), previous in zip(chain.items(), before, strict=False):
        above = pipeline.branches.get(place)
        after[spec.name] = previous if above is None else chain[above].name if above else SOURCE
    ends = tuple(one[-1].name for one in beside)
    way = {name for last in (chain[CLEAN].name, *ends) for name in _way(after, last)}
    merging = chain[CLEAN].name
    return tuple(
        Placed(spec, after[spec.name], spec.name in way, ends if spec.name == merging else ())
        for spec in _with_carrier(pipeline, specs, after)
    )


def _further_chains(pipeline: Pipeline) -> list[tuple[OperatorSpec, ...]]:
    """For each input beside the source, the operators that its events pass before they are merged."""
    return [
        (
            Quarantine(one.bounds.quarantine_rejects, one.bounds.quarantine_cooldown_ms, one.name),
            *(() if one.is_table else (Dedup(one.bounds.horizon_ms, one.late, one.name),)),
            Reorder(one.late, one.name),
        )
        for one in pipeline.further_inputs
    ]


def _in_order(pipeline: Pipeline) -> dict[str, OperatorSpec]:
    """Operators by their place in the order of the flow."""
    own, bounds = pipeline.declared_topic, pipeline.bounds
    declared: dict[str, OperatorSpec] = {
        "deduplicate": Dedup(bounds.horizon_ms, pipeline.late),
        "reorder": Reorder(pipeline.late),
        CLEAN: _becomes_clean(pipeline),
        **{f"to:{own(topic)}": Publish(topic, outcome="") for topic in pipeline.event_topics},
        **{f"fold:{own(table.topic)}": FoldTable(table.topic, table.aggregate) for table in pipeline.tables},
        **{place: spec for one in pipeline.windows for place, spec in _windows(one, own(one.topic))},
    }
    custom = {spec.name: spec for spec in pipeline.operators}
    clash = declared.keys() & custom.keys()
    if clash or len(custom) < len(pipeline.operators):
        twice = min(clash) if clash else _first_repeated([spec.name for spec in pipeline.operators])
        raise ValueError(f"{pipeline.name}: two operators are called {twice!r}")
    found = declared | custom
    if not pipeline.order:
        return found
    phases = {place: [each for each in found if each.startswith(f"{place}@")] for place in pipeline.order}
    return {each: found[each] for place in pipeline.order for each in (place, *phases[place])}


def _becomes_clean(pipeline: Pipeline) -> OperatorSpec:
    """The steps after which events are unique and in order."""
    if pipeline.further_inputs:
        return Merge(tuple((one.name, one.fields) for one in pipeline.inputs))
    return Counted() if pipeline.clean_topic is None else Publish(pipeline.clean)


def _windows(one: Window, topic: str) -> Iterator[tuple[str, OperatorSpec]]:
    """Operators of windows, each with its place; `topic` is their topic without the prefix."""
    if one.gap_ms:
        yield f"session:{topic}", SessionWindow(one.topic, one.aggregate, one.gap_ms, one.grace_ms)
        return
    for phase in range(one.phases):
        place = f"window:{topic}@{phase}" if phase else f"window:{topic}"
        yield place, TumblingWindow(one.topic, one.aggregate, one.size_ms, one.grace_ms, one.advance_ms, phase)


def _first_repeated(names: Sequence[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None)


def _way(after: Mapping[str, str], name: str) -> set[str]:
    """Names of an operator and of those that its events have passed."""
    found = set()
    while name in after:
        found.add(name)
        name = after[name]
    return found


def _with_carrier(
    pipeline: Pipeline, specs: Sequence[OperatorSpec], after: Mapping[str, str]
) -> tuple[OperatorSpec, ...]:
    """The operators, where each fold knows which keys its table has; one table has all if other rows travel with it.

    Raises:
        ValueError: rows travel with those of a table, and there is none.

    """
    carried = [state.name for spec in specs for state in spec.keyed if not state.is_table]
    tables = [spec.name for spec in specs if any(state.is_table for state in spec.keyed)]
    if carried and not tables:
        raise ValueError(
            f"{pipeline.name}: the rows of {carried[0]} travel with the rows of a table, so there must be one"
        )
    by_name = {spec.name: spec for spec in specs}
    some = {spec.name for spec in specs if isinstance(spec, FoldTable) and not _gets_all(spec.name, by_name, after)}
    if carried and some.issuperset(tables):
        some.remove(tables[0])
    return tuple(
        replace(spec, has_all_keys=False) if isinstance(spec, FoldTable) and spec.name in some else spec
        for spec in specs
    )


def _gets_all(name: str, specs: Mapping[str, OperatorSpec], after: Mapping[str, str]) -> bool:
    """Whether an operator gets every event that `reorder` passes on."""
    above = specs.get(after[name])
    while above is not None and above.passes_all:
        above = specs.get(after[above.name])
    return isinstance(above, Reorder | Merge)
