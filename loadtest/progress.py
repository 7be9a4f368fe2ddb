"""How far a consumer group has come in a topic, partition by partition."""

from typing import Final

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from loadtest import clients
from streams.errors import StreamsError
from streams.kafka.admin import admin_client
from streams.settings import Settings

_TIMEOUT_S: Final = 10.0


class GroupProgress:
    """Ends of a topic's partitions and a group's positions in them. One thread at a time; close it when done."""

    def __init__(self, settings: Settings, *, group: str, topic: str, partitions: int) -> None:
        self._topic = topic
        self._where = [TopicPartition(topic, partition) for partition in range(partitions)]
        self._admin: AdminClient = admin_client(settings)
        # Not by the administrative request for the same, during which librdkafka 2.16 once crashed.
        self._consumer = clients.consumer(settings, {"group.id": group})
        self._committed = [0] * partitions

    def ends(self) -> list[int]:
        """The offset after the last record of each partition.

        Raises:
            StreamsError: the broker does not answer.

        """
        asked = {where: OffsetSpec.latest() for where in self._where}
        try:
            found = self._admin.list_offsets(
                asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_TIMEOUT_S
            )
            return [int(found[where].result(_TIMEOUT_S).offset) for where in self._where]
        except KafkaException as error:
            raise StreamsError(f"reading the ends of {self._topic}: {error}") from None

    def committed(self) -> list[int]:
        """The group's position in each partition; where the broker does not answer, the one known before."""
        try:
            found = self._consumer.committed(self._where, timeout=_TIMEOUT_S)
        except KafkaException:
            return self._committed
        self._committed = [
            max(before, each.offset) if each.error is None else before
            for before, each in zip(self._committed, found, strict=True)
        ]
        return self._committed

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()
