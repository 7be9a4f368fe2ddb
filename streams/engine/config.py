"""What all tasks of a flow share: the declaration with the bounds in force, and the worker's part."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property

from streams.batch.columns import Int64
from streams.batch.event_ids import AddIds
from streams.batch.events import Fields
from streams.batch.refs import KeyMap
from streams.engine.refusals import Refusals
from streams.flow.chain import Placed, source_name, tree_of
from streams.flow.declaration import Pipeline
from streams.flow.identity import identity_of, judged
from streams.flow.inputs import Input
from streams.growth.home import Home
from streams.operators.base import OperatorContext
from streams.operators.keyed import KeySpace
from streams.operators.spec import KeyedState, OperatorSpec
from streams.operators.trace import complete_below
from streams.state.identity import Identity, Judgement, Places
from streams.state.journal import Position
from streams.state.space import StoreSpace
from streams.state.store import Store

Stopwatch = Callable[[str], AbstractContextManager[None]]
"""Measures the block it guards under an operator's name."""


@dataclass(frozen=True)
class TaskConfig:
    """What all tasks of a flow share."""

    pipeline: Pipeline
    """The flow, with the bounds in force."""
    stopwatch: Stopwatch
    partitions_of: Callable[[Sequence[bytes]], Int64]
    """The partition of the source that each key belongs to, in the first layout."""
    seed: int = 0
    """Seed of the id set's hash: unpredictable in production, fixed in a simulation."""
    add_ids: AddIds | None = None
    """Native insert into the id set; None: done by numpy."""
    key_map: Callable[[], KeyMap] | None = None
    """Makes an empty native map from keys to slots; None: a Python dictionary is used."""
    symbols: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Symbols of the source's payload fields that are enums, in the order of the reader schema; those of further inputs
    by `Input.named`."""

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """The inputs, in their order."""
        return self.pipeline.inputs

    @cached_property
    def further_names(self) -> tuple[str, ...]:
        """Names of the inputs beside the source."""
        return tuple(one.name for one in self.inputs[1:])

    @cached_property
    def position_names(self) -> tuple[str, ...]:
        """Names of the inputs in the journal: the source's topic, and the names of the others."""
        return (self.pipeline.source, *self.further_names)

    @property
    def fields(self) -> Fields:
        """Fields of the source's events."""
        return self.inputs[0].fields

    @cached_property
    def gets(self) -> Mapping[str, tuple[int, ...]]:
        """By operator name, numbers of the inputs whose events reach it."""
        found: dict[str, tuple[int, ...]] = {source_name(number): (number,) for number in range(len(self.inputs))}
        for placed in self.tree:
            found[placed.spec.name] = tuple(dict.fromkeys(each for giver in placed.givers for each in found[giver]))
        return found

    @cached_property
    def fields_given(self) -> Mapping[str, Fields]:
        """By operator name, fields of the events that it gets; for one that merges, those of its first input."""
        passed = {source_name(number): one.fields for number, one in enumerate(self.inputs)}
        given: dict[str, Fields] = {}
        for placed in self.tree:
            fields = [passed[giver] for giver in placed.givers]
            given[placed.spec.name], passed[placed.spec.name] = fields[0], placed.spec.passes_on(fields)
        return given

    def watermark_of(self, operator: str, positions: Sequence[Position]) -> int:
        """An operator's watermark with the inputs at `positions`: its events are complete up to there."""
        numbers = self.gets[operator]
        if len(numbers) == 1:
            return positions[numbers[0]].watermark
        return complete_below(min(positions[number].watermark for number in numbers))

    @cached_property
    def tree(self) -> tuple[Placed, ...]:
        """The operators that each partition runs, each with the operators whose events it gets."""
        return tree_of(self.pipeline)

    @cached_property
    def operators(self) -> tuple[OperatorSpec, ...]:
        """The operators of `tree`, in the order in which they run."""
        return tuple(placed.spec for placed in self.tree)

    @property
    def keyed(self) -> tuple[KeyedState, ...]:
        """Rows by key that the operators keep."""
        return tuple(state for spec in self.operators for state in spec.keyed)

    @cached_property
    def journal_ms(self) -> int:
        """How long, in event time, journal records are needed."""
        return max((spec.journal_ms for spec in self.operators), default=0)

    def identity(self, places: Places) -> Identity:
        """Identity of state that this configuration computes, with the topics at `places`."""
        return identity_of(self.pipeline, self.operators, places, self.symbols)

    def judged(self, found: Identity, declared: Identity) -> Judgement:
        """What the identity `found` means for state under the `declared` one."""
        return judged(found, declared, self.pipeline, self.operators)

    def home(self, partition: int) -> Home:
        """Which keys a partition keeps state of, in the first layout."""
        return Home(partition, lambda keys: self.partitions_of(keys) == partition)

    def context(self, home: Home, partition: int, store: Store, refusals: Callable[[], Refusals]) -> OperatorContext:
        """The context for building the operators of a partition over `store`."""
        return OperatorContext(
            partition=partition,
            fields=self.fields,  # `PartitionState` sets the fields for each operator
            space=lambda name: StoreSpace(store, name),
            keys=KeySpace(home.has, None if self.key_map is None else self.key_map()),
            home=home,
            refusals=refusals,
            seed=self.seed,
            add_ids=self.add_ids,
        )
