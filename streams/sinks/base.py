"""What a writer needs from an output: transactions, and the source's position committed with them.

`Transactions` is what the engine's commit cycle works with, step by step. `Sink` is the plain form for everything else
that moves records: open, write, commit, close. Each has a twin in memory (`streams.sinks.memory`), and
`tests/contract` holds both to one contract.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from streams.batch.columns import Headers, Int64
from streams.batch.refs import ByteRefs


class CycleAborted(Exception):
    """The transaction did not happen; nothing of it is visible. State must be reloaded, the records run again."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """Short name for the metric."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that an output topic never takes: too large, a timestamp out of bounds, against a policy."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None
    """Partition of the source that the record came from; None when the failed call did not say."""
    why: str
    """The broker's words."""


class OutputRefused(CycleAborted):
    """The transaction did not happen because an output refuses records of it.

    `refused` names those that were found. It is empty during the search for them: the cycle must run again, and is
    produced in ever smaller pieces until a refused record is alone.
    """

    def __init__(self, message: str, refused: "Sequence[Refused]" = ()) -> None:
        super().__init__("refused_by_output", message)
        self.refused = tuple(refused)


class OutcomeUnknown(Exception):
    """The outcome of the transaction is not known: re-create the producer and read the group's offsets to find out."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A group's committed position in a partition of the source."""

    offset_next: int
    cycle: int | None
    """Commit cycle that wrote it; None when something else did."""
    author: str | None = None
    """Worker that wrote it (its transactional id); None when an earlier version, or something else, did."""
    session: str | None = None
    """Process of that worker: a random name, new with each start."""
    topic_id: str | None = None
    """Id of the source topic that it is an offset in; None: not known."""
    epoch: int | None = None
    """Of the layout that the partition's state is in (docs/adr/0070); 0: it has not taken all of it over yet; None: the
    first one."""
    ready: int | None = None
    """Epoch of the growth that the partition's task is ready for; None: it has said so of none."""
    cleared: int | None = None
    """Epoch of the growth after which its parent's tables have no rows of its keys any more; None: of none."""
    settled: int | None = None
    """Epoch of the growth of which it has told its children that they go by their own time again; None: of none."""
    address: str | None = None
    """Where the web server of that process answers, as other workers reach it; None: nowhere, or not known."""
    code: str | None = None
    """Digest of the app that has processed the records before it (`streams.flow.code`); None: not known."""


class WriteInterrupted(Exception):
    """The transaction did not happen, or its outcome is not known: call `Sink.open` again, which finds out."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A writer's position: a count and a text of its own (at most 4096 bytes)."""

    position: int
    metadata: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Records for one topic: columns of equal length."""

    topic: str
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    timestamp_ms: int
    """Of each of them, since 1970."""
    headers: Sequence[Headers | None] | None = None
    partitions: Sequence[int | None] | None = None
    """Where records without a key go; None: anywhere. A record with a key goes where murmur2 of the key says."""


class Sink(Protocol):
    """Records, and how far their source was read, written together or not at all. One thread.

    `open`, then any number of `write`s and `commit`s, then `close`. After WriteInterrupted `open` again.
    """

    def open(self) -> Checkpoint | None:
        """Take over from any other writer of the same name, and return the last checkpoint (None: there is none).

        What an earlier writer left open is settled, and a running one can write no more: the answer is final.

        Raises:
            WriteInterrupted: the target cannot be had now.
            FencedError: another writer of the same name has opened meanwhile.

        """

    def write(self, outgoing: Sequence[Outgoing]) -> None:
        """Add records to the open transaction, each topic's in this order; nothing of it is visible yet.

        Raises:
            WriteInterrupted: the transaction is void.
            FencedError: another writer of the same name has opened; the transaction is void.

        """

    def commit(self, checkpoint: Checkpoint | None = None) -> None:
        """Make what was written since the last commit visible, together with the checkpoint; returns when it is.

        Raises:
            WriteInterrupted: nothing of it is visible, or it is not known.
            FencedError: another writer of the same name has opened; nothing of it is visible.

        """

    def close(self) -> None:
        """Drop the open transaction, if any, and disconnect, within some seconds; never raises."""


class Checkpoints(Protocol):
    """Where a writer's checkpoint is kept, in the transaction of the records that it covers."""

    def last(self) -> Checkpoint | None:
        """The last one, final once the writer has taken over its name; None when there is none.

        Raises:
            CycleAborted: it cannot be read now.

        """

    def add(self, checkpoint: Checkpoint) -> None:
        """Add it to the open transaction.

        Raises:
            CycleAborted: the transaction is void.

        """

    def close(self) -> None:
        """Disconnect; never raises."""


@dataclass(frozen=True, slots=True)
class TopicRecords:
    """Records for one topic as a transaction takes them: columns of equal length."""

    topic: str
    keys: Sequence[bytes | None] | ByteRefs
    values: Sequence[bytes | None] | ByteRefs
    timestamps_ms: Sequence[int] | Int64
    headers: Sequence[Headers | None] | None = None
    partition: int | None = None
    """Where they go; None: by murmur2 of the key."""
    origin: int | None = None
    """The partition of the source that they come from: what `Refused` names."""
    on_last_delivered: Callable[[int], None] | None = None
    """Gets the offset of the last one; of none it is not called."""

    def __len__(self) -> int:
        return len(self.keys)

    def times(self) -> Sequence[int]:
        """The timestamps as plain numbers."""
        times = self.timestamps_ms
        return times.tolist() if isinstance(times, np.ndarray) else times

    def rows(self, start: int, end: int) -> "TopicRecords":
        """Those from `start` to before `end`, whose delivery nobody waits for."""
        return replace(
            self,
            keys=self.keys[start:end],
            values=self.values[start:end],
            timestamps_ms=self.timestamps_ms[start:end],
            headers=None if self.headers is None else self.headers[start:end],
            on_last_delivered=None,
        )


def one_record(
    topic: str,
    key: bytes | None,
    value: bytes | None,
    timestamp_ms: int,
    headers: Headers | None = None,
    *,
    partition: int | None = None,
    origin: int | None = None,
    on_delivered: Callable[[int], None] | None = None,
) -> TopicRecords:
    """A single record, as `TopicRecords` says."""
    headers_each = None if headers is None else [headers]
    return TopicRecords(topic, [key], [value], [timestamp_ms], headers_each, partition, origin, on_delivered)


class Transactions(Protocol):
    """A transactional producer. One thread at a time.

    Each step may raise CycleAborted as `commit` does, and FencedError when another producer of the same name was
    opened: then nothing of the transaction is visible.
    """

    def begin(self) -> None:
        """Open a transaction."""

    def produce(self, records: TopicRecords) -> None:
        """Produce records, in this order.

        Raises:
            OutputRefused: the output does not take one of them (`commit` and the other steps may say so as well).

        """

    def send_offsets(self, positions: dict[int, Committed], membership: object) -> None:
        """Add the group's positions by lane to the transaction (step 3), in the name of a group membership.

        Raises:
            CycleAborted: among others when the group has gone on since: the broker refuses a former membership.

        """

    def commit(self) -> None:
        """Commit (step 4); on return everything is visible and every `on_last_delivered` was called.

        Raises:
            CycleAborted: the transaction was aborted, nothing of it is visible.
            OutcomeUnknown: it may or may not have happened.

        """

    def abort(self) -> None:
        """Abort the open transaction, if any."""

    def reopen(self) -> None:
        """Close the producer and create a new one: the broker settles what the old one left open."""

    def close(self) -> None:
        """Drop the producer; what is open is aborted. Never raises."""
