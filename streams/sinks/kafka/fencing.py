"""Whether another process has taken a producer's transactional id."""

from confluent_kafka import KafkaError, KafkaException

from streams.errors import FencedError
from streams.kafka.admin import described
from streams.sinks.kafka.producer_errors import FENCED


class Fencing:
    """What is known of the transactional id of one `KafkaTransactions`, over all producers that it opens."""

    def __init__(self, transactional_id: str) -> None:
        self._id = transactional_id
        self.error: FencedError | None = None
        """Set once another process has the transactional id: nothing may take it back from there."""
        self.was_unanswered = False
        """Whether an abandoned producer of ours may still take the transactional id from the current one."""

    def is_fenced(self, error: KafkaError, *, outlived: bool) -> bool:
        """Whether another process has taken the transactional id.

        `outlived`: the transaction was open for longer than the broker allows, which ends a producer in the same way.
        After an unanswered attempt of our own that attempt may be the cause: this is assumed once. If another process
        has really taken the id, it is fenced by our next attempt; if it takes the id again, we are fenced for good.
        """
        if self.error is not None:
            return True
        if error.code() not in FENCED or outlived:
            return False
        own, self.was_unanswered = self.was_unanswered, False
        return not own

    def fenced(self, error: KafkaException) -> FencedError:
        """Remember that it is taken; returns what is to be raised."""
        self.error = FencedError(
            f"another process has taken over the transactional id {self._id} "
            f"({described(error)}): is a second worker running on a copy of this data directory?"
        )
        return self.error
