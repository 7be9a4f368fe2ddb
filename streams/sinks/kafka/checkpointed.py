"""A producer that remembers how far it got, atomically with what it sent.

The checkpoint is an offset with metadata, committed inside the transaction of the records it covers, to a consumer
group that nobody consumes with (it bears the producer's name), on partition 0 of the target topic. So Kafka itself
keeps it: records and checkpoint become visible together or not at all, whenever the process dies.

Why it holds: `resume` first initialises transactions under the producer's name. That settles what a dead predecessor
left open and fences a living one; only then is the checkpoint read, so it is final. The broker forgets the checkpoint
when the topic is deleted, or after `offsets.retention.minutes` without a new one (7 days by default).
"""

import contextlib
import warnings
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from streams.errors import FencedError, StreamsError
from streams.kafka.admin import described, librdkafka_log, no_broker
from streams.kafka.partitioner import PARTITIONER
from streams.limits import TRANSACTION_TIMEOUT_MS
from streams.resilience.retry import Backoff, Retrier, quietly
from streams.settings import Settings
from streams.sinks.kafka.fencing import FENCED, cause_of_fatal

REQUEST_TIMEOUT_S: Final = 30.0
"""Bound of each step towards the broker; a step that takes longer fails the run, which can be repeated."""
ABORT_TIMEOUT_S: Final = 5.0
QUEUE_MESSAGES_MAX: Final = 100_000
QUEUE_KBYTES_MAX: Final = 131_072
_PASSING_CODES: Final = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)
"""What a broker answers while it is still reading its own topics after a start."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a producer got: a count of its own, and a text of its own (at most 4096 bytes)."""

    position: int
    metadata: str


class CheckpointedProducer:
    """Keyed records into one topic, in transactions that each carry a checkpoint.

    `name` is the transactional id and the consumer group: one living producer a name. Every method raises FencedError
    when another one of the same name has started, and StreamsError when the broker fails it; either way nothing of the
    open transaction is visible, the producer is of no more use, and a new one goes on from the last checkpoint.
    """

    def __init__(self, settings: Settings, *, name: str, topic: str) -> None:
        self._settings, self._name, self._topic = settings, name, topic
        self._open = False
        connection = settings.kafka_client_config()
        record_bytes_max = settings.streams_record_bytes_max + 1024
        config: dict[str, Any] = {
            **connection,
            "client.id": name,
            "transactional.id": name,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            "enable.idempotence": True,
            "partitioner": PARTITIONER,
            "compression.type": "lz4",
            "linger.ms": 20,
            "batch.size": 1_000_000,
            "message.max.bytes": max(1_000_000, record_bytes_max),
            "queue.buffering.max.messages": QUEUE_MESSAGES_MAX,
            "queue.buffering.max.kbytes": QUEUE_KBYTES_MAX,
            "topic.metadata.refresh.interval.ms": 10_000,
        }
        group: dict[str, Any] = {**connection, "client.id": name, "group.id": name, "enable.auto.commit": False}
        try:
            self._producer = Producer(config, logger=librdkafka_log)
            self._group = Consumer(group, logger=librdkafka_log)
        except KafkaException as error:
            raise StreamsError(f"the KAFKA_* settings cannot be used: {described(error)}") from None

    def resume(self) -> Checkpoint | None:
        """Take over the name, settle what is open under it, and return its last checkpoint (None: there is none)."""
        try:
            self._producer.init_transactions(REQUEST_TIMEOUT_S)
            return Retrier(say=quietly).call(
                f"waiting for the checkpoint of {self._name}",
                self._checkpoint,
                passing=_is_passing,
                backoff=Backoff(first_s=0.1, pause_s_max=2.0, give_up_s=REQUEST_TIMEOUT_S),
            )
        except KafkaException as error:
            raise self._failed("starting", error) from None

    def _checkpoint(self) -> Checkpoint | None:
        (found,) = self._group.committed([self._checkpoint_at()], timeout=REQUEST_TIMEOUT_S)
        if found.error is not None:
            raise KafkaException(found.error)
        return Checkpoint(found.offset, found.metadata or "") if found.offset >= 0 else None

    def send(self, keys: list[bytes], values: list[bytes]) -> None:
        """Add records to the open transaction, in this order; waits while the queue to the broker is full."""
        try:
            self._begin()
            produce, topic = self._producer.produce, self._topic
            for key, value in zip(keys, values, strict=True):
                while True:
                    try:
                        produce(topic, value, key)
                        break
                    except BufferError:
                        self._producer.poll(0.1)
            self._producer.poll(0)
        except KafkaException as error:
            raise self._failed("sending", error) from None

    def commit(self, checkpoint: Checkpoint) -> None:
        """Make the records since the last commit visible, together with the checkpoint; returns when they are."""
        try:
            self._begin()
            self._producer.send_offsets_to_transaction(
                [self._checkpoint_at(checkpoint)], self._group.consumer_group_metadata(), REQUEST_TIMEOUT_S
            )
            self._producer.commit_transaction(REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise self._failed("committing", error) from None
        self._open = False

    def close(self) -> None:
        """Drop the open transaction, if any, and disconnect, within some seconds; never raises.

        With a broker that is gone the transaction cannot be aborted: the broker does so after the transaction's
        timeout, or the next `resume` does.
        """
        with contextlib.suppress(KafkaException):
            self._group.close()
        if self._open:
            try:
                self._producer.purge()
                self._producer.abort_transaction(ABORT_TIMEOUT_S)
            except KafkaException as error:
                if not error.args[0].fatal():
                    return  # Producer.close() aborts first, and waits for that without a bound
        with contextlib.suppress(KafkaException), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a fenced producer says once more that it is
            self._producer.close()

    def _begin(self) -> None:
        if not self._open:
            self._producer.begin_transaction()
            self._open = True

    def _checkpoint_at(self, checkpoint: Checkpoint | None = None) -> TopicPartition:
        if checkpoint is None:
            return TopicPartition(self._topic, 0)
        return TopicPartition(self._topic, 0, checkpoint.position, metadata=checkpoint.metadata)

    def _failed(self, step: str, error: KafkaException) -> StreamsError:
        inner = cause_of_fatal(self._producer, error, ABORT_TIMEOUT_S).args[0]
        if isinstance(inner, KafkaError) and inner.code() in FENCED:
            return FencedError(f"another process has started the same work on {self._topic}: this one stops")
        if isinstance(inner, KafkaError) and inner.code() in {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}:  # noqa: SLF001 - public constants
            return no_broker(self._settings, inner.str())
        return StreamsError(
            f"{step} to {self._topic} at {self._settings.kafka_bootstrap_servers} failed: {described(error)}; "
            "what was not committed is not visible: run the same command again, it goes on from there"
        )


def _is_passing(error: BaseException) -> bool:
    inner = error.args[0] if isinstance(error, KafkaException) else None
    return isinstance(inner, KafkaError) and (inner.retriable() or inner.code() in _PASSING_CODES)
