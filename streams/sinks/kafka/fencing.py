"""A producer whose place another one has taken: how the client says so."""

from typing import Final

from confluent_kafka import KafkaError, KafkaException, Producer

FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})  # noqa: SLF001 - public constants of librdkafka
"""Codes of an error that means it, unless the broker gave the producer up for being slow (docs/adr/0005)."""


def cause_of_fatal(producer: Producer, raised: KafkaException, timeout_s: float) -> KafkaException:
    """What put a producer into its fatal state; `raised` itself when that is no such error.

    In that state a producer refuses records with the word "fatal" alone; aborting has it say why, at once.
    """
    error = raised.args[0]
    if not isinstance(error, KafkaError) or error.code() != KafkaError._FATAL:  # noqa: SLF001 - as above
        return raised
    try:
        producer.abort_transaction(timeout_s)
    except KafkaException as cause:
        return cause
    return raised
