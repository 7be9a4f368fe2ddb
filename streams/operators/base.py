"""The contract between an operator and the engine.

A flow's partition is a chain of operators. Each gets the decoded events of a micro-batch that the one before it passed
on, and says what comes of them: events for the next one, records for topics, counts. What an operator remembers is its
own: its rows in the store, its section of the journal, its part of memory. The engine commits all of it with the
offsets, brings it back after a restart and never looks into it. To add an operator, subclass `Operator` and
`OperatorSpec`, and declare it in a flow with `.process(spec)`; no module of the engine changes.

Operators are columnar and synchronous. They have no clock, no Kafka and no random numbers, and reach no more of the
store than their own part: what they do is a function of the events, however these were cut into micro-batches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Final, Protocol, Self

import numpy as np
import pyarrow as pa

from streams.avro.decode import Decoded
from streams.batch.clock import Clock
from streams.batch.columns import TIME_MIN, Bools, Headers, Objects
from streams.batch.events import Events, Fields
from streams.batch.records import Records
from streams.batch.rows import RowLayout, Rows
from streams.operators.keyed import ChangedKeys, KeySpace
from streams.operators.trace import NEVER, WatermarkTrace
from streams.state.identity import Consequences, SettingsByName, row_digest
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

ALL: Final = int(np.iinfo(np.int64).max)
"""An event time, a number of rows or of bytes that nothing exceeds."""


# --- what comes of a micro-batch --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EventRecords:
    """Events that go to a topic as they came: key, value, headers; in this order."""

    topic: str
    events: Events
    outcome: str
    """What the events are counted as, and what is told of those that were replayed: `clean`, `late`. Empty: they go on
    to other operators as well, which decide that."""

    def take(self, rows: Bools) -> "EventRecords":
        """Only those at `rows`."""
        return replace(self, events=self.events.take(rows))

    def headers(self, originals: Sequence[Headers | None] | None) -> Sequence[Headers | None] | None:
        """Headers of each record, given those that its event came with."""
        return originals


@dataclass(frozen=True, slots=True)
class RefusedEvents:
    """Events that become dead letters since an output has refused them, and why, in words."""

    events: Events
    """`row` is the one in the micro-batch that they came in; -1: they were held from an earlier one."""
    messages: list[str]


@dataclass(frozen=True, slots=True)
class Output:
    """What an operator makes of a micro-batch."""

    events: Events
    """For the next operator, in the order in which it shall see them."""
    trace: WatermarkTrace
    """Of these events."""
    records: Sequence[EventRecords] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Events that go nowhere, by outcome: `duplicate`, `filtered`."""
    dropped_replayed: Mapping[str, Sequence[Headers]] = field(default_factory=dict)
    """Headers of those of them that were replayed from dead letters, by outcome: somebody waits to hear of them."""
    found: Mapping[str, int] = field(default_factory=dict)
    """What was noticed and changes nothing, by name: `contradictions`."""
    refused: Sequence[RefusedEvents] = ()


class RefusedOutputs(Protocol):
    """What outputs have refused. False when there is nothing."""

    def __bool__(self) -> bool: ...

    def messages(self, events: Events) -> dict[int, str]:
        """Those of `events` that become dead letters: position and why."""


# --- what is committed at the end of a cycle --------------------------------------------------------------------------

ToColumns = Callable[[Objects, Rows], pa.RecordBatch]
"""Keys and rows of state to public rows, in the field order of the topic's schema."""


@dataclass(frozen=True, slots=True)
class RowRecords:
    """Rows for a topic, one record each; the partition goes by the key."""

    topic: str
    keys: Objects
    rows: Rows
    columns: ToColumns

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class ChangelogRows(RowRecords):
    """The newest row of each changed key, for a compacted topic that the state is restored from.

    Of all `ChangedKeys`, in their order: what other operators carry goes with these rows.

    A record goes to the partition that the state belongs to, and has the row itself in a header.
    """

    digest: bytes = b""
    """Stands for topic and layout of the rows (`state.identity.row_digest`)."""


@dataclass(frozen=True, slots=True)
class CarriedRows:
    """Rows of changed keys, in the order of `ChangedKeys`, that travel with the rows of the flow's tables."""

    digest: bytes
    rows: Rows


@dataclass(slots=True)
class Changes:
    """What an operator adds to a cycle that ends."""

    sections: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    """For the journal, by name (the operator's, or one that no other has): one piece, or several of at most
    `JOURNAL_RECORD_BYTES_MAX` bytes each (a single row may be larger). All pieces of a section are replayed in their
    order."""
    event_time_max: int = TIME_MIN
    """Up to which event time the sections matter: see `OperatorSpec.journal_ms`."""
    is_of_cycle_end: bool = False
    """Whether they matter up to the watermark at the cycle's end, whatever event times they hold."""
    store: WriteBatch = field(default_factory=WriteBatch)
    """Written with the checkpoint, once the cycle is committed."""
    changelogs: Sequence[ChangelogRows] = ()
    carried: CarriedRows | None = None
    rows: Sequence[RowRecords] = ()


# --- restore and relief -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Replayed:
    """A journal record, as a restore reads it."""

    sections: Mapping[str, memoryview]
    is_new: bool
    """Whether it is of a cycle that the store does not have. Of others only what was kept in memory is wanted."""
    watermark: int
    """Where it stood before this record's cycle."""


@dataclass(frozen=True, slots=True)
class RestoreBudget:
    """What an operator may keep in memory while the journal is read; the rest goes to its part of the store."""

    rows_max: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class Spill:
    """How much shall be moved from memory to the store."""

    below: int
    """State of events before this event time, as far as it is kept by event time."""
    rows_keep: int = ALL
    """Of what is kept by number: so many rows,"""
    bytes_keep: int = ALL
    """and about so many bytes, stay."""


@dataclass(slots=True)
class OperatorContext:
    """What an operator of one partition is made with."""

    partition: int
    fields: Fields
    space: Callable[[str], StoreSpace]
    """Part of the store by name: the operator's, or one that begins with it and a dot."""
    keys: KeySpace
    """Keys of the partition, for operators that keep a row for each."""
    refusals: Callable[[], RefusedOutputs]
    seed: int = 0
    """Of hashes: unpredictable in production, fixed in a simulation."""


class Operator:
    """One operator of one partition. What a subclass does not keep, it need not override.

    Order of calls: `replay` of each journal record, `journal_restored`, `rows_restored`; then `process` any number of
    times, `changes` at the end of a cycle, `applied` once that is committed. `spill` and `expire` come between cycles,
    when nothing is open or in flight. After an aborted cycle the operator is dropped, and a new one is restored.
    """

    stage: str = ""
    """Name under which its time is measured; empty: it is not."""

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Take the events that the operator before it has passed on.

        There may be none: the watermark moves all the same, when only other partitions' time or idle time goes on.
        """
        return Output(events, trace)

    def next_timer(self) -> int:
        """Watermark at which something happens without an event; `NEVER` when nothing does."""
        return NEVER

    def is_overdue(self, watermark: int) -> bool:
        """Whether something was due up to `watermark` and was left for the next cycle. Asked often; must be cheap."""
        del watermark
        return False

    # --- the commit cycle ---

    def changes(self, changed: ChangedKeys) -> Changes:
        """Everything since the last call. `changed` are the keys that were touched since, each once."""
        del changed
        return Changes()

    def applied(self, journal_first: int) -> None:
        """The newest changes are committed; their journal records begin at this offset."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing has changed since `changes`, beyond what comes of events."""
        return True

    def journal_needed(self, cut: int) -> int | None:
        """The oldest journal offset that is still needed of those before `cut`; None when none is.

        The operator shall write again what is there with the next cycle, so that it is not asked for long.
        """
        del cut
        return None

    # --- restore ---

    def replay(self, record: Replayed, budget: RestoreBudget) -> int:
        """Take what a journal record has of this operator; returns the number of its rows.

        Raises:
            JournalCorrupted: the section is not one.

        """
        del record, budget
        return 0

    def bound_replay(self, watermark: int, budget: RestoreBudget) -> int:
        """Keep to the budget while the journal is read: `spill` where there is too much, at the current watermark.

        Returns what `spill` does.
        """
        del watermark, budget
        return ALL

    def journal_restored(self, watermark: int, marks: Mapping[str, int]) -> None:
        """The journal has been read, and the partition stands at `watermark`; `marks` are those of the checkpoint.

        Raises:
            JournalCorrupted: what the store holds cannot be read.

        """

    def rows_restored(self) -> None:
        """Keyed rows have been brought forward from the changelogs."""

    def bounds_changed(self, found: Mapping[str, int], watermark: int) -> None:
        """State goes on that was written under the bounds `found`, the partition standing at `watermark`."""

    @property
    def marks(self) -> Mapping[str, int]:
        """Numbers that the checkpoint keeps for it, by name."""
        return {}

    def marked_sections(self) -> Mapping[str, Sequence[bytes]]:
        """Sections of a cycle in which nothing has changed, as far as they say what `marks` says."""
        return {}

    def begin_again(self, batch: WriteBatch) -> None:
        """Records between store and journal were cut off: forget what the journal has in full from here on."""

    def snapshot(self, watermark: int, marks: Mapping[str, int]) -> Changes:
        """The whole state in the store as the sections of one cycle, to write a journal that was lost again."""
        del watermark, marks
        return Changes()

    # --- between cycles ---

    def spill(self, goal: Spill, watermark: int, batch: WriteBatch) -> int:
        """Move state to the store. Returns the event time below which nothing is in memory only."""
        del goal, watermark, batch
        return ALL

    def expire(self, watermark: int, batch: WriteBatch) -> int:
        """Forget what is too old to matter. Returns what `spill` does."""
        del watermark, batch
        return ALL

    def keys_forgotten(self) -> None:
        """The key space was emptied: slots that are kept must be looked up again."""

    @property
    def bytes_used(self) -> int:
        """Approximate memory, without that of rows attached to the key space."""
        return 0

    @property
    def cycle_bytes(self) -> int:
        """Approximate memory that committing the open cycle takes, without that of changed keys."""
        return 0

    def in_memory(self) -> Mapping[str, int]:
        """What is in memory, by name, for a log line."""
        return {}


# --- the declaration --------------------------------------------------------------------------------------------------


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

    def __post_init__(self) -> None:
        if (self.columns is None) is not (self.empty is None):
            raise ValueError(f"{self.topic}: an output of rows has both columns and empty, one of events neither")


@dataclass(frozen=True)
class KeyedState:
    """Rows of state by key: where they are, how they are laid out, and which topic brings them back."""

    name: str
    """Of the topic that the rows belong to; for rows that belong to none, of the operator."""
    part: str
    """Name of the part of the store that they are in."""
    empty: Rows
    """One row: that of a key without events."""
    layout: RowLayout
    table: ToColumns | None = None
    """Their public rows, if the topic of this name is their changelog; others travel with rows of the flow's tables."""

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
