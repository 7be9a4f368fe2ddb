"""A simulated worker: the production engine, committer and restore, with time, scheduling and death as arguments."""

import copy
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np

from logistics.flows.gps import GPS
from streams.avro.decode import Decoder
from streams.avro.resolve import build_plan
from streams.batch.columns import Headers
from streams.batch.records import Records
from streams.batch.rejects import Reason, Reject
from streams.engine.commit import Committer
from streams.engine.encode import RowEncoder
from streams.engine.engine import Engine, MicroBatch
from streams.engine.restore import restore_partition
from streams.engine.task import TaskConfig
from streams.kafka.memory import MemoryChangelog, MemoryKafka
from streams.kafka.partitioner import partition_of
from streams.schemas.catalog import Catalog
from streams.sinks.base import CycleAborted, OutputRefused
from streams.sinks.memory import MemoryTransactions, Refuses, refuses_nothing
from streams.sources.base import Idle
from streams.state.memory import MemoryStore
from streams.state.store import StoreCorrupted
from streams.worker.ownership import Ownership, Term
from tests.simulation.traffic import NOW_MS, SCHEMA_ID, UNREADABLE, gps_schema

UNKNOWN_SCHEMA_ID = 0x63
REJECTS_MAX, COOLDOWN_MS = 4, 300
"""So few that devices are quarantined and let go several times in a simulation."""
PIPELINE = replace(GPS, windows=(replace(GPS.windows[0], size_ms=500, grace_ms=200),))
"""Small windows: a simulation lasts for seconds."""


class Crash(BaseException):
    """The process dies here."""


def _no_stopwatch(_: str) -> AbstractContextManager[None]:
    return nullcontext()


class SimulatedWorker:
    """One worker process over its durable directory; `crash` kills it anywhere."""

    def __init__(
        self,
        name: str,
        kafka: MemoryKafka,
        rng: random.Random,
        *,
        lateness_ms: int,
        horizon_ms: int,
        batch_records_max: int,
        faults: bool,
        meanwhile: Callable[["SimulatedWorker", str], None] = lambda *_: None,
        refuses: Refuses = refuses_nothing,
    ) -> None:
        """`meanwhile` is called while a commit of this worker is in flight, and told how far it got."""
        self.name = name
        self._meanwhile = meanwhile
        self.is_zombie = False
        """The group has gone on, and this worker does not poll: it hears of nothing."""
        self._starts = 0
        self.kafka = kafka
        self.rng = rng
        self.batch_records_max = batch_records_max
        self.faults = faults
        self.refuses = refuses
        self.disk: dict[int, dict[bytes, bytes]] = {}
        self.old_disk: dict[int, dict[bytes, bytes]] = {}
        self._config = TaskConfig(
            PIPELINE,
            lateness_ms,
            horizon_ms,
            _no_stopwatch,
            lambda key: partition_of(key, kafka.partitions),
            quarantine_rejects_max=REJECTS_MAX,
            quarantine_cooldown_ms=COOLDOWN_MS,
        )
        self.crashes = self.resets = 0
        self.now_ms = 0
        self.start()

    def start(self) -> None:
        decoder = Decoder(GPS, record_bytes_max=1 << 20, skew_ms_max=60_000)
        self.engine = Engine(self._config, decoder, idle_ms=1_000)
        self.changelog = MemoryChangelog(self.kafka)
        self.transactions = MemoryTransactions(
            self.kafka, self.name, self._verdict, lambda moment: self._meanwhile(self, moment), self.refuses
        )
        table = Catalog.load().latest("vehicles.state.v1-value")
        minute = Catalog.load().latest("vehicles.minutes.v1-value")
        encoders = [
            RowEncoder("vehicles.state.v1", table.text, 3),
            RowEncoder(PIPELINE.windows[0].topic, minute.text, 4),
        ]
        self._starts += 1
        self.committer = Committer(
            PIPELINE,
            self.transactions,
            self.changelog,
            encoders,
            self._failpoint,
            author=self.name,
            session=str(self._starts),
        )
        self.ownership = Ownership()
        self.owned: dict[int, Term] = {}
        """As the group has said, and as far as this worker has got round to it."""
        self.position: dict[int, int] = {}
        """Of partitions that are restored."""
        self._terms: dict[int, Term] = {}
        """Under which the state of each partition was restored."""
        self._cycle_terms: set[Term] = set()
        self._untold: list[Callable[[], None]] = []
        """What came while a commit was in flight."""

    # --- ownership --------------------------------------------------------------------------------------------------

    def note(self) -> None:
        """Hear of the group's generation, as each poll does."""
        self.ownership.note(self.kafka.membership_of(self.name))

    def assign(self, partition: int) -> None:
        """The group gives a partition to this worker."""
        self.kafka.give(partition, self.name)
        self.note()
        self.take(partition, self.ownership.begin([partition])[partition])

    def take(self, partition: int, term: Term) -> None:
        self.owned[partition] = term
        self.restore(partition)

    def restore(self, partition: int) -> None:
        for _ in range(2):
            store = MemoryStore(self.disk.setdefault(partition, {}))
            try:
                few = self.rng.choice((5, 50, 10**6))
                task = restore_partition(
                    self._config, partition, store, self.changelog, ids_in_memory_max=few, held_bytes_max=400 * few
                )
                break
            except StoreCorrupted:
                self.disk[partition] = {}
        self.engine.install(task)
        self.position[partition] = max(task.offset_next, 0)
        self._terms[partition] = self.owned[partition]

    def revoke(self, partition: int) -> None:
        """Gracefully: finish the cycle, move everything to the store; sometimes the commit cannot be had in time."""
        unfinished = self.faults and self.rng.random() < 0.3
        if not unfinished:
            self.commit()
        self.drop(partition)
        if unfinished:
            self.reset()
        self.ownership.end([partition])

    def revoke_too_slowly(self, partition: int) -> Callable[[], None]:
        """The release does not end in time: the group goes on. Call what is returned when it has ended."""
        self.ownership.end([partition])

        def finish() -> None:
            self.commit()
            self.drop(partition)

        return finish

    def drop(self, partition: int) -> None:
        """Close the store of a partition; what is settled of its task goes there first."""
        self.owned.pop(partition, None)
        self.position.pop(partition, None)
        task = self.engine.drop(partition)
        if task is not None:
            task.park()

    def lose(self, partition: int) -> None:
        """The group has given the partition to somebody else meanwhile; whatever is open is fenced."""
        self.ownership.end([partition])
        self.owned.pop(partition, None)
        self.reset()

    def lose_in_flight(self, partition: int, *, comes_back: bool) -> None:
        """As `lose`, while a commit is in flight: told to the group's listener at once, carried out afterwards."""
        self.ownership.end([partition])
        self._untold.append(lambda: self.lose(partition))
        if comes_back:
            self.kafka.give(partition, self.name)
            self.note()
            term = self.ownership.begin([partition])[partition]
            self._untold[-1] = lambda: self._lose_and_take(partition, term)

    def _lose_and_take(self, partition: int, term: Term) -> None:
        self.owned.pop(partition, None)
        self.reset()
        self.take(partition, term)

    def reset(self) -> None:
        """Abort, drop all state, reload from the stores and run again from the committed offsets."""
        self.resets += 1
        self.committer.abort()
        self._cycle_terms.clear()
        for partition in list(self.position):
            task = self.engine.drop(partition)
            assert task is not None
            task.store.flush()
        stopped = self.engine.refusals.stopped
        self.position.clear()
        for partition, term in self.owned.items():
            if self.ownership.runs(term) and partition not in stopped:
                self.restore(partition)

    def crash(self) -> None:
        """Kill and start again: memory is gone, the disk is as of the last flush."""
        self.crashes += 1
        owned = [p for p, owner in self.kafka.owners.items() if owner == self.name]
        left = self.kafka.open.get(self.name)
        if left is not None and self.rng.random() < 0.5:
            self.kafka.end(left, "aborted")
        fate = self.rng.random()
        for partition in owned:
            if fate < 0.1:
                self.disk[partition] = {}
            elif fate < 0.2 and partition in self.old_disk:
                self.disk[partition] = copy.copy(self.old_disk[partition])
            elif fate < 0.4:
                self.old_disk[partition] = copy.copy(self.disk[partition])
        self.start()
        for partition in owned:
            self.assign(partition)

    # --- work -------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One random thing that a worker does."""
        action = self.rng.random()
        if action < 0.7:
            self.process(self.poll())
        elif action < 0.9:
            self.commit()
        elif action < 0.96:
            self.maintain()
        else:
            for task in self.engine.tasks.values():
                task.store.flush()

    def poll(self) -> Records | None:
        rows: list[tuple[int, int, int, bytes | None, bytes | None, Headers | None]] = []
        for partition in self.rng.sample(sorted(self.position), k=len(self.position)):
            log = self.kafka.log(GPS.source, partition)
            count = self.rng.randint(0, self.batch_records_max)
            for entry in log[self.position[partition] : self.position[partition] + count]:
                rows.append((partition, entry.offset, entry.timestamp_ms, entry.key, entry.value, entry.headers))
                self.position[partition] = entry.offset + 1
        if not rows:
            return None
        columns = list(zip(*rows, strict=True))
        numbers = [np.array(column, dtype=np.int64) for column in columns[:3]]
        headers = [[pair for pair in pairs or () if pair[0] != UNREADABLE] or None for pairs in columns[5]]
        lost = {row: 1 for row, pairs in enumerate(columns[5]) if any(name == UNREADABLE for name, _ in pairs or ())}
        return Records(
            numbers[0],
            numbers[1],
            numbers[2],
            list(columns[3]),
            list(columns[4]),
            headers if any(headers) else None,
            lost or None,
        )

    def process(self, records: Records | None, idle: dict[int, Idle] | None = None) -> None:
        self._guarded(lambda: self._process(records, idle or {}))

    def _process(self, records: Records | None, idle: dict[int, Idle]) -> None:
        self._write(self._batch(records, idle))
        if self.engine.missing_schemas and (idle or self.rng.random() < 0.5):
            self._learn()
            self._write(self._batch(None, {}))

    def _batch(self, records: Records | None, idle: dict[int, Idle]) -> MicroBatch:
        """When exactly a record is read decides nothing."""
        return MicroBatch(records, self.now_ms, idle, clock_ms=NOW_MS + self.rng.randint(0, 60_000))

    def _write(self, batch: MicroBatch) -> None:
        effects = self.engine.process(batch)
        self._cycle_terms |= {self._terms[part.partition] for part in effects.partitions}
        self.committer.write(effects)

    def _learn(self) -> None:
        for schema_id in self.engine.missing_schemas:
            if schema_id == SCHEMA_ID:
                self.engine.learn({schema_id: build_plan(schema_id, gps_schema(), gps_schema())})
            else:
                self.engine.learn({schema_id: Reject(-1, Reason.UNKNOWN_SCHEMA, "no such schema", schema_id)})

    def commit(self) -> None:
        self._guarded(self._commit)

    def _commit(self) -> None:
        end = self.engine.close_cycle()
        if end is not None:
            terms = self._cycle_terms | {self._terms[commit.partition] for commit in end.commits}
            self._cycle_terms = set()
            self.committer.commit(end, self.engine.tasks, self.now_ms, lambda: self.ownership.claim(terms))

    def catch_up(self) -> None:
        """Process and commit what is there: a cycle that was open may turn out to be aborted, and run again."""
        self.commit()
        while (records := self.poll()) is not None:
            self.process(records)
            self.commit()

    def maintain(self) -> None:
        """Expire, spill at random, truncate the journal: only between cycles."""
        self.commit()
        self.engine.expire()
        for task in self.engine.tasks.values():
            task.spill(
                below=task.watermark - self.rng.choice((-(10**9), 0, 500, 5_000)),
                rows_keep=self.rng.choice((0, 1, 5, 10**6)),
                keep_keys=self.rng.random() < 0.5,
            )
            cut = task.truncate_journal_before()
            if cut is not None:
                self.kafka.begin_offset[GPS.journal, task.partition] = cut

    def _guarded(self, work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except CycleAborted as error:
            if isinstance(error, OutputRefused):
                self.engine.refusals.note(error.refused)
            self.reset()
        except Crash:
            self.crash()
        while self._untold:
            self._untold.pop(0)()

    def _failpoint(self, _: str) -> None:
        if self.faults and self.rng.random() < 0.01:
            raise Crash

    def _verdict(self) -> str:
        if not self.faults:
            return "committed"
        return self.rng.choices(
            ("committed", "aborted", "unknown-happened", "unknown-not-happened"), weights=(90, 4, 3, 3)
        )[0]
