"""Topics from their beginning to their end, with read_committed: what a consumer downstream would have seen by now."""

import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition

from loadtest import clients
from streams.errors import StreamsError
from streams.kafka.partitioner import partition_of

BATCH_RECORDS: Final = 20_000
WAIT_S: Final = 0.05
SILENCE_S_MAX: Final = 30.0
"""Without a record or an end for this long, the broker is taken for dead."""


@dataclass(frozen=True, slots=True)
class Share:
    """The keys of one partition of a source that has `of` partitions, or a slice of them."""

    partition: int
    of: int
    slice: int = 0
    slices: int = 1

    def has(self, key: bytes | None) -> bool:
        """Whether the key's events belong into that partition, and its slice."""
        return key is not None and partition_of(key, self.of) == self.partition and self.wants(key)

    def wants(self, key: bytes | None) -> bool:
        """Whether a record with that key, wherever it is, is judged with this slice. Exactly one slice wants it."""
        return self.slices == 1 or zlib.crc32(key or b"") % self.slices == self.slice


class TopicReader:
    """Reads whole partitions; one connection for as many as asked for. Close it when done."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = clients.consumer(
            bootstrap,
            {
                "group.id": f"oracle-{uuid.uuid4()}",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "queued.min.messages": 200_000,
                "fetch.message.max.bytes": 4_000_000,
                "fetch.wait.max.ms": 50,
            },
        )

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic.

        Raises:
            StreamsError: there is no such topic.

        """
        found = self._consumer.list_topics(topic, timeout=30).topics[topic]
        if found.error is not None or not found.partitions:
            raise StreamsError(f"no topic {topic}: create it with `streams topics apply`")
        return len(found.partitions)

    def records_of(self, topic: str, partition: int) -> int:
        """Offsets between the beginning and the end of a partition: at least as many as it has records."""
        first, end = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
        return max(0, int(end) - int(first))

    def batches(self, topic: str, partitions: Sequence[int]) -> Iterator[list[Message]]:
        """The records of some partitions, each in order, up to its last stable offset at the time that it is reached.

        Raises:
            StreamsError: the broker does not answer, or refuses.

        """
        self._consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
        unfinished = set(partitions)
        heard_s = time.monotonic()
        try:
            while unfinished:
                messages = self._consumer.consume(BATCH_RECORDS, WAIT_S)
                records = []
                for message in messages:
                    error = message.error()
                    if error is None:
                        records.append(message)
                    elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - that is its public name
                        unfinished.discard(message.partition())
                    elif not error.retriable():
                        raise StreamsError(f"reading {topic}: {error.str()}")
                if records:
                    yield records
                now_s = time.monotonic()
                heard_s = now_s if messages else heard_s
                if now_s - heard_s > SILENCE_S_MAX:
                    raise StreamsError(f"reading {topic}: no answer for {SILENCE_S_MAX:.0f} s")
        except KafkaException as error:
            raise StreamsError(f"reading {topic}: {error}") from error
        finally:
            self._consumer.unassign()

    def records(self, topic: str, share: Share | None = None) -> Iterator[Message]:
        """All records of a topic, each partition in order; of a share, those whose keys belong to it."""
        partitions = self.partitions(topic)
        if share is None or share.of == partitions:
            for batch in self.batches(topic, range(partitions) if share is None else [share.partition]):
                yield from batch if share is None else (each for each in batch if share.wants(each.key()))
            return
        for batch in self.batches(topic, range(partitions)):
            yield from (message for message in batch if share.has(message.key()))

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()
