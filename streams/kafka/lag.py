"""Asks the broker for a group's lag with a client of its own, so that other calls do not delay the answer."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from streams.batch.lanes import input_of, lane_of, partition_of_lane
from streams.errors import StreamsError
from streams.kafka import clients
from streams.kafka.admin import described
from streams.settings import Settings

_TIMEOUT_S: Final = 10.0


class LagProbe:
    """Committed positions of a group against the ends of its source. It never joins the group. One thread."""

    def __init__(self, settings: Settings, *, group: str, source: str, further: Sequence[str] = ()) -> None:
        """`further` are topics that the group reads beside the source; partitions of all are called by their lanes."""
        self._settings, self._source = settings, source
        self._topics = (source, *further)
        self._config: dict[str, Any] = {
            "client.id": "streams-watchdog",
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }

    def lags(self, known: Mapping[int, tuple[int, int]]) -> dict[int, int]:
        """Records that are in the log and not committed, by partition; partitions without any are left out.

        `known`: by partition, the offset up to which its consumer has nothing left to take (after the last record
        there may be transaction markers, which nobody ever commits) and the offset after the last record it took.

        Raises:
            StreamsError: the broker does not answer.

        """
        consumer = clients.consumer(self._settings, self._config)
        try:
            wanted = [TopicPartition(self._topics[input_of(lane)], partition_of_lane(lane)) for lane in known]
            found = consumer.committed(wanted, _TIMEOUT_S)
            lanes = [lane_of(self._topics.index(one.topic), one.partition) for one in found]
            lags = {lane: self._lag(consumer, one, *known[lane]) for lane, one in zip(lanes, found, strict=True)}
        except KafkaException as error:
            raise StreamsError(f"asking for the lag of {self._source}: {described(error)}") from None
        finally:
            consumer.close()
        return {partition: lag for partition, lag in lags.items() if lag > 0}

    def _lag(self, consumer: Consumer, committed: TopicPartition, up_to: int, taken: int) -> int:
        if committed.error is not None:
            raise KafkaException(committed.error)
        low, end = consumer.get_watermark_offsets(TopicPartition(committed.topic, committed.partition), _TIMEOUT_S)
        position = max(committed.offset, low)
        return lag_of(position, end=end, up_to=up_to, taken=taken)


def lag_of(position: int, *, end: int, up_to: int, taken: int) -> int:
    """Records between a committed position and the end of the log, apart from known transaction markers."""
    if position < taken:
        return end - position  # taken and not committed: the worker is processing it
    return 0 if up_to >= end else end - position
