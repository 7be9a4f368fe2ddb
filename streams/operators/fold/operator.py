"""Fold as an operator: one row for each key, published at the end of every cycle in which it changed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Final, Self

from streams.batch.events import Events
from streams.batch.rows import RowLayout, concat_rows, empty_rows
from streams.operators.base import Operator, OperatorContext
from streams.operators.changes import ChangelogRows, Changes
from streams.operators.fold.aggregate import Aggregate
from streams.operators.keyed import ChangedKeys, KnownRows, StoredRows
from streams.operators.output import Output
from streams.operators.spec import KeyedState, OperatorSpec
from streams.operators.trace import WatermarkTrace

CONTRADICTIONS: Final = "contradictions"


def fold_name(topic: str) -> str:
    """Name of the fold of the table `topic`."""
    return f"fold.{topic}"


@dataclass(frozen=True)
class FoldTable(OperatorSpec):
    """Declaration: events are folded by key into the rows of the table `topic`."""

    passes_all: ClassVar[bool] = True
    topic: str
    aggregate: Aggregate
    has_all_keys: bool = True
    """Whether the table has a row for each key that the flow knows, including keys whose events do not get here."""

    @property
    def name(self) -> str:
        """Name derived from the topic."""
        return fold_name(self.topic)

    def build(self, context: OperatorContext) -> "FoldOperator":
        """Create the operator of one partition, without rows."""
        return FoldOperator(self, context)

    @cached_property
    def keyed(self) -> Sequence[KeyedState]:
        """The table's rows."""
        layout = RowLayout.of(self.aggregate.dtype, getattr(self.aggregate, "meanings", None))
        empty = empty_rows(self.aggregate.dtype, 1)
        return (KeyedState(self.topic, self.name, empty, layout, self.aggregate.table, self.has_all_keys),)


class FoldOperator(Operator):
    """Folds events into a row per key."""

    stage = "aggregate"
    takes_references = True

    def __init__(self, spec: FoldTable, context: OperatorContext) -> None:
        self.spec, self.keys = spec, context.keys
        (state,) = spec.keyed
        rows = StoredRows if spec.has_all_keys else KnownRows
        self.rows = context.keys.attach(rows(state.empty, context.space(state.part)))
        self._digest = state.digest
        self.counts_contradictions = CONTRADICTIONS in (spec.aggregate.dtype.names or ())

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Fold the events, and pass them on."""
        [found] = self.process_all([self], [Output(events, trace)])
        return found

    @classmethod
    def process_all(cls, operators: Sequence[Self], given: Sequence[Output]) -> list[Output]:
        """Fold the events of all partitions at once."""
        found = [Output(one.keys.located(it.events), it.trace) for one, it in zip(operators, given, strict=True)]
        busy = [at for at, one in enumerate(found) if len(one.events)]
        if not busy:
            return found
        some = [operators[at] for at in busy]
        released = some[0].keys.segments_of_all(
            [one.keys for one in some], [(found[at].events, found[at].trace) for at in busy]
        )
        before = concat_rows([one.rows.of(part.slot) for one, part in zip(some, released.parts, strict=True)])
        after = some[0].spec.aggregate.fold(before, released.segments)
        for number, (one, part) in enumerate(zip(some, released.parts, strict=True)):
            mine = slice(released.bounds[number], released.bounds[number + 1])
            one.rows.put(part.slot, after[mine], before[mine])
            one.keys.touch(part.slot)
            if one.counts_contradictions:
                grown = int(after[mine][CONTRADICTIONS].sum() - before[mine][CONTRADICTIONS].sum())
                found[busy[number]] = replace(found[busy[number]], found={CONTRADICTIONS: grown})
        return found

    def changes(self, changed: ChangedKeys) -> Changes:
        """The rows of changed keys, for the store and the table's topic."""
        found, spec = Changes(), self.spec
        here = self.rows.known(changed.slots) if isinstance(self.rows, KnownRows) else None
        mine = changed if here is None else changed.take(here)
        if len(mine):
            rows = self.rows.of(mine.slots)
            self.rows.write(mine, rows, found.store)
            found.changelogs = [ChangelogRows(spec.topic, mine.keys, rows, spec.aggregate.table, self._digest, here)]
        return found
