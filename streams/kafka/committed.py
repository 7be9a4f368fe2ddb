"""A group's committed offsets, with the true cause where they cannot be read."""

from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition


def committed(consumer: Consumer, wanted: Sequence[TopicPartition], timeout_s: float) -> list[TopicPartition]:
    """As `Consumer.committed`, for a consumer without an assignment.

    If the group's coordinator refuses (a missing right), the client repeats the request until the timeout and reports
    the reason only to `poll`: that reason is raised in place of the timeout.

    Raises:
        KafkaException: no answer, or the broker refuses.

    """
    try:
        found: list[TopicPartition] = consumer.committed(list(wanted), timeout=timeout_s)
    except KafkaException:
        heard = consumer.poll(0)
        if heard is not None and (error := heard.error()) is not None:
            raise KafkaException(error) from None
        raise
    return found
