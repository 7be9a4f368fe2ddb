"""Which errors of a producer another attempt is made after."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.acls.rights import Kind, Operation, Pattern, Right
from streams.kafka.admin import described
from streams.kafka.group_refusal import refusal_of_group
from streams.sinks.kafka.producer_errors import named, not_fenced, not_refused


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


def test_a_refused_transactional_id_is_named_with_the_right_that_is_lacking() -> None:
    raised = KafkaException(KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "refused", fatal=True))
    found = named(raised, "streams-gps-car")
    right = Right(Kind.TRANSACTIONAL_ID, "streams-gps-car", Pattern.LITERAL, Operation.WRITE)
    words = f"this principal lacks {right} (ACLs): `streams acls show` prints what each role needs"
    assert str(found) == words
    assert described(found) == f"{words} (TRANSACTIONAL_ID_AUTHORIZATION_FAILED)"
    assert found.args[0].fatal()
    assert not_fenced(found)
    assert not not_refused(found)


def test_other_errors_of_a_producer_stay_as_they_are() -> None:
    raised = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    assert named(raised, "streams-gps-car") is raised


class Events:
    """A consumer that has received errors."""

    def __init__(self, *codes: int) -> None:
        self._codes = codes

    def consume(self, _: int, __: float) -> list[Any]:
        return [SimpleNamespace(error=partial(KafkaError, code)) for code in self._codes]


def test_a_group_that_brokers_refuse_is_named_where_a_call_only_times_out() -> None:
    consumer: Any = Events(KafkaError._ALL_BROKERS_DOWN, KafkaError.GROUP_AUTHORIZATION_FAILED)
    assert "this principal lacks DESCRIBE on group streams.gps (ACLs)" in refusal_of_group(consumer, "streams.gps")
    silent: Any = Events(KafkaError._ALL_BROKERS_DOWN)
    assert refusal_of_group(silent, "streams.gps") == ""
