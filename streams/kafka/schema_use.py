"""Whether records carry a schema id: reads the newest ones of each partition. Never joins a group."""

import time
from collections.abc import Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streams.avro.framing import key_in_headers, schema_id_of
from streams.errors import StreamsError
from streams.kafka import clients
from streams.kafka.admin import described
from streams.kafka.headers import headers_of
from streams.names import SCHEMAS_GROUP
from streams.schemas.unregistration import Use
from streams.settings import Settings

RECORDS_MAX: Final = 200_000
"""Records that are read per topic, the newest ones of each of its partitions."""
TIMEOUT_S: Final = 60.0
_ANSWER_TIMEOUT_S: Final = 10.0
_CONSUME: Final = 2_000
_WAIT_S: Final = 0.2
_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of librdkafka


def schema_use(
    settings: Settings,
    topics: Mapping[str, int],
    schema_id: int,
    *,
    records_max: int = RECORDS_MAX,
    timeout_s: float = TIMEOUT_S,
) -> Use:
    """Counts records with a schema id among the newest `records_max` of each topic; `topics`: partitions by name.

    Records of open transactions count too. The result's `gaps` say what was not read.

    Raises:
        StreamsError: the broker does not answer, or refuses.

    """
    config = {
        "client.id": "streams-schemas",
        "group.id": SCHEMAS_GROUP,
        "enable.auto.commit": False,
        "isolation.level": "read_uncommitted",
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "queued.max.messages.kbytes": 32_768,
        "fetch.wait.max.ms": 50,
    }
    consumer = clients.consumer(settings, config)
    look = _Look(consumer, schema_id, deadline_s=time.monotonic() + timeout_s)
    try:
        for topic, partitions in sorted(topics.items()):
            look.at(topic, partitions, records_max)
    except KafkaException as error:
        raise StreamsError(f"reading records: {described(error)}") from None
    finally:
        consumer.close()
    return Use(tuple(sorted(topics)), look.records, look.found, tuple(look.gaps))


class _Look:
    """One pass over some topics, one after the other."""

    def __init__(self, consumer: Consumer, schema_id: int, *, deadline_s: float) -> None:
        self._consumer = consumer
        self._id = schema_id
        self._deadline_s = deadline_s
        self.records = 0
        self.found: dict[str, int] = {}
        self.gaps: list[str] = []

    def at(self, topic: str, partitions: int, records_max: int) -> None:
        """Read the newest records of a topic."""
        each = max(1, records_max // max(1, partitions))
        starts: list[TopicPartition] = []
        ends: dict[int, int] = {}
        skipped = 0
        for partition in range(partitions):
            place = TopicPartition(topic, partition)
            low, high = self._consumer.get_watermark_offsets(place, _ANSWER_TIMEOUT_S)
            first = max(low, high - each)
            skipped += first - low
            if first < high:
                starts.append(TopicPartition(topic, partition, first))
                ends[partition] = high
        if skipped:
            self.gaps.append(f"{topic} has about {skipped:,} older records")
        if starts:
            self._consumer.assign(starts)
            self._read(topic, ends)
            self._consumer.unassign()

    def _read(self, topic: str, ends: dict[int, int]) -> None:
        open_partitions, by_guid = set(ends), False
        while open_partitions and time.monotonic() < self._deadline_s:
            for message in self._consumer.consume(_CONSUME, _WAIT_S):
                partition, error = int(message.partition() or 0), message.error()
                if error is not None:
                    if error.code() == _EOF:
                        open_partitions.discard(partition)
                    elif not error.retriable():
                        raise KafkaException(error)
                    continue
                self.records += 1
                if int(message.offset() or 0) + 1 >= ends[partition]:
                    open_partitions.discard(partition)
                headers = headers_of(message)
                by_guid |= isinstance(key_in_headers(headers), str)
                if schema_id_of(message.value(), headers) == self._id:
                    self.found[topic] = self.found.get(topic, 0) + 1
        if open_partitions:
            self.gaps.append(f"{topic} was not read to its end in time")
        if by_guid:
            self.gaps.append(f"records of {topic} name their schema by GUID")
