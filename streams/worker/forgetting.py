"""What `streams forget` does: nothing of a key is kept in a flow's tables and state any more (ADR 90).

The flow's workers are stopped meanwhile, so that nobody has the key's rows in memory and writes them again. Then, in
one transaction: a record without a value in each table, the next cycle of the partition's journal, which takes the last
released event away, and the group's offset with that cycle's number. A worker that starts later, whatever its store
holds, reads them and deletes the key's rows, before it processes anything.
"""

import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streams.batch.refs import byte_values
from streams.deadletters.letter.audit import Actor, forget_record
from streams.engine.forget import forgetting_cycle
from streams.engine.restore import restore_partition
from streams.engine.task import PartitionTask
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka import clients
from streams.kafka.admin import wait_for_broker
from streams.kafka.changelog import KafkaChangelog
from streams.kafka.partitioner import partition_of
from streams.kafka.places import KafkaPlaces
from streams.operators.reorder.held import held_in_store
from streams.operators.reorder.operator import ReorderOperator
from streams.operators.reorder.section import HELD
from streams.resilience.retry import Retrier
from streams.schemas.catalog import Catalog
from streams.settings import Settings
from streams.sinks.base import Committed, CycleAborted, one_record
from streams.sinks.kafka.transactions import KafkaTransactions
from streams.state.rocks import RocksMemory, RocksStore
from streams.state.space import StoreSpace
from streams.text import counted
from streams.worker.configuration import config_of
from streams.worker.rebuild import require_stopped

Say = Callable[[str], None]

_MEMORY_BYTES: Final = 64 << 20
_IDS_IN_MEMORY_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What there was of a key, and where it was."""

    partition: int
    rows: tuple[str, ...]
    """Tables and windows that had a row of it."""


class Forgetting:
    """Forgets one key of one flow. `look` first; close it when done."""

    def __init__(self, settings: Settings, pipeline: Pipeline, key: bytes, say: Say) -> None:
        """Connect.

        Raises:
            StreamsError: no broker, or topics are missing.

        """
        self._settings, self._pipeline, self._key, self._say = settings, pipeline, key, say
        self._client = wait_for_broker(settings)
        self._places = KafkaPlaces(settings, pipeline).find()
        self._changelog = KafkaChangelog(
            settings, group=pipeline.group, source=pipeline.source, retrier=Retrier(say=lambda _: None)
        )
        self._config = config_of(pipeline, settings, self._places.partitions, catalog=Catalog.load())
        self._directory = Path(tempfile.mkdtemp(prefix="streams-forget-"))
        self._store = RocksStore(
            self._directory / "store", RocksMemory(cache_bytes=_MEMORY_BYTES, memtable_bytes=_MEMORY_BYTES)
        )
        self.partition = partition_of(key, self._places.partitions)

    def close(self) -> None:
        """Disconnect, and delete what was restored."""
        self._changelog.close()
        self._store.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def look(self) -> tuple[PartitionTask, Forgotten]:
        """Restore the key's partition from Kafka, and say what there is of the key.

        Raises:
            StreamsError: workers run; or events of the key are held or not processed yet: they would bring its rows
                back. The message says what to do.
            RestoreFailed, StoreOutdated: the state cannot be used; `streams state inspect` says why.

        """
        require_stopped(self._client, self._pipeline, self._say)
        flow, partition = self._pipeline, self.partition
        self._changelog.require_settled([flow.source, *flow.changelogs], partition)
        task = restore_partition(
            self._config, partition, self._store, self._changelog,
            ids_in_memory_max=_IDS_IN_MEMORY_MAX, places=self._places,
        )  # fmt: skip
        self._require_processed(task)
        self._require_released(task)
        return task, Forgotten(partition, tuple(self._rows()))

    def forget(self, task: PartitionTask, actor: Actor) -> None:
        """Write what makes every worker forget the key, and who wanted it; `task` is what `look` gave.

        Raises:
            StreamsError: nothing was written; or a worker has started meanwhile. It is safe to run it again.
            FencedError: another forgetting of this flow has started.

        """
        flow, now_ms = self._pipeline, time.time_ns() // 1_000_000
        transactions = KafkaTransactions(
            self._settings,
            transactional_id=f"{flow.member_prefix}forget",
            source=flow.source,
            retrier=Retrier(),
        )
        try:
            transactions.reopen()
            transactions.begin()
            written = forgetting_cycle(task, [self._key], now_ms)
            for records in written.records:
                transactions.produce(records)
            transactions.produce(one_record(flow.audit, *forget_record(actor, self.partition, at_ms=now_ms), now_ms))
            if written.cycle is not None:
                transactions.send_offsets({self.partition: self._position(task, written.cycle)}, self._no_member())
            transactions.commit()
        except CycleAborted as error:
            raise StreamsError(f"nothing was written: {error}; run the command again") from None
        finally:
            transactions.close()
        require_stopped(self._client, flow, self._say, wait_s=0.0)

    def _position(self, task: PartitionTask, cycle: int) -> Committed:
        return Committed(
            task.checkpoint.offset_next,
            cycle,
            author=f"{self._pipeline.member_prefix}forget",
            session=uuid.uuid4().hex,
            topic_id=self._places.topics.get(self._pipeline.source),
        )

    def _no_member(self) -> object:
        """What commits for a group that has no members."""
        consumer = clients.consumer(self._settings, {"group.id": self._pipeline.group})
        try:
            return consumer.consumer_group_metadata()
        finally:
            consumer.close()

    def _require_processed(self, task: PartitionTask) -> None:
        source, start = self._pipeline.source, task.offset_next
        low, high = self._changelog.bounds(source, self.partition)
        waiting = sum(
            row.key == self._key
            for rows in self._changelog.read(source, self.partition, max(low, start), high)
            for row in rows
        )
        if waiting:
            raise StreamsError(
                f"{source}-{self.partition} has {counted(waiting, 'record')} of this key that no worker has processed "
                "yet: they would bring its rows back. Let the workers catch up, stop them, and run the command again"
            )

    def _require_released(self, task: PartitionTask) -> None:
        held = 0
        for operator in task.operators.values():
            if isinstance(operator, ReorderOperator):
                held += _of_key(self._key, *(byte_values(events.key) for events in operator.held.all()))
        in_pages = held_in_store(StoreSpace(self._store, HELD), self._config.fields, task.watermark)
        if in_pages is not None:
            held += _of_key(self._key, byte_values(in_pages.key))
        if held:
            raise StreamsError(
                f"{counted(held, 'event')} of this key wait for their turn in partition {self.partition}: they would "
                "bring its rows back. Start the workers, wait until they are released (STREAMS_LATENESS_MS; "
                "STREAMS_IDLE_MS where nothing more comes), stop them, and run the command again"
            )

    def _rows(self) -> list[str]:
        found = []
        for state in self._config.keyed:
            (row,) = StoreSpace(self._store, state.part).get_many([self._key])
            if row is not None:
                found.append(state.name)
        return found


def _of_key(key: bytes, *columns: Sequence[bytes]) -> int:
    return sum(column.count(key) for column in columns)
