"""Kafka as the engine reads it: committed positions and changelogs. Writing is in `streams.sinks.base`.

Twins: `streams.kafka.changelog` over librdkafka, and `streams.kafka.memory`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from streams.batch.columns import Headers
from streams.sinks.base import Committed


@dataclass(frozen=True, slots=True)
class LogRow:
    """A record of a changelog."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers | None


class Changelog(Protocol):
    """Reader of committed positions and changelogs; read_committed throughout."""

    def committed(self, partitions: Sequence[int]) -> dict[int, Committed | None]:
        """The group's committed positions, by lane (`streams.batch.lanes`), once no transaction is pending on them."""

    def bounds(self, topic: str, partition: int, *, stable: bool = False) -> tuple[int, int]:
        """First offset, and the offset after the last record, open transactions included.

        `stable`: the last stable offset in place of the latter; `read` gets there without waiting for anybody.
        """

    def has_diverged(self, topic: str, partition: int, offset: int, leader_epoch: int) -> bool:
        """Whether records before `offset`, the newest of them in `leader_epoch`, were truncated or replaced.

        Kafka's check of KIP-320: the log of that epoch must reach up to `offset`.
        """

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[list[LogRow]]:
        """Committed records before `end`, from `start` on, waiting for open transactions among them."""
