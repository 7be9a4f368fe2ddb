"""Why a client gets no answer about its group: brokers refuse it, which the call that times out does not say."""

from typing import Final

from confluent_kafka import Consumer, KafkaError

from streams.kafka.acls import group_in_words

_EVENTS_MAX: Final = 100


def refusal_of_group(consumer: Consumer, group: str) -> str:
    """The right that the client's principal lacks on its group, in words; empty where no broker said so.

    Of a consumer without an assignment: what it has received is taken from it.
    """
    errors = (message.error() for message in consumer.consume(_EVENTS_MAX, 0))
    is_refused = any(error and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED for error in errors)
    return group_in_words(group) if is_refused else ""
