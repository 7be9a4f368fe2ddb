"""A partition task: the state of one source partition, as a chain of operators, and what its records do to it.

Deterministic and free of I/O but for reads of its store: the effects of a log do not depend on how it was cut into
batches or cycles (I8). Not thread-safe; `applied` alone may be called while the next batch is processed.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, TypeVar

from streams.batch.clock import Clock
from streams.batch.columns import TIME_MIN, Headers
from streams.batch.events import Events, Fields
from streams.engine.effects import PartitionEffects, TaskCommit
from streams.engine.journal_index import JournalIndex
from streams.engine.refusals import Refusals
from streams.flow.chain import operators_of
from streams.flow.declaration import Pipeline
from streams.flow.identity import identity_of, judged
from streams.limits import JOURNAL_RECORD_BYTES_MAX
from streams.operators.base import (
    ALL,
    KeyedState,
    Operator,
    OperatorContext,
    OperatorSpec,
    Output,
    Replayed,
    RestoreBudget,
    Spill,
)
from streams.operators.keyed import KeySpace
from streams.operators.trace import NEVER, WatermarkTrace, watermarks
from streams.state import journal
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Identity, Judgement, Places
from streams.state.journal import JournalEntry, Position
from streams.state.names import CHECKPOINT
from streams.state.space import StoreSpace
from streams.state.store import Store, WriteBatch

Stopwatch = Callable[[str], AbstractContextManager[None]]
"""Measures the block it guards under an operator's name."""

Kind = TypeVar("Kind", bound=Operator)
Value = TypeVar("Value")

_UNTIMED: Final = nullcontext()


@dataclass(frozen=True)
class TaskConfig:
    """What all tasks of a pipeline share."""

    pipeline: Pipeline
    """With the bounds in force."""
    stopwatch: Stopwatch
    partition_of: Callable[[bytes], int]
    """The partition of the source that a key belongs into."""
    seed: int = 0
    """Of the id set's hash: unpredictable in production, fixed in a simulation."""
    symbols: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Symbols of the payload fields that are enums, in the order of the reader schema."""

    @cached_property
    def fields(self) -> Fields:
        """Fields that events have."""
        return Fields(self.pipeline.payload_fields, self.pipeline.text_fields)

    @cached_property
    def operators(self) -> tuple[OperatorSpec, ...]:
        """The chain that each partition runs."""
        return operators_of(self.pipeline)

    @property
    def keyed(self) -> tuple[KeyedState, ...]:
        """Rows by key that the operators keep."""
        return tuple(state for spec in self.operators for state in spec.keyed)

    def identity(self, places: Places) -> Identity:
        """Identity of state that is computed by this configuration, of the topics that are at `places`."""
        return identity_of(self.pipeline, self.operators, places, self.symbols)

    def judged(self, found: Identity, declared: Identity) -> Judgement:
        """What it means for state under the `declared` identity that it was written under `found`."""
        return judged(found, declared, self.pipeline, self.operators)

    @cached_property
    def journal_ms(self) -> int:
        """For how long, in event time, records of the journal matter."""
        return max((spec.journal_ms for spec in self.operators), default=0)

    def context(self, partition: int, store: Store, refusals: Callable[[], Refusals] | None = None) -> OperatorContext:
        """What the operators of a partition over `store` are made with."""
        none = Refusals(self.pipeline, self.partition_of)
        return OperatorContext(
            partition=partition,
            fields=self.fields,
            space=lambda name: StoreSpace(store, name),
            keys=KeySpace(lambda key: self.partition_of(key) == partition),
            refusals=refusals or (lambda: none),
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True)
class Written:
    """Where the records of a committed cycle came to lie."""

    journal_first: int
    journal_next: int
    tables_next: dict[str, int]
    """Position behind the last row, by topic; only topics that got rows."""


class PartitionTask:
    """State of one partition. Create it with `restore_partition`; the constructor does not recover state."""

    def __init__(self, config: TaskConfig, partition: int, store: Store, checkpoint: Checkpoint | None) -> None:
        self.partition = partition
        self.store = store
        self._config = config
        self.refusals = Refusals(config.pipeline, config.partition_of)
        """What outputs have refused; the engine's own ones once the task is installed."""
        context = config.context(partition, store, lambda: self.refusals)
        self._keys = context.keys
        self.operators: dict[str, Operator] = {spec.name: spec.build(context) for spec in config.operators}
        self._chain = [(operator, operator.stage) for operator in self.operators.values() if _takes_events(operator)]
        self.checkpoint = checkpoint or Checkpoint(
            cycle=0, offset_next=-1, watermark=TIME_MIN, journal_next=0, replay_from=0
        )
        self.identity = config.identity(Places())
        self.watermark = self.checkpoint.watermark
        self.offset_next = self.checkpoint.offset_next
        self._leader_epoch = self.checkpoint.leader_epoch
        self._moved = False
        self._cycle_closed = self.checkpoint.cycle
        self._offset_closed = self.checkpoint.offset_next
        self.journal_index = JournalIndex()

    def operator(self, kind: type[Kind]) -> Kind:
        """The first operator of a kind.

        Raises:
            LookupError: there is none.

        """
        for operator in self.operators.values():
            if isinstance(operator, kind):
                return operator
        raise LookupError(f"no {kind.__name__} in this flow")

    # --- processing -------------------------------------------------------------------------------------------------

    def on_batch(
        self, events: Events, offset_next: int, clock: Clock | None = None, leader_epoch: int = -1
    ) -> PartitionEffects:
        """Process this partition's decoded events of a micro-batch, in log order.

        `clock` says which record timestamps are a time, and what stands in for the others; None takes all as they are.

        `offset_next` is the offset behind the micro-batch's last record of this partition, rejected or not, and
        `leader_epoch` the one of that record.
        """
        self.offset_next, self._leader_epoch = offset_next, leader_epoch
        if not len(events):
            return PartitionEffects(self.partition)
        judged_by = events.timestamp_ms if clock is None else clock.judged_by(events.timestamp_ms)
        lateness_ms = self._config.pipeline.bounds.lateness_ms
        course = watermarks(events.event_time, judged_by, start=self.watermark, lateness_ms=lateness_ms)
        return self._run(events, WatermarkTrace.of(self.watermark, course))

    def on_idle(self, watermark: int) -> PartitionEffects:
        """Move the watermark on although nothing came, and release what is due."""
        trace = WatermarkTrace.idle(self.watermark, max(self.watermark, watermark))
        return self._run(Events.none(self._config.fields), trace)

    def _run(self, events: Events, trace: WatermarkTrace) -> PartitionEffects:
        self.watermark = trace.end
        outputs: list[Output] = []
        for operator, stage in self._chain:
            with self._config.stopwatch(stage) if stage else _UNTIMED:
                output = operator.process(events, trace)
            outputs.append(output)
            events, trace = output.events, output.trace
        return self._collected(outputs)

    def _collected(self, outputs: list[Output]) -> PartitionEffects:
        dropped: Counter[str] = Counter()
        found: Counter[str] = Counter()
        replayed: dict[str, list[Headers]] = {}
        for output in outputs:
            dropped.update(output.dropped)
            found.update(output.found)
            for outcome, headers in output.dropped_replayed.items():
                replayed.setdefault(outcome, []).extend(headers)
        records = [records for output in outputs for records in output.records]
        refused = [refused for output in outputs for refused in output.refused]
        self._moved |= bool(records or refused)
        misrouted, keys = self._keys.take_misrouted()
        return PartitionEffects(self.partition, records, dropped, replayed, found, refused, misrouted, keys)

    def next_timer(self) -> int:
        """Watermark at which something happens without an event; the end of time when nothing does."""
        return min((operator.next_timer() for operator in self.operators.values()), default=NEVER)

    @property
    def is_overdue(self) -> bool:
        """Whether something that the watermark has passed is left: it was too much for one cycle."""
        return any(operator.is_overdue(self.watermark) for operator in self.operators.values())

    # --- the commit cycle -------------------------------------------------------------------------------------------

    def close_cycle(self) -> TaskCommit | None:
        """End the open cycle: everything since the last one, or None when nothing happened."""
        operators = self.operators.values()
        has_changed = self._moved or self._keys.has_changed or not all(one.is_settled for one in operators)
        if self.offset_next == self._offset_closed and not has_changed:
            return None
        cycle, changed = self._cycle_closed + 1, self._keys.take_changed()
        changes = [operator.changes(changed) for operator in operators]
        newest = max(
            (self.watermark if one.is_of_cycle_end else one.event_time_max for one in changes), default=TIME_MIN
        )
        entry = JournalEntry(
            cycle=cycle,
            event_time_max=newest,
            positions={self._config.pipeline.source: Position(self.offset_next, self.watermark, self._leader_epoch)},
            identity=self.identity.packed,
        )
        sections = _merged([one.sections for one in changes])
        batch = WriteBatch()
        for one in changes:
            batch.delete_ranges += one.store.delete_ranges
            batch.puts += one.store.puts
        commit = TaskCommit(
            partition=self.partition,
            cycle=cycle,
            offset_next=self.offset_next,
            watermark=self.watermark,
            event_time_max=newest,
            journal=journal.pack(entry, sections, record_bytes_max=JOURNAL_RECORD_BYTES_MAX),
            changelogs=[rows for one in changes for rows in one.changelogs],
            carried=[one.carried for one in changes if one.carried is not None],
            rows=[rows for one in changes for rows in one.rows],
            store=batch,
            marks=self._marks(),
            leader_epoch=self._leader_epoch,
        )
        self._cycle_closed, self._offset_closed, self._moved = cycle, self.offset_next, False
        return commit

    def _marks(self) -> dict[str, int]:
        return _merged([one.marks for one in self.operators.values()])

    def applied(self, commit: TaskCommit, written: Written) -> None:
        """Step 5: the cycle is committed in Kafka; write its rows and the checkpoint, atomically."""
        batch = WriteBatch(list(commit.store.delete_ranges), list(commit.store.puts))
        for operator in self.operators.values():
            operator.applied(written.journal_first)
        self.journal_index.note(written.journal_first, len(commit.journal), commit.event_time_max, batch)
        self.checkpoint = Checkpoint(
            cycle=commit.cycle,
            offset_next=commit.offset_next,
            watermark=commit.watermark,
            journal_next=written.journal_next,
            replay_from=self.journal_index.replay_from(written.journal_next),
            tables_next={**self.checkpoint.tables_next, **written.tables_next},
            marks=commit.marks,
            leader_epoch=commit.leader_epoch,
            identity=self.identity,
        )
        batch.puts.append((CHECKPOINT, self.checkpoint.pack()))
        self.store.write(batch)

    # --- restore ----------------------------------------------------------------------------------------------------

    def replay(self, entry: JournalEntry, watermark: int, budget: RestoreBudget, *, is_new: bool) -> int:
        """Take a journal record, as `Operator.replay` does; returns the number of its rows."""
        record = Replayed(entry.sections, is_new, watermark)
        return sum(operator.replay(record, budget) for operator in self.operators.values())

    def bound_replay(self, watermark: int, budget: RestoreBudget) -> None:
        """Keep to the budget while the journal is read."""
        self.journal_index.skip(min(one.bound_replay(watermark, budget) for one in self.operators.values()))

    def begin_again(self, batch: WriteBatch) -> None:
        """Records between store and journal were cut off."""
        for operator in self.operators.values():
            operator.begin_again(batch)

    def journal_restored(self, watermark: int) -> None:
        """The journal has been read to its end."""
        for operator in self.operators.values():
            operator.journal_restored(watermark, self.checkpoint.marks)

    def marked_sections(self) -> dict[str, list[bytes]]:
        """Sections that say again what the checkpoint keeps, for a journal record that holds nothing else."""
        return {name: list(pieces) for one in self.operators.values() for name, pieces in one.marked_sections().items()}

    def bounds_changed(self, found: Mapping[str, int], watermark: int) -> None:
        """The state goes on that was written under the bounds `found`."""
        for operator in self.operators.values():
            operator.bounds_changed(found, watermark)

    def rows_restored(self) -> None:
        """Rows by key are in the store. Those of held events may have been loaded before: they are loaded again."""
        self._forget_keys()
        for operator in self.operators.values():
            operator.rows_restored()

    def restored(self, checkpoint: Checkpoint) -> None:
        """Start from `checkpoint`: what it names has been read."""
        replay_from = self.journal_index.replay_from(checkpoint.journal_next)
        self.checkpoint = replace(checkpoint, replay_from=replay_from, marks=self._marks())
        self.identity = checkpoint.identity
        self.watermark, self.offset_next = checkpoint.watermark, checkpoint.offset_next
        self._leader_epoch = checkpoint.leader_epoch
        self._cycle_closed, self._offset_closed = checkpoint.cycle, checkpoint.offset_next

    # --- between cycles, when nothing is in flight ------------------------------------------------------------------

    def in_memory(self) -> dict[str, int]:
        """What is in memory, by name."""
        return {name: count for one in self.operators.values() for name, count in one.in_memory().items()}

    def bytes_used(self) -> int:
        """Approximate memory of this task."""
        return self._keys.bytes_used + sum(operator.bytes_used for operator in self.operators.values())

    def cycle_bytes(self) -> int:
        """Approximate memory that committing the open cycle takes."""
        return self._keys.changed_bytes + sum(operator.cycle_bytes for operator in self.operators.values())

    def spill(self, *, below: int, rows_keep: int = ALL, bytes_keep: int = ALL, keep_keys: bool) -> None:
        """Move state to the store, as `operators.base.Spill` says; without `keep_keys` all keys are dropped.

        Raises:
            RuntimeError: a cycle is open or in flight; what would be moved is not committed.

        """
        self._require_settled()
        batch = WriteBatch()
        durable = ALL
        for operator in reversed(self.operators.values()):
            # Below what a later operator still needs the journal for, an earlier one would gain nothing by moving more.
            goal = Spill(min(below, durable), rows_keep, bytes_keep)
            durable = min(durable, operator.spill(goal, self.watermark, batch))
        if not keep_keys:
            self._forget_keys()
        self._write_moved(batch, durable)

    def expire(self) -> None:
        """Forget what is too old to matter, in memory and in the store, and with it its part of the journal.

        Raises:
            RuntimeError: a cycle is open or in flight.

        """
        self._require_settled()
        batch = WriteBatch()
        durable = min(one.expire(self.watermark, batch) for one in self.operators.values())
        if durable > TIME_MIN:
            self._write_moved(batch, durable)

    def _forget_keys(self) -> None:
        batch = WriteBatch()
        self._keys.forget(batch)
        self.store.write(batch)
        for operator in self.operators.values():
            operator.keys_forgotten()

    def _require_settled(self) -> None:
        if not self.is_settled:
            raise RuntimeError(f"partition {self.partition}: state can be moved between cycles only")

    def _write_moved(self, batch: WriteBatch, durable_below: int) -> None:
        """Write what was moved with a checkpoint that asks for no journal below an event time any more."""
        self.journal_index.skip(durable_below)
        replay_from = self.journal_index.replay_from(self.checkpoint.journal_next)
        self.checkpoint = replace(self.checkpoint, replay_from=replay_from)
        if self.checkpoint.cycle:
            batch.puts.append((CHECKPOINT, self.checkpoint.pack()))
        self.store.write(batch)

    def truncate_journal_before(self) -> int | None:
        """Journal offset before which nothing is needed any more; None when there is nothing to cut.

        What is older than `TaskConfig.journal_ms` is not needed, but for what operators still want: they write it again
        with the next cycle; its part stays until that is committed.
        """
        if self.watermark == TIME_MIN:
            return None
        keep_from = self.journal_index.oldest_needed(self.watermark - self._config.journal_ms)
        if keep_from is None:
            return None
        needed = [at for one in self.operators.values() if (at := one.journal_needed(keep_from)) is not None]
        batch = WriteBatch()
        cut = self.journal_index.cut(min([keep_from, *needed]), batch)
        if cut is not None:
            self.store.write(batch)
        return cut

    @property
    def is_settled(self) -> bool:
        """Whether everything this task has done is committed and applied: nothing is open or in flight."""
        return (
            self._cycle_closed == self.checkpoint.cycle
            and self.offset_next == self._offset_closed
            and not self._moved
            and not self._keys.has_changed
            and all(operator.is_settled for operator in self.operators.values())
        )

    def park(self) -> None:
        """Move everything that is in memory only to the store, and close it: a restart replays nothing.

        A task that is not settled holds what may never have been committed: its store is closed as it is.
        """
        if not self.is_settled:
            self.store.close()
            return
        self.spill(below=ALL, rows_keep=0, keep_keys=True)
        self.store.close()


def _takes_events(operator: Operator) -> bool:
    """Whether it overrides `process`: others are passed by."""
    return type(operator).process is not Operator.process


def _merged(parts: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
    """What operators write under names of their own.

    Raises:
        ValueError: two of them have the same one; what is written could not be told apart.

    """
    found: dict[str, Value] = {}
    for part in parts:
        if clash := found.keys() & part.keys():
            raise ValueError(f"two operators write {min(clash)!r} to the journal: call it by the operator's name")
        found |= part
    return found
