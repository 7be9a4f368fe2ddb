"""Restore: from a partition's store and changelogs to a task that stands exactly at the group's committed offset.

The store is as of its last flush; the checkpoint in it says which commit cycle that was, and whose state it is. The
journal and the table topics bring it forward, always to their end: a cycle that only released idle events moves them
and not the offset. What the checkpoint and the journal say of their identity is compared with what is declared and
there now (`state.identity`): a store of another life or layout is moved aside and rebuilt from Kafka; a journal or
table of another life is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import structlog

from streams.engine.changelog_rows import CARRIED_HEADER, OWN_HEADER, RowReader, RowUnknown
from streams.engine.journal_chain import JournalChain, RestoreFailed
from streams.engine.log import Changelog, LogRow
from streams.engine.task import PartitionTask, TaskConfig
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.operators.base import RestoreBudget
from streams.sinks.base import Committed
from streams.state import journal
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Identity, IdentityUnreadable, Judgement, Places, rebuild_command
from streams.state.journal import JournalCorrupted, JournalEntry
from streams.state.names import CHECKPOINT
from streams.state.space import StoreSpace
from streams.state.store import Store, StoreCorrupted, StoreOutdated, WriteBatch

log = structlog.get_logger(__name__)

_PUTS_MAX: Final = 50_000
_LAST_RECORDS: Final = 100
"""Offsets before the end of another partition's journal in which its identity is looked for."""
HELD_BYTES_MAX: Final = 64 << 20
OnRows = Callable[[int, int], None]


def restore_partition(
    config: TaskConfig,
    partition: int,
    store: Store,
    changelog: Changelog,
    *,
    ids_in_memory_max: int,
    held_bytes_max: int = HELD_BYTES_MAX,
    places: Places | None = None,
    accepted: frozenset[str] = frozenset(),
    on_rows: OnRows = lambda _records, _rows: None,
) -> PartitionTask:
    """Task for `partition`, its state equal to what the group has committed.

    Each operator keeps up to `ids_in_memory_max` rows and about `held_bytes_max` bytes of the journal in memory
    meanwhile; the rest is moved to the store. `places` says where the flow's topics are now. For a rebuild, which
    writes their rows, state goes on although topics in `accepted` were created again. `on_rows` is told how many
    changelog records were read, and how many rows of state they held.

    Raises:
        RestoreFailed: the state and what is there now cannot be reconciled; the message says why and what to do.
        StoreCorrupted: the store holds something else than our state; quarantine it and restore from nothing.
        StoreOutdated: the store is of another life or layout; move it aside and restore from nothing.

    """
    where = places or Places()
    budget = RestoreBudget(ids_in_memory_max, held_bytes_max)
    return _Restore(config, partition, store, changelog, where, accepted, budget, on_rows).run()


@dataclass(slots=True)
class _Restore:
    config: TaskConfig
    partition: int
    store: Store
    changelog: Changelog
    places: Places
    accepted: frozenset[str]
    budget: RestoreBudget
    on_rows: OnRows

    def run(self) -> PartitionTask:
        pipeline = self.config.pipeline
        committed = self._committed()
        declared = self.config.identity(self.places)
        checkpoint = read_checkpoint(self.store)
        low, high = self.changelog.bounds(pipeline.journal, self.partition)
        if checkpoint is not None:
            self._require_same_life(checkpoint, declared, committed, high)
        task = PartitionTask(self.config, self.partition, self.store, checkpoint)
        start = max(low, checkpoint.replay_from if checkpoint else low)
        reached = self._replay_journal(task, checkpoint, start, high)
        if reached.cycle:
            reached = self._under_declared(task, reached, declared)
            offset_next = self._start_offset(committed, reached)
        else:
            reached = replace(reached, identity=declared)
            offset_next = self._first_offset(committed)
            self._require_no_rows()
            self._require_same_division(declared)
        tables_next = self._replay_tables(task, reached)
        if offset_next != reached.offset_next:
            reached = replace(reached, offset_next=offset_next, leader_epoch=-1)
        reached = replace(reached, tables_next=tables_next)
        task.restored(reached)
        if reached.cycle:
            self.store.write(WriteBatch(puts=[(CHECKPOINT, task.checkpoint.pack())]))
        return task

    @property
    def _tables(self) -> list[str]:
        """Topics that bring rows by key back."""
        return [state.name for state in self.config.keyed if state.is_table]

    def _rebuild(self, source: str) -> str:
        return rebuild_command(self.config.pipeline, source)

    @property
    def _where(self) -> str:
        return f"{self.config.pipeline.source}-{self.partition}"

    def _committed(self) -> Committed | None:
        """The group's position in the source topic that is there now."""
        found = self.changelog.committed([self.partition])[self.partition]
        now = self.places.topics.get(self.config.pipeline.source, "")
        if found is not None and found.topic_id and now and found.topic_id != now:
            return None  # an offset in a topic that was deleted
        return found

    # --- whose state it is ------------------------------------------------------------------------------------------

    def _require_same_life(
        self, checkpoint: Checkpoint, declared: Identity, committed: Committed | None, journal_end: int
    ) -> None:
        """Compare the store with what is declared and there now.

        Raises:
            RestoreFailed: the declaration has changed in a way that the state does not allow.
            StoreOutdated, StoreCorrupted: the store must be rebuilt.

        """
        pipeline, found = self.config.pipeline, checkpoint.identity
        is_foreign = found.cluster != declared.cluster and bool(found.cluster and declared.cluster)
        known, now = found.topics.get(pipeline.journal), declared.topics.get(pipeline.journal)
        if is_foreign or (known and now and known != now):
            if not is_foreign and committed is not None and committed.cycle is not None and not self._has_journal():
                raise RestoreFailed(
                    f"{self._where}: {pipeline.journal} was deleted and created again, the group has committed offset "
                    f"{committed.offset_next} (cycle {committed.cycle}), and the local state ends at offset "
                    f"{checkpoint.offset_next} (cycle {checkpoint.cycle}). {self._rebuild('local')} writes the journal "
                    f"again where the two are equal; else begin again with {self._rebuild('source')}"
                )
            raise StoreOutdated(f"the local state is of an earlier life of {pipeline.journal}, or of another cluster")
        judgement = self._judged(found, declared)
        if judgement.migrated and found.rows != declared.rows:
            raise StoreOutdated(f"the local state has another layout: {'; '.join(judgement.migrated)}")
        if checkpoint.journal_next > journal_end:
            raise StoreCorrupted(
                f"the local state knows journal position {checkpoint.journal_next}, "
                f"{pipeline.journal}-{self.partition} ends at {journal_end}"
            )

    def _has_journal(self) -> bool:
        """Whether the journal that is there now has any record: state that was written again is in it."""
        topic = self.config.pipeline.journal
        low, high = self.changelog.bounds(topic, self.partition)
        return any(rows for rows in self.changelog.read(topic, self.partition, low, high))

    def _judged(self, found: Identity, declared: Identity) -> Judgement:
        judgement = self.config.judged(found.without(self.accepted), declared)
        if judgement.refused:
            raise RestoreFailed(f"{self._where}: {'; '.join(judgement.refused)}")
        return judgement

    def _under_declared(self, task: PartitionTask, reached: Checkpoint, declared: Identity) -> Checkpoint:
        """The checkpoint under the declared identity, with what follows from the change.

        Raises:
            RestoreFailed: the state does not allow the change.

        """
        judgement = self._judged(reached.identity, declared)
        for text in judgement.migrated:
            log.warning("what is declared or set has changed; the state goes on", partition=self._where, change=text)
        task.bounds_changed(reached.identity.bounds, reached.watermark)
        added = {
            topic: self.changelog.bounds(topic, self.partition)[1]
            for topic in self._tables
            if topic not in reached.identity.tables
        }
        identity = declared.taking_over(reached.identity, added_from=added)
        if judgement.source_is_new:
            log.warning(
                "the source topic was deleted and created again: its records are processed from the first one; "
                "what is known of earlier ones stays, so that copies of them are dropped",
                partition=self._where,
            )
            reached = replace(reached, offset_next=-1, leader_epoch=-1)
        return replace(reached, identity=identity)

    def _require_no_rows(self) -> None:
        """A partition without any state must not take over rows of a table of an earlier life."""
        for topic in self._tables:
            low, high = self.changelog.bounds(topic, self.partition)
            for rows in self.changelog.read(topic, self.partition, low, high):
                if any(row.value is not None for row in rows):
                    raise RestoreFailed(
                        f"{self._where}: {topic} has rows, and {self.config.pipeline.journal} knows of no state: "
                        f"they are of an earlier life. Delete {topic} and run `streams topics apply`, or empty "
                        f"all outputs with {self._rebuild('source')}"
                    )

    def _require_same_division(self, declared: Identity) -> None:
        """A partition without any state must not begin where others have state that is divided otherwise."""
        for other in (number for number in range(declared.partitions) if number != self.partition):
            found = self._identity_of_other(other)
            if found is not None:
                self._judged(found.divided(), declared)
                return

    def _identity_of_other(self, partition: int) -> Identity | None:
        """The latest identity in another partition's journal; None where it has none, or cannot be read.

        What is wrong there is the other partition's own: this one neither fails with it nor waits for it.
        """
        topic = self.config.pipeline.journal
        latest: Identity | None = None
        try:
            low, high = self.changelog.bounds(topic, partition, stable=True)
            for rows in self.changelog.read(topic, partition, max(low, high - _LAST_RECORDS), high):
                latest = next(filter(None, map(self._identity_in, reversed(rows))), latest)
        except StreamsError as error:
            log.warning("another partition's journal was not looked at", partition=partition, error=str(error))
        return latest

    def _identity_in(self, row: LogRow) -> Identity | None:
        try:
            packed = journal.unpack(row.value or b"").identity
            return Identity.unpack(packed) if packed else None
        except (journal.JournalCorrupted, IdentityUnreadable):
            return None

    # --- the journal ------------------------------------------------------------------------------------------------

    def _replay_journal(self, task: PartitionTask, checkpoint: Checkpoint | None, start: int, end: int) -> Checkpoint:
        """Bring the operators forward; returns the checkpoint of the last cycle."""
        topic = self.config.pipeline.journal
        reached = checkpoint or task.checkpoint
        known_cycle = reached.cycle
        batch = WriteBatch()
        task.journal_index.restore(task.store, start, batch)
        if checkpoint is None or checkpoint.journal_next < start:
            task.begin_again(batch)
        task.store.write(batch)
        batch = WriteBatch()
        chain = JournalChain.of(f"{topic}-{self.partition}", checkpoint, start)
        identities = _Identities(self.config.pipeline, self.partition, self.places)
        for rows in self.changelog.read(topic, self.partition, start, end):
            state_rows = 0
            for row in rows:
                entry = self._entry(row)
                if not chain.goes_on(row.offset, entry):
                    continue
                is_new = entry.cycle > known_cycle
                try:
                    state_rows += task.replay(entry, reached.watermark, self.budget, is_new=is_new)
                except JournalCorrupted as error:
                    raise self._unreadable(row, error) from None
                task.journal_index.note(row.offset, 1, entry.event_time_max, batch)
                if is_new:
                    reached = self._advanced(reached, entry, identities.of(entry, row.offset))
            self.on_rows(len(rows), state_rows)
            if len(batch.puts) > _PUTS_MAX:
                task.store.write(batch)
                batch = WriteBatch()
            task.bound_replay(reached.watermark, self.budget)
        chain.ends()
        task.store.write(batch)
        try:
            task.journal_restored(reached.watermark)
        except JournalCorrupted as error:
            raise StoreCorrupted(f"the local state cannot be read: {error}") from None
        return replace(reached, journal_next=end)

    def _advanced(self, reached: Checkpoint, entry: JournalEntry, identity: Identity | None) -> Checkpoint:
        position = entry.positions.get(self.config.pipeline.source)
        if position is not None:
            reached = replace(
                reached,
                offset_next=position.offset_next,
                watermark=position.watermark,
                leader_epoch=position.leader_epoch,
            )
        if identity is not None:
            reached = replace(reached, identity=identity)
        return replace(reached, cycle=entry.cycle)

    def _entry(self, row: LogRow) -> JournalEntry:
        try:
            return journal.unpack(row.value or b"")
        except JournalCorrupted as error:
            raise self._unreadable(row, error) from None

    def _unreadable(self, row: LogRow, error: JournalCorrupted) -> RestoreFailed:
        return RestoreFailed(
            f"the record at offset {row.offset} of {self.config.pipeline.journal}-{self.partition} is {error}: written "
            f"by another version, or by something else. Run the version that has written it, or begin again with "
            f"{self._rebuild('source')}"
        )

    # --- the tables -------------------------------------------------------------------------------------------------

    def _replay_tables(self, task: PartitionTask, reached: Checkpoint) -> dict[str, int]:
        """Bring rows by key forward; returns the position after the last row of each topic."""
        positions: dict[str, int] = {}
        rows_of = _ChangelogRows(self.config, task.store, reached.identity)
        since = reached.identity.tables
        carrier = min(since, key=lambda topic: since[topic], default=None)
        for topic in self._tables:
            low, high = self.changelog.bounds(topic, task.partition)
            start = max(low, since.get(topic, 0), reached.tables_next.get(topic, low))
            for rows in self.changelog.read(topic, task.partition, start, high):
                try:
                    batch = rows_of.batch(topic, rows, with_carried=topic == carrier)
                except RowUnknown as error:
                    raise RestoreFailed(
                        f"{topic}-{task.partition}, offsets {rows[0].offset} to {rows[-1].offset}: {error}: "
                        f"written by another version, or by something else. Begin again with {self._rebuild('source')}"
                    ) from None
                task.store.write(batch)
                self.on_rows(len(rows), len(batch.puts))
            positions[topic] = high
        task.rows_restored()
        return positions

    # --- where to go on ---------------------------------------------------------------------------------------------

    def _start_offset(self, committed: Committed | None, reached: Checkpoint) -> int:
        """The offset to consume from, once state, group and source agree.

        Raises:
            RestoreFailed: they do not.

        """
        pipeline, where = self.config.pipeline, self._where
        if reached.offset_next < 0:
            return -1
        low, end = self.changelog.bounds(pipeline.source, self.partition)
        truncated = self._truncated(reached, low, end)
        if truncated:
            if committed is not None and committed.cycle is None and low <= committed.offset_next <= end:
                log.warning(
                    "the source was truncated; going on at the offset that the group was set to",
                    partition=where, offset=committed.offset_next, state_offset=reached.offset_next,
                )  # fmt: skip
                return committed.offset_next
            command = reset_offset_command(pipeline.group, pipeline.source, self.partition, low)
            raise RestoreFailed(
                f"{where}: the state's offset is {reached.offset_next}, {truncated}. "
                f"Stop the workers and set the group's offset of this partition to where it should go on, {low} to "
                f"process all that is there: {command}"
            )
        if committed is None:
            log.warning(
                "the group's offset is gone (expired?): going on where the journal ends",
                partition=where, offset=reached.offset_next,
            )  # fmt: skip
            return reached.offset_next
        if committed.cycle is None and committed.offset_next == reached.offset_next:
            log.info("the group's offset was written by something else; it is ours", partition=where)
        elif (committed.offset_next, committed.cycle) != (reached.offset_next, reached.cycle):
            written_by = "something else" if committed.cycle is None else f"cycle {committed.cycle}"
            command = reset_offset_command(pipeline.group, pipeline.source, self.partition, reached.offset_next)
            raise RestoreFailed(
                f"{where}: state stands at offset {reached.offset_next} (cycle {reached.cycle}), the group at offset "
                f"{committed.offset_next} (written by {written_by}). Offsets cannot be moved without the state: stop "
                f"the workers and set the group back: {command}"
            )
        return reached.offset_next

    def _truncated(self, reached: Checkpoint, low: int, end: int) -> str:
        """What says that records which this state has seen are gone from the end of the source; empty: nothing does."""
        if reached.offset_next > end:
            return f"the topic ends at {end}: it was truncated"
        if (
            reached.leader_epoch < 0
            or reached.offset_next <= low
            or not self.changelog.has_diverged(
                self.config.pipeline.source, self.partition, reached.offset_next, reached.leader_epoch
            )
        ):
            return ""
        return (
            f"the records of leader epoch {reached.leader_epoch} do not reach up to there any more: the topic was "
            f"truncated and written again"
        )

    def _first_offset(self, committed: Committed | None) -> int:
        if committed is None:
            return -1
        if committed.cycle is None:
            log.info(
                "no state yet: starting at the group's offset", partition=self._where, offset=committed.offset_next
            )
            return committed.offset_next
        raise RestoreFailed(
            f"{self._where}: the group has committed offset {committed.offset_next} (cycle {committed.cycle}), but "
            f"{self.config.pipeline.journal} holds no state for it: it was emptied, or deleted and created again. "
            f"Where a worker's local state is still there, {self._rebuild('local')} writes it again; else begin again "
            f"with {self._rebuild('source')}"
        )


def reset_offset_command(group: str, topic: str, partition: int, offset: int) -> str:
    """The command of Kafka's own tools that sets a group's offset in one partition."""
    return (
        f"kafka-consumer-groups.sh --bootstrap-server SERVER --group {group} --topic {topic}:{partition} "
        f"--reset-offsets --to-offset {offset} --execute"
    )


def read_checkpoint(store: Store) -> Checkpoint | None:
    """The checkpoint of a store; None when nothing was ever committed into it.

    Raises:
        StoreCorrupted: it is none of ours, or of an earlier format.

    """
    row = store.get_many([CHECKPOINT])[0]
    if row is None:
        return None
    try:
        return Checkpoint.unpack(row)
    except ValueError as error:
        raise StoreCorrupted(f"unreadable checkpoint: {error}") from None


class _Identities:
    """Identities of journal records, each unpacked once; checks that they are of the journal they stand in."""

    def __init__(self, pipeline: Pipeline, partition: int, places: Places) -> None:
        self._pipeline, self._topic = pipeline, pipeline.journal
        self._partition, self._places = partition, places
        self._packed = b""

    def of(self, entry: JournalEntry, offset: int) -> Identity | None:
        """The record's identity; None where it is that of the record before.

        Raises:
            RestoreFailed: the record was written into another topic or cluster.

        """
        if not entry.identity or entry.identity == self._packed:
            return None
        try:
            found = Identity.unpack(entry.identity)
        except IdentityUnreadable as error:
            raise self._refused(offset, str(error)) from None
        cluster, now = self._places.cluster, self._places.topics.get(self._topic, "")
        known = found.topics.get(self._topic, "")
        if (cluster and found.cluster and cluster != found.cluster) or (now and known and now != known):
            raise self._refused(offset, "it was written into another cluster, or into an earlier topic of this name")
        self._packed = entry.identity
        return found

    def _refused(self, offset: int, why: str) -> RestoreFailed:
        return RestoreFailed(
            f"the record at offset {offset} of {self._topic}-{self._partition} is not of this journal: {why}. State of "
            f"another place is not used: begin again with {rebuild_command(self._pipeline, 'source')}"
        )


class _ChangelogRows:
    """Records of table topics as rows for the store."""

    def __init__(self, config: TaskConfig, store: Store, identity: Identity) -> None:
        self._reader = RowReader(config.keyed, identity)
        self._spaces = {state.name: StoreSpace(store, state.part) for state in config.keyed}

    def batch(self, topic: str, rows: list[LogRow], *, with_carried: bool) -> WriteBatch:
        """Rows in their order, so that the last one of each key counts; `with_carried`, those of other operators too.

        Raises:
            RowUnknown: a record is none of ours.

        """
        keys: list[bytes] = []
        own: list[bytes] = []
        owners: list[bytes] = []
        carried: list[bytes] = []
        for row in rows:
            headers = dict(row.headers or ())
            value = headers.get(OWN_HEADER)
            if row.key is None or value is None:
                continue
            keys.append(row.key)
            own.append(value)
            packed = headers.get(CARRIED_HEADER)
            if with_carried and packed is not None:
                owners.append(row.key)
                carried.append(packed)
        batch = WriteBatch()
        self._spaces[topic].put(batch, zip(keys, self._reader.own(topic, own), strict=True))
        for name, mine, found in self._reader.carried(owners, carried):
            self._spaces[name].put(batch, zip(mine, found, strict=True))
        return batch
