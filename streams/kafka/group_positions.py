"""Polls what a group has committed and where its source ends. It never joins the group."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.batch.lanes import input_of, lane_of, partition_of_lane
from streams.errors import StreamsError
from streams.kafka import clients
from streams.kafka.admin import NOT_KNOWN, RECONNECT_MS_MAX, admin_client, described
from streams.kafka.group_refusal import refusal_of_group
from streams.kafka.positions import position_of
from streams.settings import Settings
from streams.sinks.base import Committed

_TIMEOUT_S: Final = 5.0
_NOT_THERE: Final = NOT_KNOWN | {KafkaError.UNKNOWN_TOPIC_OR_PART}


class GroupPositions:
    """One thread; connects at the first question, and again after one without an answer."""

    def __init__(self, settings: Settings, *, group: str, topics: Sequence[str]) -> None:
        """`topics`: what the group reads, its source first."""
        self._settings, self._topics = settings, tuple(topics)
        self._config: dict[str, Any] = {
            "client.id": "streams-growth",
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted",  # what is committed, also while a transaction is open
            "reconnect.backoff.max.ms": RECONNECT_MS_MAX,
        }
        self._consumer: Consumer | None = None
        self._admin: AdminClient | None = None

    def committed(self, partitions: Iterable[int]) -> dict[int, Committed]:
        """Committed offsets by partition of the source; partitions without one are left out.

        Raises:
            StreamsError: no answer.

        """
        if self._consumer is None:
            self._consumer = clients.consumer(self._settings, self._config)
        wanted = [TopicPartition(self._topics[0], partition) for partition in partitions]
        try:
            found = self._consumer.committed(wanted, _TIMEOUT_S)
        except KafkaException as error:
            why = refusal_of_group(self._consumer, self._config["group.id"]) or described(error)
            self.close()
            raise StreamsError(f"asking for the group's offsets of {self._topics[0]}: {why}") from None
        return {
            one.partition: position_of(one.offset, one.metadata)
            for one in found
            if one.error is None and one.offset >= 0
        }

    def ends(self, lanes: Iterable[int]) -> dict[int, int]:
        """By lane, the offset after its last record, open transactions included; lanes without an answer are left out.

        Some may not be there yet.

        Raises:
            StreamsError: no answer at all.

        """
        if self._admin is None:
            self._admin = admin_client(self._settings)
        latest = OffsetSpec.latest()
        asked = self._admin.list_offsets(
            {TopicPartition(self._topics[input_of(lane)], partition_of_lane(lane)): latest for lane in lanes},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=_TIMEOUT_S,
        )
        found: dict[int, int] = {}
        failure: BaseException | None = None
        is_outdated = False
        for one, future in asked.items():
            try:
                found[lane_of(self._topics.index(one.topic), one.partition)] = int(future.result(2 * _TIMEOUT_S).offset)
            except KafkaException as error:
                if error.args[0].code() in _NOT_THERE:
                    is_outdated = True
                else:
                    failure = error
            except TimeoutError as error:
                failure = error
        is_unanswered = failure is not None and not found
        if is_outdated or is_unanswered:  # the next question is asked by another one
            self._admin = None
        if is_unanswered:
            told = described(failure) if isinstance(failure, KafkaException) else "no answer"
            raise StreamsError(f"asking for the ends of {', '.join(self._topics)}: {told}")
        return found

    def close(self) -> None:
        """Close the connections."""
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = self._admin = None
