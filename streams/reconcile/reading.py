"""Records of a partition from one offset to another, read_committed, at a bounded share of the time."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from streams.errors import StreamsError
from streams.kafka import clients
from streams.kafka.admin import described
from streams.kafka.out_of_range import OUT_OF_RANGE
from streams.settings import Settings

BATCH_RECORDS: Final = 5_000
_WAIT_S: Final = 0.1
_SILENCE_S_MAX: Final = 60.0
_PAUSE_S_MAX: Final = 5.0
_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of librdkafka


class Pace:
    """Works for a share of the time: pauses after each piece of work for as long as that takes."""

    def __init__(
        self, share: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Work for the share `share` of the time, which is above 0 and at most 1."""
        self._rest_of_work = 1 / share - 1
        self._clock, self._sleep = clock, sleep
        self._since = clock()
        self.paused_s = 0.0

    def rest(self) -> None:
        """A piece of work is done: pause for its share, in bounded pieces."""
        pause_s = (self._clock() - self._since) * self._rest_of_work
        self.paused_s += pause_s
        while pause_s > 0:
            piece_s = min(pause_s, _PAUSE_S_MAX)
            self._sleep(piece_s)
            pause_s -= piece_s
        self._since = self._clock()


class PartitionReader:
    """Reads whole parts of partitions. Joins no group. Close it when done."""

    def __init__(self, settings: Settings, group: str, pace: Pace) -> None:
        """`group`: under whose name it reads; nothing is committed."""
        self._pace = pace
        self._consumer = clients.consumer(
            settings,
            {
                "client.id": "streams-reconcile",
                "group.id": group,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
            },
        )

    def batches(self, topic: str, partition: int, start: int, end: int) -> Iterator[list[Message]]:
        """Committed records from `start` to `end`, exclusive.

        Raises:
            StreamsError: Kafka does not answer, or the records are gone.

        """
        if start >= end:
            return
        where = f"{topic}-{partition}"
        self._consumer.assign([TopicPartition(topic, partition, start)])
        heard_s, position = time.monotonic(), start
        try:
            while position < end:
                found: list[Message] = []
                for message in self._consumer.consume(BATCH_RECORDS, _WAIT_S):
                    error = message.error()
                    if error is None:
                        position = int(message.offset() or 0) + 1
                        found.append(message)
                    elif error.code() == _EOF:
                        position = max(position, int(message.offset() or 0))
                    elif error.code() in OUT_OF_RANGE:
                        raise StreamsError(f"{where}: records were deleted while they were read; run it again")
                    elif not error.retriable():
                        raise StreamsError(f"reading {where}: {error.str()}")
                if found:
                    heard_s = time.monotonic()
                    yield [message for message in found if (message.offset() or 0) < end]
                    self._pace.rest()
                elif time.monotonic() - heard_s > _SILENCE_S_MAX:
                    raise StreamsError(f"reading {where}: no answer for {_SILENCE_S_MAX:.0f} s")
        except KafkaException as error:
            raise StreamsError(f"reading {where}: {described(error)}") from None
        finally:
            self._consumer.unassign()

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()
