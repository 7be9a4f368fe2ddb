"""What librdkafka's errors mean to a transactional producer, by their codes. Pure."""

from typing import Final

from confluent_kafka import KafkaError, KafkaException

from streams.acls.rights import Kind, Operation, Pattern, Right
from streams.kafka.acls import in_words
from streams.kafka.bounded import ClientHangs

FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})  # noqa: SLF001 - public constants of librdkafka
"""Another producer has the transactional id, unless the broker gave this one up for being slow (docs/adr/0005)."""
_NO_RIGHT: Final = frozenset(
    {KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
)
UNANSWERED: Final = frozenset(
    {
        KafkaError._TIMED_OUT,  # noqa: SLF001 - public constants of librdkafka
        KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001
        KafkaError._MSG_TIMED_OUT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    }
)


class IdRefused(KafkaException):
    """The principal may not write with its transactional id; the message names both."""

    def __str__(self) -> str:
        return str(self.args[0].str())


def named(raised: KafkaException, transactional_id: str) -> KafkaException:
    """The same error; where the id is refused, in words that name it and the right."""
    error: KafkaError = raised.args[0]
    if error.code() != KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
        return raised
    right = Right(Kind.TRANSACTIONAL_ID, transactional_id, Pattern.LITERAL, Operation.WRITE)
    fate = error.fatal(), error.retriable(), error.txn_requires_abort()
    return IdRefused(KafkaError(error.code(), in_words((right,)), *fate))


def not_fenced(error: BaseException) -> bool:
    """Whether another attempt to get a producer makes sense: the transactional id is not taken."""
    if isinstance(error, ClientHangs):
        return True
    return isinstance(error, KafkaException) and error.args[0].code() not in FENCED


def not_refused(error: BaseException) -> bool:
    """The same for a command that a person waits for: a right that is lacking does not come by waiting."""
    if isinstance(error, KafkaException) and error.args[0].code() in _NO_RIGHT:
        return False
    return not_fenced(error)


def commit_may_be_asked_again(error: BaseException) -> bool:
    """Whether the same commit can be asked for again: it is not answered, and the producer is good."""
    if not isinstance(error, KafkaException):
        return False
    inner: KafkaError = error.args[0]
    return inner.retriable() and not inner.txn_requires_abort() and not inner.fatal()
