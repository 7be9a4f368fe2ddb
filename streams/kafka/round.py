"""One round of a cluster's offsets: the end of every log and the commits of every group, at one moment.

Columns, so that 1,000 partitions and 50 groups are a few arrays; and bytes, so that it can come from another process.
"""

import json
import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Self

import numpy as np

from streams.batch.columns import Int64
from streams.growth.stages import Standing

_HEADER: Final = struct.Struct(">I")
_ARRAYS: Final = (
    "end", "low", "high", "newest_offset", "newest_ms", "commit_group", "commit_partition", "commit_offset",
    "commit_mark", "commit_cycle", "commit_growth",
)  # fmt: skip
ROUND_BYTES_MAX: Final = 1 << 30
FOREIGN: Final = -1
"""Cycle of an offset that was committed by something else than a flow's commit cycle."""
GROWTH_FIELDS: Final = 4
"""Numbers of a position that say where its partition is in a growth: those of `Standing`, in their order."""


def _none() -> Int64:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a consumer group and the partitions it has (as numbers in the round)."""

    member_id: str
    client_id: str
    host: str
    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group. `members` None: the coordinator did not answer, so owners are not known."""

    name: str
    state: str
    members: tuple[Member, ...] | None


@dataclass(frozen=True)
class Round:
    """Partitions are numbered through all `topics` (name, count), in their order.

    `end`: last stable offset. `low`: first offset still there. `high`: end of the log, open transactions included;
    asked only where a group has a position, else equal to `end`. `newest_offset`, `newest_ms`: the record with the
    newest timestamp; empty unless asked for. -1: the broker did not tell. The commit columns have a
    row for each position: number of the group, of the partition, the offset, a mark that differs (from that of the
    round before) if a commit came in between that carried other metadata, and the cycle that the metadata name;
    `commit_growth` has `GROWTH_FIELDS` numbers for each position, or none at all.
    `failed`: groups whose positions could not be read in this round; they have no rows.
    """

    cluster: str
    time_ms: int
    topics: tuple[tuple[str, int], ...]
    groups: tuple[Group, ...]
    failed: tuple[str, ...]
    end: Int64
    low: Int64
    high: Int64
    newest_offset: Int64
    newest_ms: Int64
    commit_group: Int64
    commit_partition: Int64
    commit_offset: Int64
    commit_mark: Int64
    commit_cycle: Int64
    commit_growth: Int64 = field(default_factory=_none)

    @cached_property
    def base(self) -> dict[str, int]:
        """Number of the first partition of each topic."""
        first, found = 0, {}
        for name, count in self.topics:
            found[name] = first
            first += count
        return found

    @cached_property
    def partitions(self) -> list[tuple[str, int]]:
        """Topic and partition by number."""
        return [(name, partition) for name, count in self.topics for partition in range(count)]

    def standings(self, group: str, topic: str) -> dict[int, Standing]:
        """State of a topic's partitions in growths, according to a group's committed metadata."""
        number = next((place for place, one in enumerate(self.groups) if one.name == group), -1)
        first, count = self.base.get(topic, 0), dict(self.topics).get(topic, 0)
        if len(self.commit_growth) != GROWTH_FIELDS * len(self.commit_group):
            return {}
        mine = np.flatnonzero(
            (self.commit_group == number) & (self.commit_partition >= first) & (self.commit_partition < first + count)
        )
        told = self.commit_growth.reshape(-1, GROWTH_FIELDS)[mine].tolist()
        places = (self.commit_partition[mine] - first).tolist()
        return {partition: Standing(*numbers) for partition, numbers in zip(places, told, strict=True)}

    def to_bytes(self) -> bytes:
        """Serialize the round, to send it to another process."""
        head = {
            "cluster": self.cluster,
            "time_ms": self.time_ms,
            "topics": self.topics,
            "groups": [
                [
                    group.name,
                    group.state,
                    None
                    if group.members is None
                    else [[one.member_id, one.client_id, one.host, one.partitions] for one in group.members],
                ]
                for group in self.groups
            ],
            "failed": self.failed,
            "lengths": [len(getattr(self, name)) for name in _ARRAYS],
        }
        text = json.dumps(head).encode()
        columns = [np.ascontiguousarray(getattr(self, name), dtype="<i8").tobytes() for name in _ARRAYS]
        return b"".join([_HEADER.pack(len(text)), text, *columns])

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Make a round of bytes; the inverse of `to_bytes`."""
        (length,) = _HEADER.unpack_from(raw)
        place = _HEADER.size + length
        head: dict[str, Any] = json.loads(raw[_HEADER.size : place])
        columns: dict[str, Int64] = {}
        for name, count in zip(_ARRAYS, head["lengths"], strict=True):
            columns[name] = np.frombuffer(raw, dtype="<i8", count=count, offset=place).astype(np.int64)
            place += 8 * count
        groups = tuple(
            Group(
                name,
                state,
                None if members is None else tuple(Member(i, c, h, tuple(parts)) for i, c, h, parts in members),
            )
            for name, state, members in head["groups"]
        )
        topics = tuple((name, count) for name, count in head["topics"])
        return cls(head["cluster"], head["time_ms"], topics, groups, tuple(head["failed"]), **columns)
