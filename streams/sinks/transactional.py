"""A `Sink` over `Transactions`: the same for transactions of Kafka and those of the twin in memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from streams.errors import FencedError
from streams.sinks.base import (
    Checkpoint,
    Checkpoints,
    CycleAborted,
    OutcomeUnknown,
    Outgoing,
    TopicRecords,
    Transactions,
    WriteInterrupted,
    one_record,
)


class TransactionalSink:
    """Records into topics, in transactions under one name."""

    def __init__(self, transactions: Transactions, checkpoints: Checkpoints | None = None, *, fenced: str) -> None:
        """`checkpoints` None: the writer finds out by itself how far it got, as by what it has written.

        `fenced`: what to tell the user when another writer of the same name takes over.
        """
        self._transactions, self._checkpoints, self._fenced = transactions, checkpoints, fenced
        self._is_open = False

    def open(self) -> Checkpoint | None:
        """Take over the name: abort what a crashed session left open, fence a running one, read the checkpoint."""
        with self._translated():
            self._is_open = False
            self._transactions.reopen()
            return None if self._checkpoints is None else self._checkpoints.last()

    def write(self, outgoing: Sequence[Outgoing]) -> None:
        """Add records to the open transaction."""
        with self._translated():
            self._begin()
            for each in outgoing:
                self._produce(each)

    def commit(self, checkpoint: Checkpoint | None = None) -> None:
        """Make what was written visible together with the checkpoint, all of it or nothing."""
        with self._translated():
            if checkpoint is not None and self._checkpoints is not None:
                self._begin()
                self._checkpoints.add(checkpoint)
            if self._is_open:
                self._transactions.commit()
                self._is_open = False

    def close(self) -> None:
        """Drop what is open, and disconnect."""
        self._transactions.close()
        if self._checkpoints is not None:
            self._checkpoints.close()

    def _begin(self) -> None:
        if not self._is_open:
            self._transactions.begin()
            self._is_open = True

    def _produce(self, each: Outgoing) -> None:
        if each.partitions is None or None not in each.keys:
            timestamps = [each.timestamp_ms] * len(each.keys)
            self._transactions.produce(TopicRecords(each.topic, each.keys, each.values, timestamps, each.headers))
            return
        for row, (key, value) in enumerate(zip(each.keys, each.values, strict=True)):
            headers = None if each.headers is None else each.headers[row]
            partition = each.partitions[row] if key is None else None
            self._transactions.produce(
                one_record(each.topic, key, value, each.timestamp_ms, headers, partition=partition)
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (CycleAborted, OutcomeUnknown) as error:
            self._is_open = False
            raise WriteInterrupted(str(error)) from None
        except FencedError:
            self._is_open = False
            raise FencedError(self._fenced) from None
