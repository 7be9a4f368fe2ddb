"""How an operator is declared: a frozen value that says what it is called, what it remembers and what it writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from streams.avro.decoded import Decoded
from streams.batch.clock import Clock
from streams.batch.events import Fields
from streams.batch.records import Records
from streams.batch.rows import RowLayout, Rows
from streams.operators.base import Operator, OperatorContext
from streams.operators.changes import ToColumns
from streams.state.identity import Consequences, SettingsByName, row_digest


@dataclass(frozen=True)
class OutputTopic:
    """A topic that an operator of your own writes: `RowRecords` and `ChangelogRows`, or `EventRecords`.

    `streams topics apply` creates it, the schema gate compares `columns` with the schema of `subject`.
    """

    topic: str
    columns: ToColumns | None = None
    """Gives the public rows, as that of the `RowRecords`; None: events go there as they came."""
    empty: Rows | None = None
    """One row of those that `columns` gets: that of a key without events. Every column whose value may be missing is
    null in what `columns` makes of it."""
    subject: str = ""
    """Subject of the rows' schema; empty: `<topic>-value`, of the topic without a prefix."""
    is_compacted: bool = False
    """Whether Kafka keeps the last row of each key, instead of all rows of a week."""
    symbols: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Strings that a column may have, by its name, where the schema has an enum for it."""
    is_internal: bool = False
    """Whether only another stage of the same flow reads it: Kafka keeps what that has not consumed, and no more."""

    def __post_init__(self) -> None:
        if (self.columns is None) is not (self.empty is None):
            raise ValueError(f"{self.topic}: an output of rows has both columns and empty, one of events neither")


@dataclass(frozen=True)
class KeyedState:
    """Rows of state by key: where they are, how they are laid out, and which topic brings them back."""

    name: str
    """Name of the topic that the rows belong to, or of the operator if they belong to no topic."""
    part: str
    """Name of the part of the store that they are in."""
    empty: Rows
    """One row: that of a key without events."""
    layout: RowLayout
    table: ToColumns | None = None
    """Their public rows, if the topic of this name is their changelog; others travel with rows of the flow's tables."""
    has_all_keys: bool = True
    """For a table: whether it has a row of every key that the flow knows, even one whose events do not reach the
    table."""

    @property
    def is_table(self) -> bool:
        """Whether a topic of their own is their changelog."""
        return self.table is not None

    @property
    def digest(self) -> bytes:
        """Stands for name and layout where rows are written."""
        return row_digest(self.name, self.layout)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Layout of a row in memory."""
        found: np.dtype[Any] = self.empty.dtype
        return found


def named_for(name: str, input_name: str) -> str:
    """Name of what belongs to one input of a flow; that of a flow's first one is just `name`."""
    return f"{name}.{input_name}" if input_name else name


class RecordGate(Protocol):
    """Keeps records out before they are decoded; its operators, one for each partition, remember which."""

    def at_start(self, records: Records, states: Mapping[int, Any], clock: Clock) -> frozenset[int]:
        """Rows that are kept out by what came before the batch: they need not be decoded."""

    def judge(
        self, records: Records, decoded: Decoded, skip: frozenset[int], states: Mapping[int, Any], clock: Clock
    ) -> Decoded:
        """What was decoded without the records that are kept out, which become rejects; remembers the others."""


class OperatorSpec:
    """An operator as a flow declares it: a frozen value, from which each partition makes its own operator."""

    passes_all: ClassVar[bool] = False
    """Whether it passes on every event that it gets: what comes after it lacks none."""

    @property
    def gate(self) -> RecordGate | None:
        """What keeps records out before they are decoded, by what its operators remember; None: nothing."""
        return None

    @property
    def name(self) -> str:
        """Stable and unique within the flow: it names the operator's part of store and journal."""
        raise NotImplementedError

    def build(self, context: OperatorContext) -> Operator:
        """The operator of one partition, without any state."""
        raise NotImplementedError

    def passes_on(self, given: Sequence[Fields]) -> Fields:
        """Fields of the events that it passes on, by those of the events that it gets from each of its givers."""
        return given[0]

    @property
    def keyed(self) -> Sequence[KeyedState]:
        """Rows by key that it keeps."""
        return ()

    @property
    def outputs(self) -> Sequence[OutputTopic]:
        """Topics that it writes, beside those that the flow's verbs name."""
        return ()

    def with_topics(self, topics: Mapping[str, str]) -> Self:
        """The same operator, each output in `topics` replaced by another one.

        Where it is a dataclass, each field that is the name of an output is replaced. Override this when a topic is
        held in another way.
        """
        moved = {one.topic: topics[one.topic] for one in self.outputs if one.topic in topics}
        declared: Any = self
        has_fields = is_dataclass(declared)
        if not moved or not has_fields:
            return self
        held = {one.name: getattr(declared, one.name) for one in fields(declared) if one.init}
        changed = {name: moved[it] for name, it in held.items() if isinstance(it, str) and it in moved}
        found: Self = replace(declared, **changed)
        return found

    @property
    def settings(self) -> Mapping[str, Mapping[str, int]]:
        """Numbers that its stored state depends on, by name: part of the state's identity."""
        return {}

    @property
    def bounds(self) -> Mapping[str, int]:
        """Numbers that decide results and may change: part of the state's identity.

        Nothing else in the flow has numbers of these names.
        """
        return {}

    @property
    def journal_ms(self) -> int:
        """For how long, in event time, its sections of the journal matter.

        What is older than the watermark by the longest of a flow's operators may be cut off.
        """
        return 0

    def judge_change(self, bounds: Mapping[str, int], settings: SettingsByName) -> Consequences:
        """What follows for its state when that was written under these `bounds` and `settings`.

        They are those of the whole flow; what is missing is not known. Another bound counts from now on, another
        setting is refused.
        """
        migrated = [
            f"{name} of {self.name} is {now} now (was {bounds[name]}): it counts from now on"
            for name, now in self.bounds.items()
            if bounds.get(name, now) != now
        ]
        refused = [
            f"{name} of {owner} was {before} and is {now.get(name)} now: its state cannot be continued. Give the "
            "operator another name and other topics"
            for owner, now in self.settings.items()
            for name, before in settings.get(owner, now).items()
            if now.get(name) != before
        ]
        return Consequences(tuple(refused), tuple(migrated))

    @property
    def parts(self) -> Mapping[str, str]:
        """Names of its parts of the store, by what they hold in words."""
        return {}
