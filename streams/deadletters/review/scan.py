"""Reads dead-letter and audit topics: whole, from the last position, or single records by their place."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.deadletters.letter.index import Place
from streams.errors import StreamsError
from streams.kafka import clients
from streams.kafka.admin import described
from streams.names import REVIEW_GROUP
from streams.settings import Settings

BATCH_RECORDS: Final = 20_000
QUEUE_KBYTES_MAX: Final = 65_536
WAIT_S: Final = 0.05
FEW_WAIT_S: Final = 0.01
"""How long a batch is gathered while records arrive, and while few or none do."""
FEW_RECORDS: Final = 500
SILENCE_S_MAX: Final = 30.0
"""Without a record or an end for this long, the broker is considered dead."""
GAP_RECORDS_MAX: Final = 10_000
"""Gaps between wanted records up to this length are read, not skipped."""

Progress = Callable[[int], None]
"""Called with the number of records read so far."""


class TopicTail:
    """A topic from its beginning to its end, and later its new records. read_committed; one thread."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings, self.topic = settings, topic
        self._config: dict[str, Any] = {
            "client.id": "streams-dlq",
            "group.id": REVIEW_GROUP,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "queued.min.messages": 200_000,
            "queued.max.messages.kbytes": QUEUE_KBYTES_MAX,
            "fetch.message.max.bytes": 4_000_000,
            "fetch.wait.max.ms": 10,
        }
        self._consumer: Consumer | None = None
        self._next: dict[int, int] = {}
        """Next offset by partition."""

    def close(self) -> None:
        """Close the consumer."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def ends(self) -> tuple[int, ...]:
        """Offset after the last record that was read, by partition from 0 on; 0 where nothing was read yet."""
        return tuple(self._next.get(partition, 0) for partition in range(max(self._next, default=-1) + 1))

    def lows(self, partitions: int) -> dict[int, int]:
        """First offset that is still there, by partition."""
        consumer = self._open()
        try:
            return {
                partition: consumer.get_watermark_offsets(TopicPartition(self.topic, partition), SILENCE_S_MAX)[0]
                for partition in range(partitions)
            }
        except KafkaException as error:
            raise self._failed(error) from None

    def since(self, timestamp_ms: int, partitions: int) -> None:
        """Begin with records of this time: older ones are not read."""
        asked = [TopicPartition(self.topic, partition, timestamp_ms) for partition in range(partitions)]
        try:
            found = self._open().offsets_for_times(asked, SILENCE_S_MAX)
        except KafkaException as error:
            raise self._failed(error) from None
        self._next = {one.partition: one.offset for one in found}

    def read(self, partitions: int, take: Callable[[list[Message]], None], progress: Progress | None = None) -> int:
        """Pass all records since the last call to `take`, each partition in order; returns their number.

        Raises:
            StreamsError: the broker does not answer, or refuses.

        """
        starts = {partition: self._next.get(partition, OFFSET_BEGINNING) for partition in range(partitions)}
        read = 0
        with _no_collection():
            for records in self._batches(starts, {}):
                take(records)
                read += len(records)
                if progress is not None:
                    progress(read)
        return read

    def fetch(self, places: Sequence[Place]) -> Iterator[list[Message]]:
        """The records at `places` (by partition and offset, ascending), in batches; those that are gone are left out.

        Raises:
            StreamsError: the broker does not answer, or refuses.

        """
        for partition, first, wanted in _runs(places):
            with _no_collection():
                for records in self._batches({partition: first}, {partition: max(wanted)}):
                    found = [record for record in records if record.offset() in wanted]
                    if found:
                        yield found

    def _batches(self, starts: dict[int, int], last: dict[int, int]) -> Iterator[list[Message]]:
        """Records of some partitions up to their ends, or up to the offset in `last`."""
        if not starts:
            return
        consumer = self._open()
        unfinished = set(starts)
        heard_s = time.monotonic()
        wait_s = FEW_WAIT_S
        try:
            consumer.assign([TopicPartition(self.topic, partition, offset) for partition, offset in starts.items()])
            while unfinished:
                messages = consumer.consume(BATCH_RECORDS, wait_s)
                wait_s = WAIT_S if len(messages) > FEW_RECORDS else FEW_WAIT_S
                now_s = time.monotonic()
                heard_s = now_s if messages else heard_s
                if now_s - heard_s > SILENCE_S_MAX:
                    self.close()  # a client that gets no answers may never get any again (`kafka.broker_watch`)
                    raise StreamsError(f"reading {self.topic}: no answer for {SILENCE_S_MAX:.0f} s")
                records = [message for message in messages if message.error() is None]
                for record in _last_of_each(records):
                    partition, offset = int(record.partition() or 0), int(record.offset() or 0)
                    if not last:
                        self._next[partition] = offset + 1
                    elif offset >= last[partition]:
                        unfinished.discard(partition)
                if records:
                    yield records
                if len(records) < len(messages):
                    self._note_ends(messages, unfinished, tail=not last)
        except KafkaException as error:
            raise self._failed(error) from None
        finally:
            if self._consumer is consumer:
                consumer.unassign()

    def _note_ends(self, messages: list[Message], unfinished: set[int], *, tail: bool) -> None:
        for message in messages:
            error = message.error()
            if error is None:
                continue
            partition = int(message.partition() or 0)
            if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - public constant of librdkafka
                unfinished.discard(partition)
                if tail:
                    self._next[partition] = int(message.offset() or 0)
            elif not error.retriable():
                raise StreamsError(f"reading {self.topic}: {described(KafkaException(error))}")

    def _open(self) -> Consumer:
        if self._consumer is None:
            consumer = clients.consumer(self._settings, self._config)
            self._consumer = consumer
            try:
                # Offsets that are asked for before the leaders are known are asked for again half a second later.
                consumer.list_topics(timeout=SILENCE_S_MAX)
            except KafkaException as error:
                raise self._failed(error) from None
        return self._consumer

    def _failed(self, error: KafkaException) -> StreamsError:
        self.close()
        return StreamsError(f"reading {self.topic}: {described(error)}")


def _last_of_each(records: list[Message]) -> list[Message]:
    """The last record of each partition: the client returns runs of one partition at a time."""
    return list({record.partition(): record for record in records}.values())


def _runs(places: Sequence[Place]) -> Iterator[tuple[int, int, set[int]]]:
    """Ranges worth reading in one go: partition, first offset, offsets wanted."""
    wanted: set[int] = set()
    at: Place | None = None
    first = 0
    for place in places:
        if at is None or place.partition != at.partition or place.offset - at.offset > GAP_RECORDS_MAX:
            if at is not None:
                yield at.partition, first, wanted
            first, wanted = place.offset, set()
        wanted.add(place.offset)
        at = place
    if at is not None:
        yield at.partition, first, wanted


@contextmanager
def _no_collection() -> Iterator[None]:
    """Disable garbage collection: for millions of new tuples without cycles it takes as long as the work itself."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
