"""Checkpoints of a writer in Kafka itself: an offset with metadata, committed in the transaction of its records.

It belongs to a consumer group that nobody consumes with (it bears the writer's name), on partition 0 of the target
topic. So records and checkpoint become visible together or not at all, also when the process is killed. The broker
forgets the checkpoint when the topic is deleted, or after `offsets.retention.minutes` without a new one (7 days).
"""

import contextlib
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from streams.kafka import clients
from streams.kafka.admin import described
from streams.kafka.committed import committed
from streams.resilience.retry import Backoff, Retrier, quietly
from streams.settings import Settings
from streams.sinks.base import Checkpoint, CycleAborted
from streams.sinks.kafka.transactions import KafkaTransactions

_REQUEST_TIMEOUT_S: Final = 30.0
_PASSING_CODES: Final = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)
"""Errors of a broker that is still loading its own topics after a start."""


class KafkaCheckpoints:
    """Checkpoints of the writer called `name` into `topic`."""

    def __init__(self, settings: Settings, transactions: KafkaTransactions, *, name: str, topic: str) -> None:
        self._transactions, self._name, self._topic = transactions, name, topic
        config: dict[str, Any] = {
            "client.id": name,
            "group.id": name,
            "enable.auto.commit": False,
        }
        self._group = clients.consumer(settings, config)

    def last(self) -> Checkpoint | None:
        """The last checkpoint; asked again for a while when the broker has only just started."""
        try:
            return Retrier(say=quietly).call(
                f"waiting for the checkpoint of {self._name}",
                self._read,
                passing=_is_passing,
                backoff=Backoff(first_s=0.1, pause_s_max=2.0, give_up_s=_REQUEST_TIMEOUT_S),
            )
        except KafkaException as error:
            raise CycleAborted("no_checkpoint", described(error)) from None

    def _read(self) -> Checkpoint | None:
        (found,) = committed(self._group, [TopicPartition(self._topic, 0)], _REQUEST_TIMEOUT_S)
        if found.error is not None:
            raise KafkaException(found.error)
        return Checkpoint(found.offset, found.metadata or "") if found.offset >= 0 else None

    def add(self, checkpoint: Checkpoint) -> None:
        """Commit it with the open transaction."""
        here = TopicPartition(self._topic, 0, checkpoint.position, metadata=checkpoint.metadata)
        self._transactions.send_group_offsets([here], self._group.consumer_group_metadata())

    def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(KafkaException):
            self._group.close()


def _is_passing(error: BaseException) -> bool:
    inner = error.args[0] if isinstance(error, KafkaException) else None
    return isinstance(inner, KafkaError) and (inner.retriable() or inner.code() in _PASSING_CODES)
