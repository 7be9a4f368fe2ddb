"""The transactional producer on the real broker, when a call of its client does not return."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer

from logistics.flows.gps import GPS
from streams.local.stack import Stack
from streams.resilience.retry import Retrier
from streams.sinks.base import Committed, CycleAborted, one_record
from streams.sinks.kafka import transactions as module
from streams.sinks.kafka.transactions import KafkaTransactions
from tests.integration.kafka_helpers import fresh_topics, settings_of
from tests.integration.workers import PARTITIONS, read

pytestmark = pytest.mark.kafka

GROUP = "tests.transactions"


class Hanging:
    """A producer of which one kind of call does not return, as librdkafka's may that has lost its coordinator."""

    def __init__(self, producer: Producer, call: str, ends: threading.Event) -> None:
        self._producer, self._call, self._ends = producer, call, ends

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: self._ends.wait()) if name == self._call else getattr(self._producer, name)


@pytest.fixture
def group(stack: Stack) -> Iterator[object]:
    consumer = Consumer({"bootstrap.servers": stack.bootstrap_servers, "group.id": GROUP})
    yield consumer.consumer_group_metadata()
    consumer.close()


@pytest.mark.parametrize("call", ["send_offsets_to_transaction", "commit_transaction", "abort_transaction"])
def test_a_producer_that_hangs_is_left_behind_and_what_it_had_open_is_aborted(
    stack: Stack, group: object, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    fresh_topics(stack, PARTITIONS)
    monkeypatch.setattr(module, "_HANGS_S", -13.0)  # two seconds after the call, instead of five after its timeout
    transactions = KafkaTransactions(
        settings_of(stack), transactional_id=f"tests.{call}", source=GPS.source, retrier=Retrier()
    )
    transactions.reopen()
    ends = threading.Event()
    transactions._producer = Hanging(transactions._producer, call, ends)  # type: ignore[arg-type,assignment]
    try:
        send(transactions, b"left open")
        if call == "send_offsets_to_transaction":
            with pytest.raises(CycleAborted, match="has not returned"):
                transactions.send_offsets({0: Committed(7, 1)}, group)
        elif call == "commit_transaction":
            with pytest.raises(module.OutcomeUnknown, match="has not returned"):
                transactions.commit()
            transactions.reopen()
        else:
            transactions.abort()

        send(transactions, b"made anew")
        transactions.send_offsets({0: Committed(8, 2)}, group)
        transactions.commit()
    finally:
        ends.set()
        transactions.close()

    assert [message.value() for message in read(stack, GPS.late)] == [b"made anew"]


def send(transactions: KafkaTransactions, value: bytes) -> None:
    transactions.begin()
    transactions.produce(one_record(GPS.late, b"k", value, 1, partition=0))
