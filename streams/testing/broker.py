"""In-memory twin of Kafka as the engine sees it: partitions, transactions with markers, group offsets, fencing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from streams.batch.columns import Headers
from streams.engine.log import Committed, CycleAborted, LogRow, OutcomeUnknown, OutputRefused, Refused
from streams.kafka.partitioner import partition_of


@dataclass(slots=True)
class Transaction:
    """A producer's transaction: what it has touched, and how it ended."""

    producer: str
    state: str = "open"
    touched: set[tuple[str, int]] = field(default_factory=set)
    offsets: dict[int, Committed] = field(default_factory=dict)


@dataclass(slots=True)
class Entry:
    """A record of a log, or the marker that ends a transaction there."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Headers | None
    transaction: Transaction | None
    is_marker: bool = False
    leader_epoch: int = 0


class MemoryKafka:
    """The broker: logs by (topic, partition), and one group's offsets in one source."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.logs: dict[tuple[str, int], list[Entry]] = {}
        self.group: dict[int, Committed] = {}
        self.owners: dict[int, str] = {}
        self.generation = 0
        """Of the group: a member that has not heard of the newest one commits nothing."""
        self.open: dict[str, Transaction] = {}
        self.begin_offset: dict[tuple[str, int], int] = {}
        self.leader_epoch = 0
        """Of all partitions: what is appended now belongs to it."""

    def give(self, partition: int, owner: str) -> None:
        """Rebalance: the group gives a partition to a member. It does not look at who else may still have it."""
        self.owners[partition] = owner
        self.generation += 1

    def membership_of(self, member: str) -> tuple[str, int]:
        """What a member knows of its place in the group when it polls now."""
        return member, self.generation

    def log(self, topic: str, partition: int) -> list[Entry]:
        """Everything that was appended to a partition, markers and aborted records too."""
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
        """Append a record; returns its offset."""
        log = self.log(topic, partition)
        log.append(Entry(len(log), key, value, timestamp_ms, headers, transaction, leader_epoch=self.leader_epoch))
        if transaction is not None:
            transaction.touched.add((topic, partition))
        return len(log) - 1

    def truncate(self, topic: str, partition: int, end: int) -> None:
        """Lose what is at `end` and after it, as when a replica that lacks the newest records becomes the leader."""
        del self.log(topic, partition)[end:]
        self.leader_epoch += 1

    def end(self, transaction: Transaction, state: str) -> None:
        """Commit or abort: a marker in each partition that was touched, and the offsets if it is committed."""
        transaction.state = state
        for topic, partition in sorted(transaction.touched):
            log = self.log(topic, partition)
            log.append(
                Entry(len(log), None, None, 0, None, transaction, is_marker=True, leader_epoch=self.leader_epoch)
            )
        if state == "committed":
            self.group.update(transaction.offsets)
        self.open.pop(transaction.producer, None)

    def time_out_transactions(self, partitions: Sequence[int]) -> None:
        """What waiting for an open transaction of a dead or slow producer comes to: the broker aborts it."""
        for transaction in list(self.open.values()):
            if transaction.offsets.keys() & set(partitions) or any(p in partitions for _, p in transaction.touched):
                self.end(transaction, "aborted")

    def committed_rows(self, topic: str, partition: int) -> list[Entry]:
        """What a reader of committed records sees of a partition."""
        return [
            entry
            for entry in self.log(topic, partition)
            if not entry.is_marker and (entry.transaction is None or entry.transaction.state == "committed")
        ]

    def topic_rows(self, topic: str) -> list[Entry]:
        """What a reader of committed records sees of a topic, partition after partition."""
        return [entry for p in range(self.partitions) for entry in self.committed_rows(topic, p)]


class MemoryChangelog:
    """`Changelog` over `MemoryKafka`."""

    def __init__(self, kafka: MemoryKafka) -> None:
        self._kafka = kafka

    def committed(self, partitions: Sequence[int]) -> dict[int, Committed | None]:
        """The group's positions; a transaction that is pending on them is aborted."""
        self._kafka.time_out_transactions(partitions)
        return {partition: self._kafka.group.get(partition) for partition in partitions}

    def bounds(self, topic: str, partition: int, *, stable: bool = False) -> tuple[int, int]:
        """Memory is read without waiting: where a transaction is open makes no difference."""
        del stable
        return self._kafka.begin_offset.get((topic, partition), 0), len(self._kafka.log(topic, partition))

    def has_diverged(self, topic: str, partition: int, offset: int, leader_epoch: int) -> bool:
        """Whether records before `offset` were truncated since."""
        log = self._kafka.log(topic, partition)
        return next((entry.offset for entry in log if entry.leader_epoch > leader_epoch), len(log)) < offset

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[list[LogRow]]:
        """Committed records of [start, end), three at a time."""
        rows = [
            LogRow(entry.offset, entry.key, entry.value, entry.headers)
            for entry in self._kafka.committed_rows(topic, partition)
            if start <= entry.offset < end
        ]
        for at in range(0, len(rows), 3):
            yield rows[at : at + 3]


Refuses = Callable[[str, bytes | None, bytes | None], bool]
"""Whether a topic refuses a record of this key and value, for ever."""


def refuses_nothing(_topic: str, _key: bytes | None, _value: bytes | None) -> bool:
    """As topics do that are configured as declared."""
    return False


class MemoryTransactions:
    """`Transactions` over `MemoryKafka`; `verdict` decides how a commit ends, `refuses` which records are not taken.

    `meanwhile` is called while a commit is in flight: before it reaches the broker, and before its outcome is heard,
    with which of both it is.

    As with the real one the first refusal is an end of the cycle that names nothing; the next run names a record.
    """

    def __init__(
        self,
        kafka: MemoryKafka,
        producer: str,
        verdict: Callable[[], str],
        meanwhile: Callable[[str], None] = lambda _: None,
        refuses: Refuses = refuses_nothing,
    ) -> None:
        self._refuses = refuses
        self._refused: list[Refused] = []
        self._searches = False
        self._kafka = kafka
        self._producer = producer
        self._verdict = verdict
        self._meanwhile = meanwhile
        self._transaction: Transaction | None = None
        self.reopen()

    def reopen(self) -> None:
        """Abort what this producer's last session left open."""
        left = self._kafka.open.get(self._producer)
        if left is not None:
            self._kafka.end(left, "aborted")

    def begin(self) -> None:
        """Open a transaction."""
        if self._producer in self._kafka.open:
            raise AssertionError(f"{self._producer} has an open transaction already")
        self._refused = []
        self._transaction = self._kafka.open[self._producer] = Transaction(self._producer)

    def produce_many(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps: Sequence[int],
        headers: Sequence[Headers | None] | None,
        *,
        partition: int | None = None,
        origin: int | None = None,
        on_last_delivered: Callable[[int], None] | None = None,
    ) -> None:
        """Append records."""
        last = len(keys) - 1
        for i, (key, value, timestamp) in enumerate(zip(keys, values, timestamps, strict=True)):
            self.produce(
                topic,
                key=key,
                value=value,
                partition=partition,
                timestamp_ms=timestamp,
                headers=headers[i] if headers is not None else None,
                origin=origin,
                on_delivered=on_last_delivered if i == last else None,
            )

    def produce(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp_ms: int,
        headers: Headers | None,
        origin: int | None = None,
        on_delivered: Callable[[int], None] | None = None,
    ) -> None:
        """Append one record."""
        transaction = self._current()
        if self._refuses(topic, key, value):
            self._refused.append(Refused(topic, key, value, origin, "refused"))
            return
        at = partition if partition is not None else partition_of(key or b"", self._kafka.partitions)
        offset = self._kafka.append(topic, at, key, value, timestamp_ms, headers, transaction)
        if on_delivered is not None:
            on_delivered(offset)

    def send_offsets(self, positions: dict[int, Committed], membership: object) -> None:
        """As the broker does it: it knows the members and their generation, not what the partitions were before."""
        transaction = self._current()
        if membership != self._kafka.membership_of(self._producer):
            raise CycleAborted("illegal_generation", "the group has moved on")
        transaction.offsets.update(positions)

    def commit(self) -> None:
        """End the transaction as `verdict` says."""
        self._meanwhile("in flight")
        transaction = self._current()
        if self._refused:
            named = self._refused[:1] if self._searches else []
            self._searches = not self._searches
            raise OutputRefused("an output refuses records", named)
        match self._verdict():
            case "aborted":
                raise CycleAborted("test", "the broker refused")
            case "unknown-happened":
                self._kafka.end(transaction, "committed")
                self._meanwhile("answer lost")
                raise OutcomeUnknown("the answer was lost")
            case "unknown-not-happened":
                self._meanwhile("answer lost")
                raise OutcomeUnknown("the request was lost")
            case _:
                self._kafka.end(transaction, "committed")
                self._meanwhile("in flight")

    def abort(self) -> None:
        """Abort the open transaction, if there is one."""
        if self._transaction is not None and self._transaction.state == "open":
            self._kafka.end(self._transaction, "aborted")

    def _current(self) -> Transaction:
        if self._transaction is None or self._transaction.state != "open":
            raise CycleAborted("timeout", "the broker has aborted the transaction")
        return self._transaction
