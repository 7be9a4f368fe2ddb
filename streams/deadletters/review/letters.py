"""Messages of a dead-letter topic as letters."""

from typing import Any

from confluent_kafka import Message

from streams.deadletters.letter.foreign import NO_SCHEMA_ID, message_of, own_headers_of, read_envelope
from streams.deadletters.letter.letter import Letter
from streams.kafka.headers import headers_of


def letter_of(topic: str, message: Message) -> Letter:
    """Make a letter from a message."""
    headers = headers_of(message)
    partition, offset = int(message.partition() or 0), int(message.offset() or 0)
    timestamp_ms = message.timestamp()[1]
    envelope = read_envelope(headers, topic=topic, partition=partition, offset=offset, timestamp_ms=timestamp_ms)
    key: Any = message.key()
    value: Any = message.value()
    return Letter(
        id=envelope.id.decode(),
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp_ms=timestamp_ms,
        source=envelope.source,
        key=key,
        value=value,
        headers=own_headers_of(headers),
        reason=envelope.reason,
        message=message_of(headers),
        attempt=envelope.attempt,
        schema_id=None if envelope.schema_id == NO_SCHEMA_ID else envelope.schema_id,
        first_failed_at=envelope.first_failed_at,
    )
