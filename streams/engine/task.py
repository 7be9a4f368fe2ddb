"""A partition task: the state of one source partition and what its records do to it.

Deterministic and free of I/O but for reads of its store: the effects of a log do not depend on how it was cut into
batches or cycles (I8). Not thread-safe; `applied` alone may be called while the next batch is processed.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from streams.batch.clock import Clock
from streams.batch.columns import TIME_MIN, Bools, Headers, Int64
from streams.batch.event_ids import event_time_of
from streams.batch.events import Events, Fields
from streams.deadletters.letter.envelope import is_replayed
from streams.engine.effects import LateEvents, PartitionEffects, TableRows, TaskCommit
from streams.engine.keys import KeyIndex
from streams.engine.refusals import Refusals, RefusedEvents
from streams.flow.declaration import Pipeline
from streams.limits import JOURNAL_INDEX_RECORDS, JOURNAL_RECORD_BYTES_MAX, MISROUTED_KEYS_LOGGED
from streams.operators.dedup.id_set import IdSet
from streams.operators.dedup.pages import SpilledIds
from streams.operators.fold.aggregate import KeySegments
from streams.operators.quarantine.breakers import DeviceBreakers
from streams.operators.reorder.held import Held
from streams.operators.reorder.judge import Course, judge_behind, release_order, watermarks
from streams.state import journal
from streams.state.checkpoint import BREAKER, CHECKPOINT, JOURNAL_INDEX, Checkpoint
from streams.state.identity import Identity, Places
from streams.state.journal import Ids, JournalEntry, Position
from streams.state.store import Store, WriteBatch

Stopwatch = Callable[[str], AbstractContextManager[None]]
"""Measures the block it guards under an operator's name."""

_OFFSET_BYTES: Final = 8
_EXPIRIES: Final = 8
"""Times in a horizon that expired ids are looked for."""


@dataclass(frozen=True, slots=True)
class TaskConfig:
    """What all tasks of a pipeline share."""

    pipeline: Pipeline
    lateness_ms: int
    horizon_ms: int
    stopwatch: Stopwatch
    partition_of: Callable[[bytes], int]
    """The partition of the source that a key belongs into."""
    quarantine_rejects_max: int = 0
    """Rejects of a key within a minute beyond which it is quarantined; 0: none ever is."""
    quarantine_cooldown_ms: int = 60_000
    seed: int = 0
    """Of the id set's hash: unpredictable in production, fixed in a simulation."""
    symbols: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Symbols of the payload fields that are enums, in the order of the reader schema."""

    @property
    def fields(self) -> Fields:
        """Fields that held events have."""
        return Fields(self.pipeline.payload_fields, self.pipeline.text_fields)

    def identity(self, places: Places) -> Identity:
        """Identity of state that is computed by this configuration, of the topics that are at `places`."""
        return Identity.of(self.pipeline, horizon_ms=self.horizon_ms, places=places, symbols=self.symbols)


@dataclass(frozen=True, slots=True)
class Released:
    """Events that are due, in order, and for each the watermark just before it became due."""

    events: Events
    prior: Int64


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
        self._ids = IdSet(config.seed)
        self.spilled = SpilledIds(store)
        self.held = Held(config.fields)
        self.keys = KeyIndex(store, config.pipeline, lambda key: config.partition_of(key) == partition)
        self.breakers = DeviceBreakers(
            rejects_max=config.quarantine_rejects_max, cooldown_ms=config.quarantine_cooldown_ms
        )
        self.refusals = Refusals(config.pipeline, config.partition_of)
        """What outputs have refused; the engine's own ones once the task is installed."""
        self._refused: list[RefusedEvents] = []
        self.checkpoint = checkpoint or Checkpoint(
            cycle=0, offset_next=-1, watermark=TIME_MIN, journal_next=0, replay_from=0
        )
        self.identity = config.identity(Places())
        self.watermark = self.checkpoint.watermark
        self.offset_next = self.checkpoint.offset_next
        self._leader_epoch = self.checkpoint.leader_epoch
        self._spilled_below = self.spilled.newest_bucket_end
        self._expired_below = TIME_MIN
        self._ids_added: list[Ids] = []
        self._moved = False
        self._misrouted = 0
        self._misrouted_keys: list[bytes] = []
        self._ids_known_from = self.checkpoint.ids_known_from
        self._cycle_closed = self.checkpoint.cycle
        self._offset_closed = self.checkpoint.offset_next
        # Groups of journal records: [first offset, newest event time in the group, records in it].
        self._journal_groups: deque[list[int]] = deque()
        self._replay_group = 0
        self._breakers_at: dict[bytes, int] = {}
        """Journal offset of the newest row of each device breaker; where it is not known (since a restart), none."""

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
            return PartitionEffects(self.partition, None, [], 0, 0)
        config, stopwatch = self._config, self._config.stopwatch
        with stopwatch("dedup"):
            judged_by = events.timestamp_ms if clock is None else clock.judged_by(events.timestamp_ms)
            watermark = watermarks(events.event_time, judged_by, start=self.watermark, lateness_ms=config.lateness_ms)
            course = Course(self.watermark, watermark)  # of all records: a copy, too, says how late it is
            prior = course.prior()
            late: list[LateEvents] = []
            oldest = np.maximum(watermark - config.horizon_ms, self._ids_known_from)
            beyond = events.event_time < oldest
            if beyond.any():
                by_ms = (oldest - events.event_time)[beyond]
                late.append(LateEvents(events.take(beyond), beyond_horizon=True, by_ms=by_ms))
                events, watermark, prior = events.take(~beyond), watermark[~beyond], prior[~beyond]
            checked = len(events)
            new = self._first_copies(events)
            duplicates = checked - int(np.count_nonzero(new))
            replayed: list[Headers] = []
            if duplicates:
                replayed = _replayed(events, ~new)
                events, watermark, prior = events.take(new), watermark[new], prior[new]
            if self.refusals:
                accepted = self._accepted(events)
                events, watermark, prior = events.take(accepted), watermark[accepted], prior[accepted]
                late = [
                    LateEvents(part.events.take(kept), part.beyond_horizon, part.by_ms[kept])
                    for part in late
                    if (kept := self._accepted(part.events)).any()
                ]
        with stopwatch("reorder"):
            released = self._reorder(events, watermark, prior, course, late)
        return self._folded(released, late, duplicates, replayed)

    def on_idle(self, watermark: int) -> PartitionEffects:
        """Move the watermark on although nothing came, and release what is due."""
        watermark = max(self.watermark, watermark)
        self._misrouted, self._misrouted_keys = 0, []
        self._load_pages(watermark)
        course = Course(self.watermark, np.array([watermark]))
        self.watermark = watermark
        due = self._held_due(watermark)
        released = self._in_order(due, [course.prior_of(events.event_time) for events in due])
        return self._folded(released, [], 0, [])

    def next_timer(self) -> int:
        """Watermark that releases the oldest held event or closes a window; the end of time when none does."""
        return min(self.held.event_time_min(), self.keys.windows_close_at())

    @property
    def is_overdue(self) -> bool:
        """Whether windows that the watermark has passed are left: there were too many for one cycle."""
        return self.keys.has_overdue_windows(self.watermark)

    def _folded(
        self, released: Released | None, late: list[LateEvents], duplicates: int, replayed: list[Headers]
    ) -> PartitionEffects:
        """Fold what was released; close the windows that the watermark has passed then."""
        keys, stopwatch = self.keys, self._config.stopwatch
        contradictions = keys.contradictions
        if released is not None:
            with stopwatch("aggregate"):
                segments = KeySegments.of(released.events, released.prior)
                keys.fold(segments)
        if self._config.pipeline.windows:
            with stopwatch("windows"):
                if released is not None:
                    keys.fold_windows(segments)
                self._moved |= keys.close_windows(self.watermark)
        clean = None if released is None else released.events
        return PartitionEffects(
            self.partition, clean, late, duplicates, self._misrouted, keys.contradictions - contradictions, replayed,
            self._take_refused(),
            self._misrouted_keys,
        )  # fmt: skip

    # --- what outputs have refused ----------------------------------------------------------------------------------

    def _accepted(self, events: Events, *, were_held: bool = False) -> Bools:
        """Which of `events` no output has refused; the others become dead letters with this micro-batch."""
        accepted = np.ones(len(events), dtype=np.bool_)
        messages = self.refusals.messages(events)
        if messages:
            accepted[list(messages)] = False
            refused = events.take(np.array(list(messages), dtype=np.int64))
            if were_held:
                refused = refused.with_rows(np.full(len(refused), -1, dtype=np.int64))
            self._refused.append(RefusedEvents(refused, list(messages.values())))
            self._moved = True
        return accepted

    def _held_due(self, watermark: int) -> list[Events]:
        """Take the held events that are due; those that an output has refused become dead letters."""
        due = self.held.take_due(watermark)
        if not self.refusals:
            return due
        return [events.take(self._accepted(events, were_held=True)) for events in due]

    def _held_rivals(self) -> list[Events]:
        """Held events that may make later ones late: what an output has refused will not be released before them."""
        if not self.refusals:
            return self.held.all()
        found: list[Events] = []
        for events in self.held.all():
            rival = np.ones(len(events), dtype=np.bool_)
            rival[list(self.refusals.messages(events))] = False
            found.append(events.take(rival))
        return found

    def _take_refused(self) -> list[RefusedEvents]:
        refused, self._refused = self._refused, []
        return refused

    def _first_copies(self, events: Events) -> Bools:
        """Remember the identities of `events`; says which were not known."""
        new = self._ids.add(events.id_hi, events.id_lo, events.id_word)
        doubtful = np.flatnonzero(new & (events.event_time < self._spilled_below))
        if len(doubtful):
            asked = Ids(events.id_hi[doubtful], events.id_lo[doubtful], events.id_word[doubtful])
            new[doubtful[self.spilled.contains(asked)]] = False
        if new.all():
            self._ids_added.append(Ids(events.id_hi, events.id_lo, events.id_word))
        elif new.any():
            self._ids_added.append(Ids(events.id_hi[new], events.id_lo[new], events.id_word[new]))
        return new

    def _reorder(
        self, events: Events, watermark: Int64, prior: Int64, course: Course, late: list[LateEvents]
    ) -> Released | None:
        """Hold, release or call late the accepted `events`; returns what is released, in order.

        `watermark` and `prior` are those at the place of each event, `course` is that of the whole micro-batch.
        """
        end = course.end
        self._load_pages(end)
        self.watermark = end
        slots = self.keys.slots(events.key)
        events = events.with_slots(slots)
        self._misrouted = self.keys.misrouted(slots)
        self._misrouted_keys = self.keys.misrouted_keys(slots, MISROUTED_KEYS_LOGGED) if self._misrouted else []
        ahead = events.event_time > watermark
        due: list[Events] = []
        priors: list[Int64] = []
        if not ahead.all():
            behind = ~ahead
            is_late, by_ms = judge_behind(events, watermark, behind, self.keys.last_due(), self._held_rivals())
            if is_late.any():
                late.append(LateEvents(events.take(is_late), beyond_horizon=False, by_ms=by_ms[is_late]))
            due.append(events.take(behind & ~is_late))
            priors.append(prior[behind & ~is_late])
        ripe = ahead & (events.event_time <= end)
        in_time = [*self._held_due(end), events.take(ripe)]
        self.held.add(events.take(ahead & ~ripe), self.cycle_open)
        priors += [course.prior_of(part.event_time) for part in in_time]
        return self._in_order([*due, *in_time], priors)

    def _in_order(self, due: list[Events], priors: list[Int64]) -> Released | None:
        priors = [prior for events, prior in zip(due, priors, strict=True) if len(events)]
        due = [events for events in due if len(events)]
        if not due:
            return None
        self._moved = True
        events = Events.concat(due)
        order = release_order(events)
        return Released(events.take(order), np.concatenate(priors)[order])

    def _load_pages(self, watermark: int) -> None:
        """Bring events back from the store that may be due at `watermark`."""
        if self.held.pages_due(watermark):
            for events in self.held.load_due_pages(self.store, watermark):
                if len(events):
                    self.hold_restored(events)

    def hold_restored(self, events: Events) -> None:
        """Hold events that came in an earlier cycle."""
        slots = self.keys.slots(events.key)
        self.held.add(events.with_slots(slots), 0)

    # --- the commit cycle -------------------------------------------------------------------------------------------

    @property
    def cycle_open(self) -> int:
        """Number of the cycle that is open."""
        return self._cycle_closed + 1

    def close_cycle(self) -> TaskCommit | None:
        """End the open cycle: everything since the last one, or None when nothing happened."""
        if self.offset_next == self._offset_closed and not self._moved:
            return None
        cycle = self.cycle_open
        ids = Ids.concat(self._ids_added)
        changed = self.keys.take_changed()
        breakers = self.breakers.take_changed()
        newest = max(
            int(event_time_of(ids.word).max()) if len(ids) else TIME_MIN,
            int(changed.due.event_time.max()) if len(changed.due) else TIME_MIN,
            self.watermark if breakers else TIME_MIN,  # so that breakers, too, stay for the length of a horizon
        )
        pipeline = self._config.pipeline
        entry = JournalEntry(
            cycle=cycle,
            event_time_max=newest,
            ids=ids,
            held=self.held.came_in(cycle),
            due=changed.due,
            breakers=breakers,
            positions={pipeline.source: Position(self.offset_next, self.watermark, self._leader_epoch)},
            identity=self.identity.packed,
            ids_known_from=self._ids_known_from,
        )
        windows = list(zip(pipeline.windows, changed.windows, strict=True))
        commit = TaskCommit(
            partition=self.partition,
            cycle=cycle,
            offset_next=self.offset_next,
            watermark=self.watermark,
            event_time_max=newest,
            journal=journal.pack(entry, self._config.fields, record_bytes_max=JOURNAL_RECORD_BYTES_MAX),
            tables=[
                TableRows(table, self.partition, changed.due.key, rows, windows)
                for table, rows in zip(pipeline.tables, changed.rows, strict=True)
                if len(rows)
            ],
            windows=self.keys.take_closed(),
            puts=changed.puts(),
            deletes=self.keys.take_forgotten(),
            breakers=breakers,
            ids_known_from=self._ids_known_from,
            leader_epoch=self._leader_epoch,
        )
        self._cycle_closed, self._offset_closed = cycle, self.offset_next
        self._ids_added, self._moved = [], False
        return commit

    def applied(self, commit: TaskCommit, written: Written) -> None:
        """Step 5: the cycle is committed in Kafka; write its rows and the checkpoint, atomically."""
        batch = WriteBatch(delete_ranges=list(commit.deletes), puts=list(commit.puts))
        note_breakers(commit.breakers, batch)
        for key, row in commit.breakers:
            if row:
                self._breakers_at[key] = written.journal_first
            else:
                self._breakers_at.pop(key, None)
        self.note_journal(written.journal_first, len(commit.journal), commit.event_time_max, batch)
        self.checkpoint = Checkpoint(
            cycle=commit.cycle,
            offset_next=commit.offset_next,
            watermark=commit.watermark,
            journal_next=written.journal_next,
            replay_from=self._replay_from(written.journal_next),
            tables_next={**self.checkpoint.tables_next, **written.tables_next},
            ids_known_from=commit.ids_known_from,
            leader_epoch=commit.leader_epoch,
            identity=self.identity,
        )
        batch.puts.append((CHECKPOINT, self.checkpoint.pack()))
        self.store.write(batch)

    def note_journal(self, offset: int, records: int, event_time_max: int, batch: WriteBatch) -> None:
        """Remember which event times the journal's records hold: for truncation, and for what a restart must replay."""
        groups = self._journal_groups
        if not groups or groups[-1][2] >= JOURNAL_INDEX_RECORDS or len(groups) == self._replay_group:
            groups.append([offset, event_time_max, records])
        else:
            groups[-1][1] = max(groups[-1][1], event_time_max)
            groups[-1][2] += records
        first, newest, count = groups[-1]
        key = JOURNAL_INDEX + first.to_bytes(_OFFSET_BYTES, "big")
        batch.puts.append((key, newest.to_bytes(_OFFSET_BYTES, "big", signed=True) + count.to_bytes(4, "big")))

    def restored(self, checkpoint: Checkpoint) -> None:
        """Start from `checkpoint`: what it names has been read."""
        self.checkpoint = replace(checkpoint, replay_from=self._replay_from(checkpoint.journal_next))
        self.identity = checkpoint.identity
        self.watermark, self.offset_next = checkpoint.watermark, checkpoint.offset_next
        self._leader_epoch = checkpoint.leader_epoch
        self._ids_known_from = checkpoint.ids_known_from
        self._cycle_closed, self._offset_closed = checkpoint.cycle, checkpoint.offset_next

    def restore_journal_groups(self, groups: list[list[int]]) -> None:
        """Set the index of the journal as read from the store."""
        self._journal_groups = deque(groups)
        self._replay_group = len(groups)

    def _replay_from(self, journal_next: int) -> int:
        if self._replay_group < len(self._journal_groups):
            return self._journal_groups[self._replay_group][0]
        return journal_next

    # --- between cycles, when nothing is in flight ------------------------------------------------------------------

    def remember(self, ids: Ids) -> None:
        """Insert ids read from the journal."""
        self._ids.add(ids.hi, ids.lo, ids.word)

    def spill_ids_while_restoring(self) -> None:
        """Move remembered ids behind the watermark to the store: they are committed, and nothing held is among them."""
        batch = WriteBatch()
        self._move_ids(self.watermark, batch)
        self.store.write(batch)
        self._advance_replay(self.watermark)

    def forget_keys(self) -> None:
        """Drop all rows from memory, as far as they are in the store, and load those of held events again."""
        batch = WriteBatch()
        self.keys.drop_all(batch)
        self.store.write(batch)
        self.held.relink(self.keys.slots)

    @property
    def ids_in_memory(self) -> int:
        """Ids in the memory tier."""
        return len(self._ids)

    def bytes_used(self) -> int:
        """Approximate memory of this task."""
        return self._ids.bytes_used + self.held.bytes_used + self.keys.bytes_used + self.breakers.bytes_used

    def cycle_bytes(self) -> int:
        """Approximate memory that committing the open cycle takes."""
        return self.keys.changed_bytes + self.held.bytes_since(self.cycle_open)

    def spill(self, *, ids_below: int, held_events_keep: int, keep_keys: bool) -> None:
        """Move ids below an event time, and held events beyond a number, to the store; expire old ids.

        Raises:
            RuntimeError: a cycle is open or in flight; what would be moved is not committed.

        """
        self._require_settled()
        batch = WriteBatch()
        self.held.spill(batch, keep_events=held_events_keep)
        self.held.forget_released_pages(self.checkpoint.watermark, batch)
        if len(self.held):  # the journal must still be replayed for what is held in memory only
            ids_below = min(ids_below, self.watermark)
        self._move_ids(ids_below, batch)
        if not keep_keys:
            self.forget_keys()
        self._write_moved(batch, ids_below)

    def expire(self) -> None:
        """Forget ids behind the horizon, in memory and in the store, and with them their part of the journal.

        Done when the watermark has gone on by an eighth of the horizon: it rebuilds the set. It changes no outcome, for
        what is behind the horizon is late before it is looked up.

        Raises:
            RuntimeError: a cycle is open or in flight.

        """
        self._require_settled()
        horizon = self.watermark - self._config.horizon_ms
        if self.watermark == TIME_MIN or horizon < self._expired_below + self._config.horizon_ms // _EXPIRIES:
            return
        self._expired_below = horizon
        batch = WriteBatch()
        self._move_ids(TIME_MIN, batch)
        self._write_moved(batch, horizon)

    def _require_settled(self) -> None:
        if not self.is_settled:
            raise RuntimeError(f"partition {self.partition}: state can be moved between cycles only")

    def _write_moved(self, batch: WriteBatch, ids_below: int) -> None:
        """Write what was moved with a checkpoint that asks for no journal of ids below an event time any more."""
        self._advance_replay(ids_below)
        self.checkpoint = replace(self.checkpoint, replay_from=self._replay_from(self.checkpoint.journal_next))
        if self.checkpoint.cycle:
            batch.puts.append((CHECKPOINT, self.checkpoint.pack()))
        self.store.write(batch)

    def _move_ids(self, ids_below: int, batch: WriteBatch) -> None:
        """Put ids below an event time into pages, and forget those behind the horizon."""
        horizon = self.watermark - self._config.horizon_ms if self.watermark > TIME_MIN else TIME_MIN
        hi, lo, word = self._ids.rows()
        times = event_time_of(word)
        moved = (times < ids_below) & (times >= horizon)
        self.spilled.add(Ids(hi[moved], lo[moved], word[moved]), batch)
        if horizon > 0:
            self.spilled.expire(horizon, batch)
        if moved.any():
            self._spilled_below = max(self._spilled_below, int(times[moved].max()) + 1)
        self._ids.retain((times >= ids_below) & (times >= horizon))

    def _advance_replay(self, ids_below: int) -> None:
        """Skip journal groups of which every id, and so every held event, is in the store or gone."""
        groups = self._journal_groups
        while self._replay_group < len(groups) and groups[self._replay_group][1] < ids_below:
            self._replay_group += 1

    def truncate_journal_before(self) -> int | None:
        """Journal offset before which nothing is needed any more; None when there is nothing to cut.

        What is older than the horizon is not needed, but for device breakers that are still remembered: those whose
        newest row would be cut are journalled again with the next cycle; their part stays until that is committed.
        """
        if self.watermark == TIME_MIN:
            return None
        groups, horizon = self._journal_groups, self.watermark - self._config.horizon_ms
        old = 0
        while old < min(len(groups) - 1, self._replay_group) and groups[old][1] < horizon:
            old += 1
        if not old:
            return None
        keep_from = groups[old][0]
        needed = {key: at for key in self.breakers.keys if (at := self._breakers_at.get(key, -1)) < keep_from}
        if needed:
            self.breakers.journal_again(needed)
            self._moved = True
            keep_from = min(needed.values())
        cut = None
        batch = WriteBatch()
        while old and groups[1][0] <= keep_from:
            first = groups.popleft()[0]
            self._replay_group -= 1
            old -= 1
            key = JOURNAL_INDEX + first.to_bytes(_OFFSET_BYTES, "big")
            batch.delete_ranges.append((key, key + b"\0"))
            cut = groups[0][0]
        if batch.delete_ranges:
            self.store.write(batch)
        return cut

    @property
    def is_settled(self) -> bool:
        """Whether everything this task has done is committed and applied: nothing is open or in flight."""
        return (
            self._cycle_closed == self.checkpoint.cycle
            and self.offset_next == self._offset_closed
            and not self._moved
            and not self._ids_added
            and self.breakers.is_settled
        )

    def park(self) -> None:
        """Move everything that is in memory only to the store, and close it: a restart replays nothing.

        A task that is not settled holds what may never have been committed: its store is closed as it is.
        """
        if not self.is_settled:
            self.store.close()
            return
        self.spill(ids_below=np.iinfo(np.int64).max, held_events_keep=0, keep_keys=True)
        self.store.close()


def _replayed(events: Events, rows: Bools) -> list[Headers]:
    """Headers of those of `rows` that were replayed from dead letters."""
    if events.headers is None:
        return []
    return [headers for headers in events.headers[rows] if is_replayed(headers)]


def note_breakers(changed: Sequence[tuple[bytes, bytes]], batch: WriteBatch) -> None:
    """Rows of changed device breakers for the store: a row put, or deleted where there are no bytes."""
    for key, row in changed:
        if row:
            batch.puts.append((BREAKER + key, row))
        else:
            batch.delete_ranges.append((BREAKER + key, BREAKER + key + b"\0"))


def read_journal_groups(store: Store) -> list[list[int]]:
    """The journal index as the store has it."""
    return [
        [
            int.from_bytes(key[1:], "big"),
            int.from_bytes(value[:_OFFSET_BYTES], "big", signed=True),
            int.from_bytes(value[_OFFSET_BYTES:], "big"),
        ]
        for key, value in store.scan(JOURNAL_INDEX)
    ]
