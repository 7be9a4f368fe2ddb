"""What the worker needs from a source: micro-batches of records, and the ownership of partitions.

Twins: `streams.sources.kafka.intake` over librdkafka, and `streams.sources.memory`; `tests/contract/test_source.py`
holds both to one contract. A new source that can be split into partitions with offsets is a class of this shape.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from streams.batch.records import Records


@dataclass(frozen=True, slots=True)
class Idle:
    """Time for which a partition is known to have had no record to read: monotonic milliseconds, no time of day.

    `since_ms` tells one idle time from the next; `until_ms` grows while the partition stays idle.
    """

    since_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Records of a partition that lie after an open transaction, and since when it has been seen there."""

    records: int
    offset: int
    """Where the transaction begins: the last stable offset."""
    since_ms: int


class Polled(NamedTuple):
    """The result of one `poll`."""

    records: Records | None
    """Records that were read; None: there were none."""
    idle: dict[int, Idle]
    """Partitions that are known to be at the true end of their logs."""
    generation: int
    """Generation of the last `stop`; records polled under an earlier one are ignored."""


class RebalanceListener(Protocol):
    """Called on rebalances, in the thread that calls `poll`, from within `poll` or `close`."""

    def assigned(self, partitions: list[int]) -> None:
        """These partitions are assigned to us; restore them, then call `start`."""

    def revoked(self, partitions: list[int]) -> None:
        """Finish or abort, and release these partitions before returning, within a bounded time."""

    def lost(self, partitions: list[int]) -> None:
        """These partitions belong to others already; nothing can be committed."""

    def noted(self, membership: object | None) -> None:
        """Our group membership as of now, None without one: a commit has to present it.

        It comes from the polling thread only: the client makes other threads wait while a rebalance is served, which
        waits for their commit.
        """


class Source(Protocol):
    """One topic, or several that are partitioned alike, read by one member of a group.

    The group divides the partitions of the first topic; those of the same numbers of the others go with them.
    Rebalances and `stop` speak of these partitions; everything else goes by lanes (`streams.batch.lanes`), which for
    one topic are its partitions. `subscribe`, `poll` and `close` from one thread; the rest from any.

    An assigned partition is read only after `start`, from the offset that its state was restored at. Records come in
    log order by partition, committed ones only, and each offset once until the partition is started again.
    """

    @property
    def unreadable(self) -> Mapping[int, Unreadable]:
        """Partitions that have stood before an open transaction for long. Replaced as a whole with each poll."""

    def subscribe(self) -> None:
        """Join the group."""

    def poll(self) -> Polled:
        """Next records; serves rebalances. Returns within about `BATCH_WAIT_MS` when nothing comes.

        Raises:
            FencedError: another member has our place in the group.
            StreamsError: the source is of no more use.

        """

    def close(self) -> None:
        """Leave the group; calls `revoked`."""

    def start(self, partition: int, offset_next: int, bounds: tuple[int, int]) -> None:
        """Read `partition` from `offset_next` on (-1: from its beginning).

        `bounds`: its first offset, and the offset after its last record. Void once the partition is stopped, started
        otherwise, or revoked.
        """

    def start_again(self, partition: int, offset_next: int, generation: int) -> None:
        """Read `partition`, which is read, from another offset; void once `stop` began another generation."""

    def stop(self, partitions: Iterable[int], generation: int) -> None:
        """Stop reading `partitions`, which remain assigned, and begin another generation of records."""

    def pause_only(self, partitions: frozenset[int]) -> None:
        """Pause exactly these of the started partitions."""

    def positions(self) -> dict[int, int]:
        """By partition that is read: the offset up to which nothing is left to read, as far as is known."""

    def taken(self) -> dict[int, int]:
        """By partition that is read: the offset after the last record that was handed over."""

    def is_spare(self, now_ms: int) -> bool:
        """Whether no partition was left for this member for longer than a rebalance takes; `now_ms` is monotonic."""

    def take_suspicion(self) -> bool:
        """Whether there was a sign since the last call that the source was truncated or recreated."""

    def take_beyond_end(self) -> frozenset[int]:
        """Partitions that were found, since the last call, to end before the offset that is next."""
