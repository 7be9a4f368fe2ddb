"""Topics of a failed transaction that are missing or may not be written: causes that a user can correct."""

from collections.abc import Collection
from typing import Final

from confluent_kafka import KafkaException, Producer

from streams.acls.rights import Operation, on_topic
from streams.errors import StreamsError
from streams.kafka.acls import in_words, lacking
from streams.kafka.admin import admin_client
from streams.settings import Settings

_LIST_TIMEOUT_S: Final = 2.0


def missing_topics(producer: Producer, topics: Collection[str]) -> str:
    """Names of those topics that the broker does not have, by commas; empty when it does not answer."""
    try:
        there = producer.list_topics(timeout=_LIST_TIMEOUT_S).topics
    except KafkaException:
        return ""
    return ", ".join(sorted(set(topics) - there.keys()))


def unwritable_topics(settings: Settings, topics: Collection[str]) -> str:
    """Topics that this principal may not write, in words; empty when the broker says none."""
    try:
        found = lacking(admin_client(settings), (on_topic(one, Operation.WRITE) for one in topics))
    except StreamsError:
        return ""
    return in_words(found) if found else ""
