"""Which errors of a producer another attempt is made after."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.sinks.kafka.producer_errors import not_fenced, not_refused


@pytest.mark.parametrize(
    ("code", "worker", "command"),
    [
        (KafkaError._TIMED_OUT, True, True),
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, True, False),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, True, False),
        (KafkaError.PRODUCER_FENCED, False, False),
    ],
)
def test_a_worker_waits_for_a_right_and_a_command_does_not(code: int, worker: bool, command: bool) -> None:
    error = KafkaException(KafkaError(code))
    assert (not_fenced(error), not_refused(error)) == (worker, command)
