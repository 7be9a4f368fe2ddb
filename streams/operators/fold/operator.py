"""Fold as an operator: one row for each key, published at the end of every cycle in which it changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final

from streams.batch.events import Events
from streams.batch.rows import RowLayout, empty_rows
from streams.operators.base import Operator, OperatorContext
from streams.operators.changes import ChangelogRows, Changes
from streams.operators.fold.aggregate import Aggregate
from streams.operators.keyed import ChangedKeys, KnownRows, StoredRows
from streams.operators.output import Output
from streams.operators.spec import KeyedState, OperatorSpec
from streams.operators.trace import WatermarkTrace

CONTRADICTIONS: Final = "contradictions"


def fold_name(topic: str) -> str:
    """Name of the fold that the table `topic` carries."""
    return f"fold.{topic}"


@dataclass(frozen=True)
class FoldTable(OperatorSpec):
    """Declaration: events are folded by key into the rows of the table `topic`."""

    passes_all: ClassVar[bool] = True
    topic: str
    aggregate: Aggregate
    has_all_keys: bool = True
    """Whether the table has a row of each key that the flow knows, also of one whose events do not get here."""

    @property
    def name(self) -> str:
        """By the topic."""
        return fold_name(self.topic)

    def build(self, context: OperatorContext) -> "FoldOperator":
        """An operator without rows."""
        return FoldOperator(self, context)

    @cached_property
    def keyed(self) -> Sequence[KeyedState]:
        """The table's rows."""
        layout = RowLayout.of(self.aggregate.dtype, getattr(self.aggregate, "meanings", None))
        empty = empty_rows(self.aggregate.dtype, 1)
        return (KeyedState(self.topic, self.name, empty, layout, self.aggregate.table, self.has_all_keys),)


class FoldOperator(Operator):
    """Folds."""

    stage = "aggregate"
    takes_references = True

    def __init__(self, spec: FoldTable, context: OperatorContext) -> None:
        self._spec, self._keys = spec, context.keys
        (state,) = spec.keyed
        rows = StoredRows if spec.has_all_keys else KnownRows
        self._rows = context.keys.attach(rows(state.empty, context.space(state.part)))
        self._digest = state.digest
        self._counts_contradictions = CONTRADICTIONS in (spec.aggregate.dtype.names or ())

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Fold the events, and pass them on."""
        if not len(events):
            return Output(events, trace)
        events = self._keys.located(events)
        released = self._keys.segments(events, trace)
        before = self._rows.of(released.slot)
        after = self._spec.aggregate.fold(before, released.segments)
        self._rows.put(released.slot, after, before)
        self._keys.touch(released.slot)
        if not self._counts_contradictions:
            return Output(events, trace)
        found = int(after[CONTRADICTIONS].sum() - before[CONTRADICTIONS].sum())
        return Output(events, trace, found={CONTRADICTIONS: found})

    def changes(self, changed: ChangedKeys) -> Changes:
        """The rows of changed keys, for the store and the table's topic."""
        found, spec = Changes(), self._spec
        here = self._rows.known(changed.slots) if isinstance(self._rows, KnownRows) else None
        mine = changed if here is None else changed.take(here)
        if len(mine):
            rows = self._rows.of(mine.slots)
            self._rows.write(mine, rows, found.store)
            found.changelogs = [ChangelogRows(spec.topic, mine.keys, rows, spec.aggregate.table, self._digest, here)]
        return found
