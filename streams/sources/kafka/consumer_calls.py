"""Calls to the consumer that take more than one step, and the meaning of an error that ends it."""

import time
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streams.errors import FencedError, StreamsError
from streams.kafka.admin import described
from streams.kafka.native_client import NativeReader
from streams.limits import QUIET_WAIT_MS
from streams.sources.kafka.membership import cause_of

log = structlog.get_logger(__name__)

_LEAVE_TIMEOUT_S: Final = 5.0


def seek(consumer: Consumer, reader: NativeReader | None, here: TopicPartition) -> None:
    """Have an assigned partition read from another offset on; it may be paused afterwards: resume it.

    Raises:
        KafkaException: the client refuses.

    """
    try:
        consumer.seek(here)
    except KafkaException as error:
        if error.args[0].code() != KafkaError._STATE:  # noqa: SLF001 - a public constant of librdkafka
            raise
        assign_again(consumer, reader, here)


def assign_again(consumer: Consumer, reader: NativeReader | None, here: TopicPartition) -> None:
    """Assign a partition again: the client has stopped fetching it, since an offset was out of range.

    What the client keeps of a partition that it does not read may be gone, and where its records are forwarded to is
    forgotten when its fetcher stops, some time after `incremental_unassign`. So the reader is attached twice: before,
    or first records would go to the consumer; and after the client has answered that it is assigned, when the fetcher
    has stopped. Nothing is fetched in between: it is paused.
    """
    consumer.incremental_unassign([here])
    if reader is not None:
        reader.attach(here.topic, here.partition)
        consumer.pause([here])
    consumer.incremental_assign([here])
    if reader is not None:
        reader.attach(here.topic, here.partition)


def leave_group(consumer: Consumer, topic: str) -> None:
    """Give up a static membership: closing keeps it, unsubscribing gives it up.

    Serves the revocation. The member id is gone once the request is under way, and closing waits for its answer.
    """
    deadline_s = time.monotonic() + _LEAVE_TIMEOUT_S
    try:
        consumer.unsubscribe()
        while consumer.memberid() and time.monotonic() < deadline_s:
            consumer.poll(QUIET_WAIT_MS / 1000)  # nothing is consumed any more
    except (KafkaException, RuntimeError) as error:
        log.warning("the group could not be left: it keeps this worker's place for a session", error=str(error))
        return
    log.info("left the group", topic=topic)


def broken(error: KafkaError, topic: str, group: str) -> StreamsError:
    """The error with which a worker ends when its consumer is unusable."""
    if cause_of(error) in {KafkaError.UNRELEASED_INSTANCE_ID, KafkaError.FENCED_INSTANCE_ID}:
        return FencedError(
            f"another worker has joined as this one ({error.str()}): is it running on a copy of this data directory?"
        )
    return StreamsError(f"the consumer of {topic} in the group {group} failed: {described(KafkaException(error))}")
