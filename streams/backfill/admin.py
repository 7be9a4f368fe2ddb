"""What `streams backfill` asks of a Kafka cluster, and what it changes there."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Final, Self, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from streams.batch.lanes import input_of, lane_of, partition_of_lane
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.flow.topics import Topic
from streams.kafka import clients
from streams.kafka.admin import (
    REQUEST_TIMEOUT_S,
    described,
    partition_counts_with_leaderless,
    settled,
    wait_for_broker,
)
from streams.kafka.group_positions import GroupPositions
from streams.kafka.positions import position_of
from streams.kafka.topics import apply_topics, create_topic
from streams.settings import Settings
from streams.sinks.base import Committed

T = TypeVar("T")

_TIMEOUT_S: Final = 10.0
_DELETED_S: Final = 30.0
_SETTLED_S: Final = 120.0


class BackfillAdmin:
    """Reads and changes what a cluster has of one version of a flow. For one thread; a context manager."""

    def __init__(self, settings: Settings, flow: Pipeline) -> None:
        """Wait for a broker.

        Raises:
            StreamsError: none answers.

        """
        self._settings, self._flow = settings, flow
        self._admin: AdminClient = wait_for_broker(settings)
        self._topics = tuple(one.topic for one in flow.inputs)
        self._config: dict[str, Any] = {
            "client.id": "streams-backfill",
            "group.id": flow.group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",  # an end is before the first record of an open transaction
        }
        self._consumer: Consumer = clients.consumer(settings, self._config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    # --- what there is ----------------------------------------------------------------------------------------------

    def partitions(self) -> Mapping[str, int]:
        """Number of partitions of every topic of the cluster; raises StreamsError without an answer, as all do."""
        return partition_counts_with_leaderless(self._admin)

    def lanes(self) -> list[int]:
        """Return the lanes of all partitions that the flow reads.

        Raises:
            StreamsError: a topic is missing; or no answer.

        """
        counts = self.partitions()
        missing = [topic for topic in self._topics if topic not in counts]
        if missing:
            raise StreamsError(f"topics are missing ({', '.join(missing)}): create them with `streams topics apply`")
        return [lane_of(number, one) for number, topic in enumerate(self._topics) for one in range(counts[topic])]

    def bounds(self, lanes: Iterable[int]) -> dict[int, tuple[int, int]]:
        """By lane: its first offset, and the offset after its last record that is committed."""
        what = "asking where a topic ends"
        asked = {lane: partial(self._consumer.get_watermark_offsets, self._place(lane), _TIMEOUT_S) for lane in lanes}
        return {lane: self._asked(what, ask) for lane, ask in asked.items()}

    def settled_bounds(self) -> dict[int, tuple[int, int]]:
        """As `bounds`, of all partitions of what the flow reads, once no transaction is open there.

        A commit returns before its markers are in every partition: what was written lies before the end until then.

        Raises:
            StreamsError: one stays open; or no answer.

        """
        lanes, deadline_s = self.lanes(), time.monotonic() + _SETTLED_S
        with closing(GroupPositions(self._settings, group=self._flow.group, topics=self._topics)) as positions:
            while True:
                found, written = self.bounds(lanes), positions.ends(lanes)
                is_open = next((lane for lane, (_, end) in found.items() if written.get(lane) != end), None)
                if is_open is None:
                    return found
                if time.monotonic() > deadline_s:
                    topic = self._topics[input_of(is_open)]
                    raise StreamsError(f"a transaction on {topic} stays open: run the same command again")
                time.sleep(0.2)

    def at_time(self, lanes: Sequence[int], time_ms: int) -> dict[int, int]:
        """By lane: offset of the first record with a timestamp of `time_ms` or later; -1: there is none."""
        asked = [self._place(lane, time_ms) for lane in lanes]
        found = self._asked("asking for offsets of a time", lambda: self._consumer.offsets_for_times(asked, _TIMEOUT_S))
        by_place = {(one.topic, one.partition): one.offset for one in found}
        return {lane: by_place[self._topics[input_of(lane)], partition_of_lane(lane)] for lane in lanes}

    def committed(self, lanes: Sequence[int]) -> dict[int, Committed]:
        """By lane what the flow's group has committed, without those of which nothing is."""
        asked = [self._place(lane) for lane in lanes]
        found = self._asked("asking for the group's offsets", lambda: self._consumer.committed(asked, _TIMEOUT_S))
        return {
            lane: position_of(one.offset, one.metadata)
            for lane, one in zip(lanes, found, strict=True)
            if one.offset >= 0
        }

    def members(self) -> list[str]:
        """Client ids of the members of the flow's group."""
        asked = self._admin.describe_consumer_groups([self._flow.group], request_timeout=REQUEST_TIMEOUT_S)
        told = settled(
            f"describing group {self._flow.group}", asked[self._flow.group], fine=(KafkaError.GROUP_ID_NOT_FOUND,)
        )
        return [] if told is None else sorted(member.client_id for member in told.members)

    # --- changes ----------------------------------------------------------------------------------------------------

    def create(self, topic: Topic, *, partitions: int) -> None:
        """Create one internal topic, unless it is there."""
        create_topic(self._admin, topic, partitions=partitions)

    def create_outputs(self, partitions: int) -> None:
        """Create the flow's topics that are missing, each with so many partitions."""
        apply_topics(self._admin, [self._flow], partitions=partitions)

    def commit(self, starts: Mapping[int, int]) -> None:
        """Have the group, which has no members, begin at these offsets, by lane."""
        offsets = [self._place(lane, offset) for lane, offset in starts.items()]
        if offsets:  # the client refuses none
            self._asked(
                "setting where the group begins", lambda: self._consumer.commit(offsets=offsets, asynchronous=False)
            )

    def delete(self, topics: Sequence[str]) -> None:
        """Delete these topics and the flow's group; what is not there is fine."""
        there = [name for name in topics if name in self.partitions()]
        asked = self._admin.delete_consumer_groups([self._flow.group], request_timeout=REQUEST_TIMEOUT_S)
        settled(f"deleting group {self._flow.group}", asked[self._flow.group], fine=(KafkaError.GROUP_ID_NOT_FOUND,))
        if not there:
            return
        for name, future in self._admin.delete_topics(there, request_timeout=REQUEST_TIMEOUT_S).items():
            settled(f"deleting topic {name}", future, fine=(KafkaError.UNKNOWN_TOPIC_OR_PART,))
        deadline_s = time.monotonic() + _DELETED_S
        while left := sorted(set(there) & self.partitions().keys()):
            if time.monotonic() > deadline_s:
                raise StreamsError(f"topics are not deleted yet ({', '.join(left)}): run the command again")
            time.sleep(0.2)

    def _place(self, lane: int, offset: int = -1001) -> TopicPartition:
        return TopicPartition(self._topics[input_of(lane)], partition_of_lane(lane), offset)

    def _asked(self, what: str, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except KafkaException as error:
            raise StreamsError(f"{what} ({self._flow.name}): {described(error)}") from None
