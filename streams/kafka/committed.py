"""A group's committed offsets, with the true cause where they cannot be had."""

from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition


def committed(consumer: Consumer, wanted: Sequence[TopicPartition], timeout_s: float) -> list[TopicPartition]:
    """As `Consumer.committed`, of a consumer that is assigned nothing.

    Where the group's coordinator refuses (a missing right), the client goes on asking until the time is over, and says
    the reason only to who polls: that reason is raised in place of the time-out.

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
