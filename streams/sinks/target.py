"""What a sink asks of its target: rows and the offsets after them, written together or not at all.

A target keeps, for each partition of the topic, the offset that is next and who may write: `open` takes a partition
over, and from then on the process that had it before can write nothing more of it, even if it wakes up late. Twin:
`streams.sinks.memory_target`; `tests/contract/test_target.py` holds all targets to one contract.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from streams.batch.columns import Int64
from streams.errors import StreamsError


class TargetUnavailable(Exception):
    """The target cannot be written now.

    Nothing was written, or the outcome is unknown: call `positions` before going on.
    """

    retry_in_s: float | None = None
    """When to try again, if the target says so."""

    def __init__(self, message: str, *, retry_in_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_in_s = retry_in_s


class TargetMismatch(StreamsError):
    """The target is not as declared, such as a column of another type: somebody must act."""


class TakenOver(Exception):
    """Another process has taken partitions over; nothing of the batch was written."""

    def __init__(self, partitions: Collection[int]) -> None:
        super().__init__(f"another process has taken over partitions {sorted(partitions)}")
        self.partitions = frozenset(partitions)


class RowsRefused(Exception):
    """The target refuses rows for what is in them; nothing of the batch was written. By place: why."""

    def __init__(self, rows: Mapping[tuple[int, int], str]) -> None:
        super().__init__(f"{len(rows)} rows are refused")
        self.rows = dict(rows)
        """By partition and offset."""


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """A column of the target: a field of the topic's schema."""

    name: str
    kind: str
    """`boolean`, `int`, `long`, `float`, `double`, `string`, `bytes`, `timestamp`, `local_timestamp`, `date`, `time`,
    `decimal` or `json` (everything that is not one of these)."""
    arrow: Any
    """Type of its values in a batch; of `json` text."""
    is_nullable: bool = True
    precision: int = 0
    scale: int = 0
    """Of a decimal; of a `string` with digits of one that has too many for `decimal`."""


@dataclass(frozen=True, slots=True)
class TargetBatch:
    """Rows of a topic, and how far they cover it. With a key, each key is there once, as a row or a deletion."""

    rows: pa.RecordBatch
    """Columns as declared (`TargetColumn`)."""
    partition: Int64
    offset: Int64
    """Of each row: where it was read."""
    offsets: Mapping[int, int]
    """By partition, the offset that is next."""
    deleted: Sequence[str] = ()
    """Keys whose rows are deleted."""
    deleted_partition: Int64 | None = None
    deleted_offset: Int64 | None = None
    """Of each deletion: where it was read."""


class Target(Protocol):
    """Where a sink writes. One thread at a time."""

    def prepare(self) -> None:
        """Create what is missing, and compare what is there with what is declared.

        Raises:
            TargetUnavailable: it cannot be had now.
            TargetMismatch: it is not as declared; the message says what, and what to do.

        """

    def open(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Take partitions over, and return the offset that is next in each; -1: nothing was written of it.

        Raises:
            TargetUnavailable: it cannot be had now.

        """

    def positions(self, partitions: Collection[int]) -> Mapping[int, int]:
        """The offset that is next in each of these, which were opened; -1: nothing was written of it.

        Raises:
            TakenOver: some are another's now.
            TargetUnavailable: it cannot be had now.

        """

    def write(self, batch: TargetBatch) -> None:
        """Write all rows, deletions and offsets of the batch, or nothing.

        Raises:
            TakenOver, RowsRefused: nothing was written.
            TargetUnavailable: nothing was written, or it is not known.
            TargetMismatch: the target is not as declared any more.

        """

    def release(self, partitions: Collection[int]) -> None:
        """Forget partitions; nothing is written for it."""

    def close(self) -> None:
        """Disconnect; never raises. May be called while another thread waits in a call, which then ends."""
