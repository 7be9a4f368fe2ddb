"""Twins of the Kafka sinks, over `streams.kafka.memory.MemoryKafka`."""

from collections.abc import Callable

from streams.errors import FencedError
from streams.kafka.memory import MemoryKafka, Transaction
from streams.kafka.partitioner import partition_of
from streams.sinks.base import (
    Checkpoint,
    Committed,
    CycleAborted,
    OutcomeUnknown,
    OutputRefused,
    Refused,
    TopicRecords,
)

Refuses = Callable[[str, bytes | None, bytes | None], bool]
"""Whether a topic refuses a record of this key and value, for ever."""


def refuses_nothing(_topic: str, _key: bytes | None, _value: bytes | None) -> bool:
    """As topics do that are configured as declared."""
    return False


class MemoryTransactions:
    """`sinks.base.Transactions`; `verdict` decides how a commit ends, `refuses` which records are not taken.

    A verdict is `committed`, `aborted`, `unknown-happened` or `unknown-not-happened`. `meanwhile` is called while a
    commit is in flight: before it reaches the broker, and before its outcome is heard, with which of both it is.

    As with the real one the first refusal is an end of the cycle that names nothing; the next run names a record.
    """

    def __init__(
        self,
        kafka: MemoryKafka,
        producer: str,
        verdict: Callable[[], str] = lambda: "committed",
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
        """Be a new producer of this name: what is open is aborted, and an older one is fenced."""
        self._epoch = self._kafka.new_producer(self._producer)
        self._transaction = None

    def begin(self) -> None:
        """Open a transaction."""
        self._check_fence()
        if self._producer in self._kafka.open:
            raise AssertionError("a transaction is open")
        self._refused = []
        self._transaction = self._kafka.open[self._producer] = Transaction(self._producer)

    def produce(self, records: TopicRecords) -> None:
        """Append records to their logs, where nobody sees them yet."""
        transaction, offset = self._current(), -1
        headers = records.headers if records.headers is not None else [None] * len(records)
        rows = zip(records.keys, records.values, records.times(), headers, strict=True)
        for key, value, timestamp_ms, of_record in rows:
            if self._refuses(records.topic, key, value):
                self._refused.append(Refused(records.topic, key, value, records.origin, "refused"))
                offset = -1
                continue
            at = records.partition
            if at is None:
                at = partition_of(key or b"", self._kafka.count_of(records.topic))
            offset = self._kafka.append(records.topic, at, key, value, timestamp_ms, of_record, transaction)
        if offset >= 0 and records.on_last_delivered is not None:
            records.on_last_delivered(offset)

    def send_offsets(self, positions: dict[int, Committed], membership: object) -> None:
        """As the broker does it: it knows the members and their generation, not what the partitions were before.

        Raises:
            TypeError: nobody's membership, as of Kafka's client.

        """
        if membership is None:
            raise TypeError("offsets of a group are sent in the name of a member")
        transaction = self._current()
        if membership != self._kafka.membership_of(self._producer):
            raise CycleAborted("illegal_generation", "the group has moved on")
        transaction.offsets.update(positions)

    def send_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Add a writer's checkpoint to the transaction."""
        self._current().checkpoint = checkpoint

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
        """Abort the open transaction, if any."""
        if self._transaction is not None and self._transaction.state == "open":
            self._kafka.end(self._transaction, "aborted")

    def close(self) -> None:
        """Abort what is open."""
        self.abort()

    def _current(self) -> Transaction:
        self._check_fence()
        if self._transaction is None or self._transaction.state != "open":
            raise CycleAborted("timeout", "the broker has aborted the transaction")
        return self._transaction

    def _check_fence(self) -> None:
        if self._kafka.is_fenced(self._producer, self._epoch):
            raise FencedError(f"another process has taken over the transactional id {self._producer}")


class MemoryCheckpoints:
    """`sinks.base.Checkpoints` of the writer of some transactions."""

    def __init__(self, kafka: MemoryKafka, transactions: MemoryTransactions, *, name: str) -> None:
        self._kafka, self._transactions, self._name = kafka, transactions, name

    def last(self) -> Checkpoint | None:
        """The last checkpoint that was committed."""
        return self._kafka.checkpoints.get(self._name)

    def add(self, checkpoint: Checkpoint) -> None:
        """Commit it with the open transaction."""
        self._transactions.send_checkpoint(checkpoint)

    def close(self) -> None:
        """Nothing to disconnect from."""
