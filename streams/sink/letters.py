"""Dead letters of a sink: records that are no row of its target, in the topic `sinks.<name>.dlq`.

The envelope is that of a flow's dead letters. A letter is acknowledged by all replicas before the target's offset
passes its record. If the process dies in between, the same letter is written again, with the same `dlq.id`.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Message

from streams.batch.rejects import DeadLetter
from streams.deadletters.letter.envelope import envelope_headers
from streams.flow.topics import OUTPUT_BYTES_MAX
from streams.kafka import clients
from streams.settings import Settings
from streams.sinks.target import TargetUnavailable

log = structlog.get_logger(__name__)

_ANSWER_S: Final = 30.0


class KafkaLetters:
    """`sink.writing.Letters` over a producer. One thread."""

    def __init__(self, settings: Settings, *, topic: str, source: str, group: str) -> None:
        """Into `topic`, of records of `source` that `group` has read."""
        self._settings, self._topic, self._source, self._group = settings, topic, source, group
        self._config: dict[str, Any] = {
            "client.id": group,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "message.max.bytes": OUTPUT_BYTES_MAX,
            "message.timeout.ms": int(_ANSWER_S * 1000),
            "compression.type": "lz4",
        }
        self._producer: clients.Producer | None = None

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Return once all of them are acknowledged."""
        failed: list[str] = []

        def told(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed.append(error.str())

        producer = self._producer = self._producer or clients.producer(self._settings, self._config)
        now_ms = time.time_ns() // 1_000_000
        try:
            for letter in letters:
                headers = envelope_headers(letter, source=self._source, group=self._group, now_ms=now_ms)
                partition = -1 if letter.key is not None else letter.partition
                producer.produce(
                    self._topic, letter.value, letter.key, partition, headers=list(headers), on_delivery=told
                )
                producer.poll(0)
            unanswered = producer.flush(_ANSWER_S)
        except (KafkaException, BufferError) as error:
            failed.append(str(error))
            unanswered = 0
        if failed or unanswered:
            self._producer = None  # one without an answer may never get one
            raise TargetUnavailable(f"{self._topic}: {failed[0] if failed else 'the broker does not answer'}")
        log.warning(
            "records are no row of the target: dead letters", topic=self._topic, letters=len(letters),
            first=letters[0].reject.message,
        )  # fmt: skip

    def close(self) -> None:
        """Close the producer: nothing is under way between two calls."""
        self._producer = None
