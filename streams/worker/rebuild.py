"""How state is brought back when a worker refuses to start with it: the work of `streams state rebuild`.

A rebuild from *local* state writes what the topics have lost, from stores that stand exactly at the group's committed
offsets: the journal, rows of tables; and takes over outputs that were created again. A rebuild from the *source* begins
again: it empties the flow's outputs and forgets its offsets, so that the next worker processes all that the source has.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient

from streams.batch.columns import TIME_MIN
from streams.batch.lanes import lane_of
from streams.engine.encode import ChangelogPart, RowEncoder
from streams.engine.restore import read_checkpoint, restore_partition
from streams.engine.snapshot import changelog_parts, journal_records, marked_sections
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.growth.committed import standing_of
from streams.kafka import clients
from streams.kafka.admin import REQUEST_TIMEOUT_S, partition_counts, settled, wait_for_broker
from streams.kafka.changelog import KafkaChangelog
from streams.kafka.places import KafkaPlaces
from streams.kafka.topics import apply_topics
from streams.limits import JOURNAL_RECORD_BYTES_MAX, REBUILD_TRANSACTION_MS
from streams.resilience.breaker import Guard
from streams.resilience.retry import Retrier
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from streams.settings import Settings
from streams.sinks.base import Committed, CycleAborted, TopicRecords, one_record
from streams.sinks.kafka.transactions import KafkaTransactions
from streams.state import journal
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Identity, rebuild_command
from streams.state.journal import JournalEntry, Position
from streams.state.memory import MemoryStore
from streams.state.rocks import RocksMemory, RocksStore, set_aside
from streams.state.store import Store
from streams.text import counted
from streams.worker.configuration import config_of
from streams.worker.layouts import read_layouts
from streams.worker.owner import DataDirectory
from streams.worker.schemas import require_row_schemas, table_schema_id

Say = Callable[[str], None]

_MEMORY_BYTES: Final = 64 << 20
_EMPTY_GROUP_WAIT_S: Final = 60.0
_IDS_IN_MEMORY_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Counts of what was written for one partition."""

    partition: int
    journal_records: int
    table_rows: int


@dataclass(frozen=True, slots=True)
class _Cycle:
    """A cycle to be written."""

    number: int
    positions: list[Position]
    """Position in each input."""
    records: list[bytes]
    """Records for the journal."""


def members_of(client: AdminClient, pipeline: Pipeline) -> list[str]:
    """Client ids of the members of a flow's group, sorted: workers that run, or were stopped less than a session ago.

    Raises:
        StreamsError: no answer.

    """
    asked = client.describe_consumer_groups([pipeline.group], request_timeout=REQUEST_TIMEOUT_S)[pipeline.group]
    told = settled(f"describing group {pipeline.group}", asked, fine=(KafkaError.GROUP_ID_NOT_FOUND,))
    return [] if told is None else sorted(member.client_id for member in told.members)


def require_stopped(client: AdminClient, pipeline: Pipeline, say: Say, *, wait_s: float = _EMPTY_GROUP_WAIT_S) -> None:
    """Wait until the flow's group has no members: a stopped worker keeps its place for the length of a session.

    Raises:
        StreamsError: it still has some.

    """
    deadline, said = time.monotonic() + wait_s, False
    while members := members_of(client, pipeline):
        if time.monotonic() > deadline:
            raise StreamsError(
                f"{pipeline.group} has {counted(len(members), 'member')} ({', '.join(members)}): stop all workers of "
                "this flow first"
            )
        if not said:
            say(f"waiting for {pipeline.group} to have no members (a stopped worker is forgotten after its session)")
            said = True
        time.sleep(0.5)


class LocalRebuild:
    """Writes what the topics of a flow have lost, from the stores in this worker's data directory."""

    def __init__(self, settings: Settings, pipeline: Pipeline, directory: DataDirectory, say: Say) -> None:
        self._settings, self._pipeline, self._directory, self._say = settings, pipeline, directory, say
        self._retrier = Retrier()
        self._client = wait_for_broker(settings)
        self._further = tuple(one.topic for one in pipeline.further_inputs)
        self._changelog = KafkaChangelog(
            settings, group=pipeline.group, source=pipeline.source, retrier=self._retrier, further=self._further
        )
        self._places = KafkaPlaces(settings, pipeline).find()
        self._catalog = Catalog.load()
        self._layouts = read_layouts(settings, pipeline, self._places.partitions)
        first = self._places.partitions if self._layouts is None else self._layouts.known[0].partitions
        self._config = config_of(pipeline, settings, first, catalog=self._catalog)
        self._memory = RocksMemory(cache_bytes=_MEMORY_BYTES, memtable_bytes=_MEMORY_BYTES)
        self._encoders = self._table_encoders()

    def run(self) -> list[Rebuilt]:
        """Rebuild every partition whose store is here and needs it, each in a transaction of its own.

        Raises:
            StreamsError: workers run, or a store cannot be used; the message says why. Partitions before it are done.

        """
        require_stopped(self._client, self._pipeline, self._say)
        self._require_grown()
        try:
            return [
                done for partition in range(self._places.partitions) if (done := self._rebuild(partition)) is not None
            ]
        finally:
            self._changelog.close()

    def _require_grown(self) -> None:
        """In mid-growth a partition's state is in two places."""
        growth = None if self._layouts is None else self._layouts.growth
        if growth is None:
            return
        committed = self._changelog.committed(range(growth.after.partitions))
        behind = [one for one, found in committed.items() if standing_of(found).epoch < growth.epoch]
        if behind:
            raise StreamsError(
                f"{self._pipeline.name} grows to {growth.after.partitions} partitions, and the state of partitions "
                f"{behind} is not where it belongs yet: start the workers, finish the growth with `streams topics grow "
                f"{self._pipeline.source} --partitions {growth.after.partitions}`, then stop them and run this again"
            )

    def _rebuild(self, partition: int) -> Rebuilt | None:
        path = self._directory.store_path(f"{self._pipeline.prefix}{self._pipeline.name}", partition)
        store: Store = RocksStore(path, self._memory) if path.exists() else MemoryStore()
        try:
            checkpoint = read_checkpoint(store)
            in_journal = self._identity_in_journal(partition)
            found = in_journal or (None if checkpoint is None else checkpoint.identity)
            lost = (
                set()
                if found is None
                else found.recreated(self._places.topics) - {one.topic for one in self._pipeline.inputs}
            )
            if found is None or not lost:
                self._say(f"partition {partition}: nothing to write")
                return None
            if not lost.isdisjoint(self._pipeline.changelogs):
                self._require_complete(partition, checkpoint)
            if in_journal is None and checkpoint is not None:
                cycle = self._from_store(partition, store, checkpoint, lost)
            else:
                cycle = self._from_journal(partition, store, found, lost)
            written = self._write(partition, cycle, self._rows(store, partition, lost, found.epoch))
        finally:
            store.close()
        set_aside(path, "written to Kafka again; the next worker restores it from there")
        self._say(
            f"partition {partition}: {counted(written.table_rows, 'row')} and "
            f"{counted(written.journal_records, 'journal record')}"
        )
        return written

    def _identity_in_journal(self, partition: int) -> Identity | None:
        """Identity of the newest journal record that has one; None when the journal has no record."""
        found = b""
        for value in self._values(self._pipeline.journal, partition):
            found = journal.unpack(value).identity or found
        return Identity.unpack(found) if found else None

    def _require_complete(self, partition: int, checkpoint: Checkpoint | None) -> None:
        """The store must stand where the group does: rows that it lacks were in the topics that are gone."""
        where = f"{self._pipeline.source}-{partition}"
        committed = self._changelog.committed([partition])[partition]
        if checkpoint is None:
            raise StreamsError(
                f"{where}: {self._directory.path} has no state of it: run this where the worker that had the partition "
                "keeps its state (--data-dir)"
            )
        at = None if committed is None else (committed.offset_next, committed.cycle)
        if at != (checkpoint.offset_next, checkpoint.cycle):
            raise StreamsError(
                f"{where}: the store stands at {checkpoint.offset_next} (cycle {checkpoint.cycle}), the group at "
                f"{_told(committed)}: what lies between was in the lost topics only. If another worker had the "
                f"partition last, run this there; else begin again with {rebuild_command(self._pipeline, 'source')}"
            )

    def _from_store(self, partition: int, store: Store, checkpoint: Checkpoint, lost: set[str]) -> _Cycle:
        """The whole state as the first cycle of the new journal; the store must be complete."""
        if checkpoint.replay_from != checkpoint.journal_next:
            raise StreamsError(
                f"{self._pipeline.source}-{partition}: the worker was not stopped cleanly, so that its newest ids and "
                f"held events were in the journal only. Begin again with {rebuild_command(self._pipeline, 'source')}"
            )
        identity = self._identity(checkpoint.identity, lost)
        records = journal_records(
            self._config, partition, store, checkpoint, identity, bytes_max=JOURNAL_RECORD_BYTES_MAX,
            layouts=self._layouts,
        )  # fmt: skip
        return _Cycle(1, checkpoint.positions(self._config.further_names), records)

    def _from_journal(self, partition: int, store: Store, found: Identity, lost: set[str]) -> _Cycle:
        """A further cycle of the journal, which says that the state goes on with other topics."""
        task = restore_partition(
            self._config,
            partition,
            store,
            self._changelog,
            ids_in_memory_max=_IDS_IN_MEMORY_MAX,
            places=self._places,
            accepted=frozenset(lost),
            layouts=self._layouts,
        )
        identity = self._identity(found, lost)
        reached = task.checkpoint
        positions = reached.positions(self._config.further_names)
        entry = JournalEntry(
            cycle=reached.cycle + 1,
            event_time_max=TIME_MIN,
            positions=dict(zip(self._config.position_names, positions, strict=True)),
            identity=identity.packed,
        )
        sections = marked_sections(task)
        if packed := task.growth.packed:
            sections[journal.GROWTH] = [packed]
        return _Cycle(
            entry.cycle,
            positions,
            journal.pack(entry, sections, record_bytes_max=JOURNAL_RECORD_BYTES_MAX),
        )

    def _identity(self, found: Identity, lost: set[str]) -> Identity:
        again = self._config.identity(self._places).written_again(found, lost)
        return replace(again, epoch=found.epoch, partitions=found.partitions)

    def _rows(self, store: Store, partition: int, lost: set[str], epoch: int) -> Iterator[ChangelogPart]:
        home = self._config.home(partition)
        if self._layouts is not None:
            self._layouts.enter(home, epoch)
        for topic in self._pipeline.table_topics:
            if topic in lost:
                yield from changelog_parts(self._config, store, partition, topic, home)

    def _write(self, partition: int, cycle: _Cycle, parts: Iterator[ChangelogPart]) -> Rebuilt:
        pipeline = self._pipeline
        transactions_id = f"{pipeline.member_prefix}rebuild"
        transactions = KafkaTransactions(
            self._settings,
            transactional_id=transactions_id,
            source=pipeline.source,
            retrier=self._retrier,
            timeout_ms=REBUILD_TRANSACTION_MS,
            further=self._further,
        )
        now_ms = int(time.time() * 1000)
        written = 0
        try:
            transactions.reopen()
            transactions.begin()
            for part in parts:
                topic = part.rows.topic
                for _, keys, values, headers in self._encoders[topic].encode_changelog([part]):
                    times = [now_ms] * len(keys)
                    transactions.produce(TopicRecords(topic, keys, values, times, headers, partition=partition))
                    written += len(keys)
            for record in cycle.records:
                transactions.produce(one_record(pipeline.journal, None, record, now_ms, partition=partition))
            known = self._changelog.committed([partition])[partition] or Committed(0, 0)
            reached = {
                lane_of(number, partition): replace(
                    known,  # with how the partition stands in the growths of its flow
                    offset_next=position.offset_next,
                    cycle=cycle.number,
                    author=transactions_id,
                    session=None,
                    topic_id=self._places.topics.get(pipeline.inputs[number].topic),
                )
                for number, position in enumerate(cycle.positions)
                if position.offset_next >= 0
            }
            transactions.send_offsets(reached, self._no_member())
            transactions.commit()
        except CycleAborted as error:
            raise StreamsError(
                f"nothing was written for partition {partition}: {error}; run the command again"
            ) from None
        finally:
            transactions.close()
        return Rebuilt(partition, len(cycle.records), written)

    def _no_member(self) -> object:
        """Stands in for the group member in a commit: the group has no members."""
        consumer = clients.consumer(self._settings, {"group.id": self._pipeline.group})
        try:
            return consumer.consumer_group_metadata()
        finally:
            consumer.close()

    def _values(self, topic: str, partition: int) -> Iterator[bytes]:
        low, high = self._changelog.bounds(topic, partition)
        return (row.value or b"" for rows in self._changelog.read(topic, partition, low, high) for row in rows)

    def _table_encoders(self) -> dict[str, RowEncoder]:
        require_row_schemas(self._catalog, self._pipeline)
        registry, guard = Registry(self._settings), Guard("schema_registry")
        encoders = {}
        tables = self._pipeline.table_topics
        for table in (one for one in self._pipeline.row_outputs if one.topic in tables):
            schema = self._catalog.latest(table.subject).text
            schema_id = table_schema_id(registry, table.subject, schema, guard=guard, retrier=self._retrier)
            encoders[table.topic] = RowEncoder(table.topic, schema, schema_id)
        return encoders


def _told(committed: Committed | None) -> str:
    return "no offset" if committed is None else f"{committed.offset_next} (cycle {committed.cycle})"


def topics_to_empty(pipeline: Pipeline, *, dead_letters: bool) -> list[str]:
    """Topics that a rebuild from the source deletes and creates again."""
    kept = {one.topic for one in pipeline.inputs}
    if not dead_letters:
        kept |= {topic for one in pipeline.inputs for topic in (one.dlq, one.audit)}
    return [topic.name for topic in (*pipeline.topics(), *pipeline.growth_topics()) if topic.name not in kept]


def begin_again(settings: Settings, pipeline: Pipeline, say: Say, *, dead_letters: bool) -> None:
    """Empty the outputs of a flow and delete its offsets: the next worker processes everything in the source.

    Raises:
        StreamsError: workers run, or the broker refuses.

    """
    client = wait_for_broker(settings)
    require_stopped(client, pipeline, say)
    counts = partition_counts(client)
    names = topics_to_empty(pipeline, dead_letters=dead_letters)
    there = [name for name in names if name in counts]
    asked = client.delete_consumer_groups([pipeline.group], request_timeout=REQUEST_TIMEOUT_S)[pipeline.group]
    settled(f"deleting the offsets of {pipeline.group}", asked, fine=(KafkaError.GROUP_ID_NOT_FOUND,))
    say(f"offsets of {pipeline.group} are deleted")
    for name, future in client.delete_topics(there, request_timeout=REQUEST_TIMEOUT_S).items() if there else ():
        settled(f"deleting topic {name}", future, fine=(KafkaError.UNKNOWN_TOPIC_OR_PART,))
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while set(there) & partition_counts(client).keys():
        if time.monotonic() > deadline:
            raise StreamsError("topics are not deleted yet: run the command again")
        time.sleep(0.2)
    apply_topics(client, [pipeline], partitions=counts.get(pipeline.source))
    say(f"created again, empty: {', '.join(names)}")
