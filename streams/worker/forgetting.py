"""`streams forget` for a flow without workers: deletes everything that its tables and state keep of a key.

No worker runs that has the key's rows in memory and would write them again. The command restores the key's partition
into a store of its own and commits the cycle that forgets it (docs/adr/0090). A worker that starts later, whatever its
store holds, reads that and deletes the key's rows, before it processes anything. While workers run they do it:
`forget_asking.py`.
"""

import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streams.deadletters.letter.audit import Actor
from streams.engine.commit import Committer
from streams.engine.forget import ForgetRequest, OpenRequests, told_beside, waits
from streams.engine.restore import restore_partition
from streams.engine.task import PartitionTask
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka import clients
from streams.kafka.admin import partition_counts, wait_for_broker
from streams.kafka.changelog import KafkaChangelog
from streams.kafka.partitioner import partition_of
from streams.kafka.places import KafkaPlaces
from streams.resilience.retry import Retrier, quietly
from streams.schemas.catalog import Catalog
from streams.settings import Settings
from streams.sinks.base import CycleAborted
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
    """What was found of a key, and in which tables."""

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
        self._further = tuple(one.topic for one in pipeline.further_inputs)
        self._changelog = KafkaChangelog(
            settings, group=pipeline.group, source=pipeline.source, retrier=Retrier(say=quietly), further=self._further
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
        self._changelog.require_settled([*(one.topic for one in flow.inputs), *flow.changelogs], partition)
        task = restore_partition(
            self._config, partition, self._store, self._changelog,
            ids_in_memory_max=_IDS_IN_MEMORY_MAX, places=self._places,
        )  # fmt: skip
        task.first_offset, _ = self._changelog.bounds(flow.source, partition)
        self._require_processed(task)
        self._require_released(task)
        return task, Forgotten(partition, tuple(self._rows()))

    def forget(self, task: PartitionTask, actor: Actor) -> None:
        """Write what makes every worker forget the key, and who wanted it; `task` is what `look` gave.

        Raises:
            StreamsError: nothing was written; or a worker has started meanwhile. It is safe to run it again.
            FencedError: another forgetting of this flow has started.

        """
        flow, name, now_ms = self._pipeline, f"{self._pipeline.member_prefix}forget", time.time_ns() // 1_000_000
        transactions = KafkaTransactions(
            self._settings, transactional_id=name, source=flow.source, retrier=Retrier(), further=self._further
        )
        committer = Committer(flow, transactions, self._changelog, (), author=name, session=uuid.uuid4().hex)
        try:
            transactions.reopen()
            beside = told_beside(flow, actor, self.partition, now_ms, done=self._asked())
            committer.forget([task.cycle.forgetting([self._key])], beside, now_ms, self._no_member)
        except CycleAborted as error:
            raise StreamsError(f"nothing was written: {error}; run the command again") from None
        finally:
            transactions.close()
        require_stopped(self._client, flow, self._say, wait_s=0.0)

    def _asked(self) -> list[ForgetRequest]:
        """Open requests for this key: this run carries them out."""
        if self._pipeline.forget not in partition_counts(self._client):
            return []
        return [one for one in OpenRequests(self._pipeline, self._changelog).read() if one.key == self._key]

    def _no_member(self) -> object:
        """Stands in for the group member in a commit: the group has no members."""
        consumer = clients.consumer(self._settings, {"group.id": self._pipeline.group})
        try:
            return consumer.consumer_group_metadata()
        finally:
            consumer.close()

    def _require_processed(self, task: PartitionTask) -> None:
        for one, position in zip(self._pipeline.inputs, task.positions, strict=True):
            low, high = self._changelog.bounds(one.topic, self.partition)
            read = self._changelog.read(one.topic, self.partition, max(low, position.offset_next), high)
            waiting = sum(row.key == self._key for rows in read for row in rows)
            if waiting:
                raise StreamsError(
                    f"{one.topic}-{self.partition} has {counted(waiting, 'record')} of this key that no worker has "
                    "processed yet: they would bring its rows back. Start the workers, and run the command again"
                )

    def _require_released(self, task: PartitionTask) -> None:
        if waits(task, self._key):
            raise StreamsError(
                f"events of this key wait for their turn in partition {self.partition}: they would bring its rows "
                "back. Start the workers, and run the command again: they do it once these events are released "
                "(STREAMS_LATENESS_MS; STREAMS_IDLE_MS where nothing more comes)"
            )

    def _rows(self) -> list[str]:
        found = []
        for state in self._config.keyed:
            (row,) = StoreSpace(self._store, state.part).get_many([self._key])
            if row is not None:
                found.append(state.name)
        return found
