"""The transactional producer on the real broker, when a call of its client does not return or is answered late."""

import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import NewPartitions

from logistics.flows.gps import GPS
from streams.errors import FencedError
from streams.local import ports
from streams.local.stack import Stack
from streams.resilience.retry import Retrier
from streams.settings import load_settings
from streams.sinks.base import Committed, CycleAborted, OutcomeUnknown, one_record
from streams.sinks.kafka import transactions as module
from streams.sinks.kafka.transactions import KafkaTransactions
from tests.integration.kafka_helpers import fresh_topics, log_end, settings_of
from tests.integration.workers import PARTITIONS, read, wait_until

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


def test_a_record_goes_into_a_partition_that_was_added_after_the_producer_had_begun(
    stack: Stack, group: object
) -> None:
    client = fresh_topics(stack, PARTITIONS, flows=[GPS.name])
    transactions = KafkaTransactions(
        settings_of(stack), transactional_id="tests.added", source=GPS.source, retrier=Retrier()
    )
    transactions.reopen()
    try:
        send(transactions, b"before")
        transactions.send_offsets({0: Committed(7, 1)}, group)
        transactions.commit()
        client.create_partitions([NewPartitions(GPS.late, PARTITIONS + 1)])[GPS.late].result(30)
        transactions.begin()
        transactions.produce(one_record(GPS.late, None, b"after", 1, partition=PARTITIONS))
        transactions.send_offsets({0: Committed(8, 2)}, group)
        transactions.commit()
    finally:
        transactions.close()
    found = {message.value(): message.partition() for message in read(stack, GPS.late)}
    assert found.keys() == {b"before", b"after"}
    assert found[b"after"] == PARTITIONS
    fresh_topics(stack, PARTITIONS, flows=[GPS.name])


@pytest.mark.parametrize("call", ["send_offsets_to_transaction", "commit_transaction", "abort_transaction"])
def test_a_producer_that_hangs_is_left_behind_and_what_it_had_open_is_aborted(
    stack: Stack, group: object, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    fresh_topics(stack, PARTITIONS, flows=[GPS.name])
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
            with pytest.raises(OutcomeUnknown, match="has not returned"):
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


def test_a_client_that_gets_no_producer_id_is_closed_before_the_next_one_is_made() -> None:
    settings = load_settings(kafka_bootstrap_servers=f"127.0.0.1:{ports.free_port()}")
    transactions = KafkaTransactions(
        settings, transactional_id="tests.closed", source=GPS.source, retrier=Retrier(), reopen_s_max=1.0
    )
    before = client_threads()
    gc.disable()  # nothing else may be what ends it: in a worker the collector comes late
    try:
        with pytest.raises(CycleAborted, match="does not give a producer"):
            transactions.reopen()
        assert set() == client_threads() - before, "those of other tests may end meanwhile"
    finally:
        gc.enable()


def test_an_attempt_of_its_own_that_takes_effect_later_does_not_end_it(
    stack: Stack, group: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh_topics(stack, PARTITIONS)
    monkeypatch.setattr(module, "_SETTLE_TIMEOUT_S", 1.0)
    transactional_id = "tests.own"
    transactions = KafkaTransactions(
        settings_of(stack), transactional_id=transactional_id, source=GPS.source, retrier=Retrier()
    )
    broker = stack.kafka_pid
    assert broker is not None
    os.kill(broker, signal.SIGSTOP)
    wakes = threading.Timer(1.5, os.kill, (broker, signal.SIGCONT))
    wakes.start()
    try:
        transactions.reopen()  # the first attempt goes unanswered
        send(transactions, b"taken back")
        taken_over(stack, transactional_id)
        with pytest.raises(CycleAborted):
            transactions.send_offsets({0: Committed(7, 1)}, group)
        send(transactions, b"goes on")
        transactions.send_offsets({0: Committed(8, 2)}, group)
        transactions.commit()

        send(transactions, b"taken by another process")
        taken_over(stack, transactional_id)
        with pytest.raises(FencedError):
            transactions.send_offsets({0: Committed(9, 3)}, group)
    finally:
        wakes.join()
        transactions.close()

    assert [message.value() for message in read(stack, GPS.late)] == [b"goes on"]


def test_what_was_open_for_longer_than_the_broker_allows_is_void_and_the_next_cycle_goes_on(
    stack: Stack, group: object
) -> None:
    fresh_topics(stack, PARTITIONS, flows=[GPS.name])
    transactions = KafkaTransactions(
        settings_of(stack), transactional_id="tests.long", source=GPS.source, retrier=Retrier(), timeout_ms=8_000
    )
    transactions.reopen()
    try:
        send(transactions, b"open for too long")
        wait_until(lambda: log_end(stack, GPS.late) == 2, "the broker aborts it: a marker is in the log")
        with pytest.raises(CycleAborted) as aborted:
            transactions.send_offsets({0: Committed(7, 1)}, group)
        assert "transaction_timeout" == aborted.value.reason
        send(transactions, b"in time")
        transactions.send_offsets({0: Committed(8, 2)}, group)
        transactions.commit()
    finally:
        transactions.close()

    assert [message.value() for message in read(stack, GPS.late)] == [b"in time"]


def taken_over(stack: Stack, transactional_id: str) -> None:
    """What an attempt comes to that the broker carries out late: the id has another producer."""
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "transactional.id": transactional_id})
    producer.init_transactions(30)
    producer.close()


def client_threads() -> set[str]:
    """Ids of librdkafka's threads in this process."""
    found = set()
    for path in Path("/proc/self/task").glob("*/comm"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
            if path.read_text().startswith("rdk:"):
                found.add(path.parent.name)
    return found


def send(transactions: KafkaTransactions, value: bytes) -> None:
    transactions.begin()
    transactions.produce(one_record(GPS.late, b"k", value, 1, partition=0))
