"""Reads rounds of offsets with the admin client. Only for a process of its own: `streams.kafka.offsets_process`.

The client aborts its whole process when a request to a group's coordinator is cut off or times out (librdkafka#4605, a
use after free). A restart of a broker does that while the offsets of 50 groups are being read.
"""

import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import astuple
from typing import Any, Final

import numpy as np
from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    OffsetSpec,
)

from streams.batch.columns import Int64
from streams.errors import StreamsError
from streams.growth.committed import standing_of
from streams.kafka.admin import described, settled
from streams.kafka.positions import position_of
from streams.kafka.round import FOREIGN, Group, Member, Round
from streams.names import INGEST_PREFIX

ROUND_TIMEOUT_S: Final = 10.0
"""Time limit of all requests of a round; longer than a merely busy broker needs."""
LIST_TIMEOUT_S: Final = 5.0
"""Time limit of the first request of a round: a broker that takes longer is considered away."""
_UNKNOWN: Final = -1
_LATEST: Final = OffsetSpec.latest()
_EARLIEST: Final = OffsetSpec.earliest()
_NEWEST: Final = OffsetSpec.max_timestamp()


class OffsetRounds:
    """Rounds of offsets of one cluster. One thread."""

    def __init__(self, client: AdminClient) -> None:
        self._client = client
        self._ends_s = 0.0
        self._topics: tuple[tuple[str, int], ...] = ()

    def take(self, only: Iterable[str] | None = None, *, newest: bool = False) -> Round:
        """Offsets of all partitions and of all groups (or of `only` these), in one round of requests.

        `newest`: with the newest record's timestamp of each partition, which the broker has to search for in the log.

        Positions are asked for before the ends of the logs, so that no position is ahead of its end merely because it
        was read later.

        Raises:
            StreamsError: no answer to what concerns the whole cluster.

        """
        self._ends_s = time.monotonic() + ROUND_TIMEOUT_S
        try:
            listed = self._client.list_topics(timeout=LIST_TIMEOUT_S)
        except KafkaException as error:
            raise StreamsError(f"listing topics: {described(error)}") from None
        topics = tuple(
            sorted(
                (name, len(topic.partitions))
                for name, topic in listed.topics.items()
                if topic.error is None and not name.startswith("__")
            )
        )
        self._topics = topics
        base, count = {}, 0
        for name, partitions in topics:
            base[name] = (count, partitions)
            count += partitions
        names = sorted(self._group_names() if only is None else set(only))
        members = self._described(names, base)
        commits, failed = self._commits(names, base)
        now_ms = time.time_ns() // 1_000_000
        end = self._ends(_LATEST, base, count, IsolationLevel.READ_COMMITTED)
        low = self._ends(_EARLIEST, base, count, IsolationLevel.READ_UNCOMMITTED)
        high = end.copy()
        committed = np.unique(commits[1])
        # After `end`, so that it is never the smaller one. Where it stays larger, a transaction is open.
        for number, told in self._asked(_LATEST, base, IsolationLevel.READ_UNCOMMITTED, only=set(committed.tolist())):
            high[number] = told.offset
        no_stamps = np.empty(0, dtype=np.int64)
        newest_at = self._stamps(base, count) if newest else (no_stamps, no_stamps)
        groups = tuple(Group(name, *members.get(name, ("UNKNOWN", None))) for name in names)
        return Round(str(listed.cluster_id), now_ms, topics, groups, failed, end, low, high, *newest_at, *commits)

    @property
    def _left_s(self) -> float:
        """Time left in this round."""
        return max(0.0, self._ends_s - time.monotonic())

    def _group_names(self) -> set[str]:
        found: Any = settled(
            "listing groups", self._client.list_consumer_groups(request_timeout=ROUND_TIMEOUT_S), timeout_s=self._left_s
        )
        return {one.group_id for one in found.valid if not one.group_id.startswith(INGEST_PREFIX)}

    def _described(
        self, names: list[str], base: Mapping[str, tuple[int, int]]
    ) -> dict[str, tuple[str, tuple[Member, ...] | None]]:
        if not names:
            return {}
        asked = self._client.describe_consumer_groups(names, request_timeout=ROUND_TIMEOUT_S)
        found: dict[str, tuple[str, tuple[Member, ...] | None]] = {}
        for name, future in asked.items():
            try:
                told: Any = future.result(self._left_s)
            except (KafkaException, TimeoutError):
                continue  # its members are not known in this round; its positions are read all the same
            members = tuple(
                Member(
                    one.member_id,
                    one.client_id or "",
                    one.host or "",
                    tuple(
                        base[at.topic][0] + at.partition
                        for at in (one.assignment.topic_partitions if one.assignment else ())
                        if at.topic in base and at.partition < base[at.topic][1]
                    ),
                )
                for one in told.members
            )
            found[name] = (told.state.name, members)
        return found

    def _commits(
        self, names: list[str], base: Mapping[str, tuple[int, int]]
    ) -> tuple[tuple[Int64, Int64, Int64, Int64, Int64, Int64], tuple[str, ...]]:
        asked: list[tuple[int, Future[Any]]] = [
            (number, self._client.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(name)], request_timeout=ROUND_TIMEOUT_S
            )[name])
            for number, name in enumerate(names)
        ]  # fmt: skip
        group: list[int] = []
        partition: list[int] = []
        offset: list[int] = []
        mark: list[int] = []
        cycle: list[int] = []
        growth: list[int] = []
        failed: dict[str, StreamsError] = {}
        for number, future in asked:
            try:
                what = f"offsets of group {names[number]}"
                rows = settled(what, future, timeout_s=self._left_s).topic_partitions
            except StreamsError as error:
                failed[names[number]] = error
                continue
            for row in rows:
                first, partitions = base.get(row.topic, (0, 0))
                if row.partition < partitions and row.offset >= 0:  # else: of a topic that is gone
                    group.append(number)
                    partition.append(first + row.partition)
                    offset.append(row.offset)
                    mark.append(zlib.crc32((row.metadata or "").encode()))
                    position = position_of(row.offset, row.metadata)
                    cycle.append(FOREIGN if position.cycle is None else position.cycle)
                    growth += astuple(standing_of(position))
        if failed and len(failed) == len(names):
            raise next(iter(failed.values()))
        columns = [np.array(column, dtype=np.int64) for column in (group, partition, offset, mark, cycle, growth)]
        return (columns[0], columns[1], columns[2], columns[3], columns[4], columns[5]), tuple(failed)

    def _stamps(self, base: Mapping[str, tuple[int, int]], count: int) -> tuple[Int64, Int64]:
        offset, time_ms = np.full(count, _UNKNOWN, dtype=np.int64), np.full(count, _UNKNOWN, dtype=np.int64)
        for number, told in self._asked(_NEWEST, base, IsolationLevel.READ_COMMITTED):
            offset[number], time_ms[number] = told.offset, told.timestamp
        return offset, time_ms

    def _ends(self, spec: Any, base: Mapping[str, tuple[int, int]], count: int, isolation: Any) -> Int64:
        found = np.full(count, _UNKNOWN, dtype=np.int64)
        for number, told in self._asked(spec, base, isolation):
            found[number] = told.offset
        return found

    def _asked(
        self, spec: Any, base: Mapping[str, tuple[int, int]], isolation: Any, *, only: Collection[int] | None = None
    ) -> Iterator[tuple[int, Any]]:
        """The answers by partition number, of all partitions (or of `only` these) that have a leader now."""
        wanted = {
            TopicPartition(name, partition): spec
            for name, size in self._topics
            for partition in range(size)
            if only is None or base[name][0] + partition in only
        }
        if not wanted:
            return
        asked = self._client.list_offsets(wanted, isolation_level=isolation, request_timeout=ROUND_TIMEOUT_S)
        for at, future in asked.items():
            try:
                yield base[at.topic][0] + at.partition, future.result(self._left_s)
            except KafkaException:
                continue  # it has no leader now
            except TimeoutError:
                raise StreamsError(f"no answer within {ROUND_TIMEOUT_S:g} s") from None
