"""How far a group has come in a topic that gets partitions meanwhile."""

import time
from typing import Final

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from loadtest.progress import GroupProgress
from streams.errors import StreamsError
from streams.kafka.admin import partition_counts
from streams.settings import Settings

_TIMEOUT_S: Final = 10.0
_LOOK_S: Final = 0.5


class GrowingProgress(GroupProgress):
    """As `GroupProgress`, of as many partitions as there will be: those that are not there yet are empty."""

    def __init__(self, settings: Settings, *, group: str, topic: str, partitions: int) -> None:
        super().__init__(settings, group=group, topic=topic, partitions=partitions)
        self._there = 0
        self._looked_s = 0.0

    def ends(self) -> list[int]:
        """The offset after the last record of each partition.

        Raises:
            StreamsError: the broker does not answer.

        """
        if self._there < len(self._where) and time.monotonic() - self._looked_s > _LOOK_S:
            self._there, self._looked_s = partition_counts(self._admin).get(self._topic, 0), time.monotonic()
        asked = {where: OffsetSpec.latest() for where in self._where[: self._there]}
        try:
            found = self._admin.list_offsets(
                asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_TIMEOUT_S
            )
            ends = {where.partition: int(future.result(_TIMEOUT_S).offset) for where, future in found.items()}
        except KafkaException as error:
            raise StreamsError(f"reading the ends of {self._topic}: {error}") from None
        return [ends.get(where.partition, 0) for where in self._where]

    def committed(self) -> list[int]:
        """The group's position in each partition; where the broker does not answer, the one known before."""
        there: list[TopicPartition] = self._where[: max(1, self._there)]
        try:
            found = self._consumer.committed(there, timeout=_TIMEOUT_S)
        except KafkaException:
            return self._committed
        for each in found:
            if each.error is None:
                self._committed[each.partition] = max(self._committed[each.partition], each.offset)
        return list(self._committed)
