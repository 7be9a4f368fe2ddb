"""Errors of a consumer whose next offset is not in the log: the client has stopped fetching the partition."""

from typing import Final

from confluent_kafka import KafkaError

OUT_OF_RANGE: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION})  # noqa: SLF001 - public constants of librdkafka
"""With `auto.offset.reset=error`; the offset may be before the first record, or after the last one."""
_TRUNCATED: Final = KafkaError(KafkaError._LOG_TRUNCATION).str()  # noqa: SLF001 - as above


def is_truncation(error: KafkaError) -> bool:
    """Whether the log has lost, or replaced, records that were read (KIP-320).

    The client reports that as a reset of the offset, and names this cause only in its text.
    """
    return error.code() in OUT_OF_RANGE and _TRUNCATED in error.str()
