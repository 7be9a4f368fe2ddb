"""The contract between an operator and the engine.

A flow's partition is a tree of operators. Each operator gets the decoded events of a micro-batch that the one before it
passed on, and returns events for the next one, records for topics, and counts. Its state is its own: its rows in the
store, its section of the journal, its part of memory. The engine commits all of it with the offsets, brings it back
after a restart and never looks into it. To add an operator, subclass `Operator` and `OperatorSpec` (`spec.py`), and
declare it in a flow with `.process(spec)`; no module of the engine changes.

Operators are columnar and synchronous. They have no clock, no Kafka and no random numbers, and can read only their own
part of the store: results depend on the events only, not on how these were cut into micro-batches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

import numpy as np

from streams.batch.event_ids import AddIds
from streams.batch.events import Events, Fields
from streams.growth.home import Home, every_key
from streams.operators.changes import Changes
from streams.operators.keyed import ChangedKeys, KeySpace
from streams.operators.output import Output, RefusedOutputs
from streams.operators.trace import NEVER, WatermarkTrace
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch

ALL: Final = int(np.iinfo(np.int64).max)
"""An event time, a number of rows or of bytes that nothing exceeds."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A journal record, as a restore reads it."""

    sections: Mapping[str, memoryview]
    is_new: bool
    """Whether its cycle is missing in the store. Of other records only what is kept in memory only is needed."""
    watermark: int
    """The watermark before this record's cycle."""


@dataclass(frozen=True, slots=True)
class RestoreBudget:
    """What an operator may keep in memory while the journal is read; the rest goes to its part of the store."""

    rows_max: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class Spill:
    """How much to move from memory to the store."""

    below: int
    """State of events before this event time moves, as far as it is kept by event time."""
    rows_keep: int = ALL
    """Where state is kept by number: so many rows stay,"""
    bytes_keep: int = ALL
    """and about so many bytes."""


def _everything() -> Home:
    return Home(0, every_key)


@dataclass(slots=True)
class OperatorContext:
    """What an operator of one partition is built with."""

    partition: int
    fields: Fields
    space: Callable[[str], StoreSpace]
    """A part of the store by name: the operator's own, or one whose name begins with it and a dot."""
    keys: KeySpace
    """Keys of the partition, for operators that keep a row per key."""
    refusals: Callable[[], RefusedOutputs]
    seed: int = 0
    """Seed of hashes: unpredictable in production, fixed in a simulation."""
    add_ids: AddIds | None = None
    """Native insert into an id set; None: done in Python, with the same result."""
    home: Home = field(default_factory=_everything)
    """Which keys the partition keeps state of."""


class Operator:
    """One operator of one partition. Override only the methods that concern state which the operator has.

    Order of calls: `replay` of each journal record, `journal_restored`, `rows_restored`; then `process` any number of
    times, `changes` at the end of a cycle, `applied` once that is committed. `spill` and `expire` come between cycles,
    when nothing is open or in flight, and so does `keys_moved`. After an aborted cycle the operator is dropped, and a
    new one is restored.
    """

    stage: str = ""
    """Name under which its time is measured; empty: it is not measured."""
    takes_references: ClassVar[bool] = False
    """Whether `process` takes ids, keys and values by reference as well (`streams.batch.refs`). Otherwise it is given
    object arrays of bytes objects, whatever the events were taken by."""

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        """Process the events that the operator before it has passed on.

        There may be none: it is also called when only the watermark moves, such as by idle time.
        """
        return Output(events, trace)

    @classmethod
    def process_all(cls, operators: Sequence[Self], given: Sequence[Output]) -> list[Output]:
        """`process` several partitions, each with its own events; returns an output for each, in their order.

        They are of one declaration. Override this where one call for a whole micro-batch costs less than one per
        partition; the results must be the same.
        """
        return [operator.process(one.events, one.trace) for operator, one in zip(operators, given, strict=True)]

    def merge(self, given: Sequence[Output]) -> Output:
        """Process what each of several inputs has passed on, as `process` does for one; inputs are in their order.

        An input to which nothing came has no events, and its watermark stays where it was. Events of an input are
        complete below its watermark, so the output is complete below the smallest watermark; it must not depend on
        which input came first.
        """
        raise NotImplementedError

    def next_timer(self) -> int:
        """Watermark at which something happens without an event; `NEVER` when nothing will."""
        return NEVER

    def is_overdue(self, watermark: int) -> bool:
        """Whether something that was due up to `watermark` was left for the next cycle. Called often; must be cheap."""
        del watermark
        return False

    # --- the commit cycle ---

    def changes(self, changed: ChangedKeys) -> Changes:
        """All changes since the last call. `changed` are the keys that were touched since, each once."""
        del changed
        return Changes()

    def applied(self, journal_first: int) -> None:
        """The newest changes are committed; their journal records begin at this offset."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing has changed since `changes`, apart from the effects of events."""
        return True

    def journal_needed(self, cut: int) -> int | None:
        """The oldest journal offset before `cut` that is still needed; None when none is.

        The operator has to write that part again with the next cycle, so that the journal can be cut soon.
        """
        del cut
        return None

    # --- restore ---

    def replay(self, record: Replayed, budget: RestoreBudget) -> int:
        """Read this operator's section of a journal record; returns the number of its rows.

        Raises:
            JournalCorrupted: the section is not one.

        """
        del record, budget
        return 0

    def bound_replay(self, watermark: int, budget: RestoreBudget) -> int:
        """Keep to the budget while the journal is read: `spill` if there is too much, at the current watermark.

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
        """Keyed rows have been restored from the changelogs."""

    def bounds_changed(self, found: Mapping[str, int], watermark: int) -> None:
        """The state was written under other bounds, `found`; the partition stands at `watermark`."""

    @property
    def marks(self) -> Mapping[str, int]:
        """Numbers that the checkpoint keeps for the operator, by name."""
        return {}

    def marked_sections(self) -> Mapping[str, Sequence[bytes]]:
        """Sections that repeat what `marks` says, for a cycle in which nothing else has changed."""
        return {}

    def forgotten(self, keys: Sequence[bytes]) -> Mapping[str, Sequence[bytes]]:
        """Sections that make a restore forget `keys` in the journal and the store, apart from keyed rows.

        For a journal record that holds nothing else. No event of these keys is held (`holds`).
        """
        del keys
        return {}

    def holds(self, key: bytes, watermark: int) -> bool:
        """Whether events of `key` are held here, with the partition at `watermark`: they will be passed on later.

        Between cycles. Asked seldom; may read all of its part of the store.
        """
        del key, watermark
        return False

    def begin_again(self, batch: WriteBatch) -> None:
        """Records between store and journal are missing: discard what the journal has in full from here on."""

    def snapshot(self, watermark: int, marks: Mapping[str, int]) -> Changes:
        """The whole state of the store as sections of one cycle, to write a lost journal again."""
        del watermark, marks
        return Changes()

    # --- between cycles ---

    def spill(self, goal: Spill, watermark: int, batch: WriteBatch) -> int:
        """Move state to the store. Returns the event time below which no state is in memory only."""
        del goal, watermark, batch
        return ALL

    def expire(self, watermark: int, batch: WriteBatch) -> int:
        """Discard what is too old to matter. Returns the same as `spill`."""
        del watermark, batch
        return ALL

    def keys_forgotten(self) -> None:
        """The key space was emptied: slots that the operator keeps must be looked up again."""

    # --- growing ---

    def keys_moved(self) -> None:
        """Keys have moved to other partitions, which start from the journal's and tables' state of them.

        Between cycles. Drop from memory what is of keys that are not kept (`OperatorContext.home`): it is void, and so
        is what the store still has of them, which must not be looked at any more. The key space is emptied after this
        call. An operator that keeps something by key beside the rows of the key space overrides this, and filters by
        `home.kept` what it reads from its part of the store without being asked for a key: in `journal_restored`,
        `rows_restored` and `snapshot`, which a partition that takes keys over calls with the state of another one.
        """

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
