"""Kafka in memory: partitions, transactions with markers, group offsets, fencing, and one consumer group.

For the simulation, for tests, and for running a flow without a broker. `MemorySource` and `MemoryTransactions`
(`streams.sources.memory`, `streams.sinks.memory`) read and write it. One thread.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from streams.batch.columns import Headers
from streams.engine.log import LogRow
from streams.sinks.base import Checkpoint, Committed


@dataclass(slots=True)
class Transaction:
    """One transaction: `state` is open, committed or aborted."""

    producer: str
    state: str = "open"
    touched: set[tuple[str, int]] = field(default_factory=set)
    offsets: dict[int, Committed] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None


@dataclass(slots=True)
class Entry:
    """A record of a log, or the marker that ends a transaction."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Headers | None
    transaction: Transaction | None
    is_marker: bool = False
    leader_epoch: int = 0

    @property
    def is_open(self) -> bool:
        """Whether its transaction has not ended."""
        return self.transaction is not None and self.transaction.state == "open"

    @property
    def is_committed(self) -> bool:
        """Whether it is a record that a read_committed consumer gets."""
        return not self.is_marker and (self.transaction is None or self.transaction.state == "committed")


class MemoryKafka:
    """The broker: logs by (topic, partition), and one group's offsets in one source."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.counts: dict[str, int] = {}
        """Partition counts of topics that differ from `partitions`."""
        self.logs: dict[tuple[str, int], list[Entry]] = {}
        self.group: dict[int, Committed] = {}
        self.owners: dict[int, str] = {}
        self.members: set[str] = set()
        """Members of the group: `wanted` divides the partitions among them."""
        self.generation = 0
        """Generation of the group: a member with an older one cannot commit."""
        self.open: dict[str, Transaction] = {}
        self.checkpoints: dict[str, Checkpoint] = {}
        """The last checkpoint of each writer, by its name."""
        self.begin_offset: dict[tuple[str, int], int] = {}
        self.leader_epoch = 0
        """Leader epoch of all partitions: records appended from now on belong to it."""
        self._producer_epochs: dict[str, int] = {}

    # --- the group --------------------------------------------------------------------------------------------------

    def give(self, partition: int, owner: str) -> None:
        """Rebalance: give a partition to a member, without checking who else may still have it."""
        self.owners[partition] = owner
        self.generation += 1

    def take_back(self, partition: int) -> None:
        """A member has released a partition, which belongs to nobody now."""
        self.owners.pop(partition, None)
        self.generation += 1

    def wanted(self, member: str) -> frozenset[int]:
        """Partitions for a member: an even share for each member that has joined."""
        if member not in self.members:
            return frozenset()
        place = sorted(self.members).index(member)
        return frozenset(range(place, self.partitions, len(self.members)))

    def membership_of(self, member: str) -> tuple[str, int]:
        """The membership that a member gets when it polls now."""
        return member, self.generation

    # --- producers --------------------------------------------------------------------------------------------------

    def new_producer(self, name: str) -> int:
        """The epoch of a new producer; aborts the open transaction of the one before, and fences it."""
        left = self.open.get(name)
        if left is not None:
            self.end(left, "aborted")
        self._producer_epochs[name] = self._producer_epochs.get(name, 0) + 1
        return self._producer_epochs[name]

    def is_fenced(self, name: str, epoch: int) -> bool:
        """Whether there is a newer producer of this name."""
        return self._producer_epochs[name] > epoch

    def end(self, transaction: Transaction, state: str) -> None:
        """End a transaction: a marker in each partition that it has touched."""
        transaction.state = state
        for topic, partition in sorted(transaction.touched):
            log = self.log(topic, partition)
            log.append(
                Entry(len(log), None, None, 0, None, transaction, is_marker=True, leader_epoch=self.leader_epoch)
            )
        if state == "committed":
            self.group.update(transaction.offsets)
            if transaction.checkpoint is not None:
                self.checkpoints[transaction.producer] = transaction.checkpoint
        self.open.pop(transaction.producer, None)

    def time_out_transactions(self, partitions: Sequence[int]) -> None:
        """The broker aborts open transactions, as after the timeout of a dead or slow producer."""
        for transaction in list(self.open.values()):
            if transaction.offsets.keys() & set(partitions) or any(p in partitions for _, p in transaction.touched):
                self.end(transaction, "aborted")

    # --- logs -------------------------------------------------------------------------------------------------------

    def log(self, topic: str, partition: int) -> list[Entry]:
        """The log of a partition: its entries by offset."""
        return self.logs.setdefault((topic, partition), [])

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers | None = None,
        transaction: Transaction | None = None,
    ) -> int:
        """Append a record, and return its offset."""
        log = self.log(topic, partition)
        log.append(Entry(len(log), key, value, timestamp_ms, headers, transaction, leader_epoch=self.leader_epoch))
        if transaction is not None:
            transaction.touched.add((topic, partition))
        return len(log) - 1

    def truncate(self, topic: str, partition: int, end: int) -> None:
        """Lose the records from `end` on, as when a replica that lacks the newest ones becomes the leader."""
        del self.log(topic, partition)[end:]
        self.leader_epoch += 1

    def stable_end(self, topic: str, partition: int) -> int:
        """The last stable offset: the first record of an open transaction, or the end of the log."""
        log = self.log(topic, partition)
        return next((entry.offset for entry in log if entry.is_open), len(log))

    def committed_rows(self, topic: str, partition: int) -> list[Entry]:
        """All records of a partition that were committed, those after an open transaction included."""
        return [entry for entry in self.log(topic, partition) if entry.is_committed]

    def topic_rows(self, topic: str) -> list[Entry]:
        """All records of a topic that were committed, partition by partition."""
        return [entry for p in range(self.count_of(topic)) for entry in self.committed_rows(topic, p)]

    def count_of(self, topic: str) -> int:
        """Return the number of partitions of a topic."""
        return self.counts.get(topic, self.partitions)


class MemoryChangelog:
    """`engine.log.Changelog` over `MemoryKafka`."""

    def __init__(self, kafka: MemoryKafka, rows_max: int = 3) -> None:
        """Reads `rows_max` rows at a time."""
        self._kafka, self._rows_max = kafka, rows_max

    def committed(self, partitions: Sequence[int]) -> dict[int, Committed | None]:
        """The group's committed positions; a transaction that is pending on them is aborted."""
        self._kafka.time_out_transactions(partitions)
        return {partition: self._kafka.group.get(partition) for partition in partitions}

    def bounds(self, topic: str, partition: int, *, stable: bool = False) -> tuple[int, int]:  # noqa: ARG002 - as the protocol
        """First and end offset; open transactions make no difference, since reading memory never waits."""
        return self._kafka.begin_offset.get((topic, partition), 0), len(self._kafka.log(topic, partition))

    def has_diverged(self, topic: str, partition: int, offset: int, leader_epoch: int) -> bool:
        """Whether records before `offset` were truncated, and perhaps replaced, after `leader_epoch`."""
        log = self._kafka.log(topic, partition)
        return next((entry.offset for entry in log if entry.leader_epoch > leader_epoch), len(log)) < offset

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[list[LogRow]]:
        """Committed records, in batches of few."""
        rows = [
            LogRow(entry.offset, entry.key, entry.value, entry.headers)
            for entry in self._kafka.log(topic, partition)[start:end]
            if entry.is_committed
        ]
        for at in range(0, len(rows), self._rows_max):
            yield rows[at : at + self._rows_max]
