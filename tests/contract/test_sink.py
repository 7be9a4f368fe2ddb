"""One contract over what is written to: transactions and the sink above them, of Kafka and of its twin in memory."""

import random
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streams.batch.columns import Headers
from streams.errors import FencedError
from streams.kafka.admin import settled
from streams.kafka.changelog import KafkaChangelog
from streams.kafka.memory import MemoryChangelog, MemoryKafka
from streams.kafka.native_client import NativeClients, native_clients
from streams.kafka.partitioner import partition_of
from streams.local.stack import Stack
from streams.resilience.retry import Retrier
from streams.settings import load_settings
from streams.sinks.base import (
    Checkpoint,
    Committed,
    CycleAborted,
    Outgoing,
    OutputRefused,
    Refused,
    TopicRecords,
    Transactions,
    WriteInterrupted,
    one_record,
)
from streams.sinks.kafka.checkpoints import KafkaCheckpoints
from streams.sinks.kafka.transactions import KafkaTransactions
from streams.sinks.memory import MemoryCheckpoints, MemoryTransactions
from streams.sinks.transactional import TransactionalSink
from tests.integration.workers import wait_until

PARTITIONS = 3
HUGE = random.Random(1).randbytes(20_000)
"""More than a record of the small topic may have, also compressed."""

Row = tuple[int, bytes | None, bytes | None, int, list[tuple[str, bytes | None]]]
"""Partition, key, value, timestamp, headers."""


class KafkaSubject:
    """Topics of its own on the real broker: `out`, and `small`, which refuses what is large."""

    def __init__(self, stack: Stack, native: NativeClients | None = None) -> None:
        self._stack = stack
        self._native = native
        self._settings = load_settings(kafka_bootstrap_servers=stack.bootstrap_servers)
        self.producer = f"contract-{uuid.uuid4().hex[:8]}"
        self.out, self.small = f"{self.producer}.out", f"{self.producer}.small"
        self._admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
        kept = {"retention.ms": "-1"}  # the records are of 1970
        out = NewTopic(self.out, PARTITIONS, 1, config=kept)
        small = NewTopic(self.small, PARTITIONS, 1, config={**kept, "max.message.bytes": "10000"})
        for future in self._admin.create_topics([out, small]).values():
            settled("creating a topic", future)
        self._members: list[Consumer] = []
        self._changelog = KafkaChangelog(self._settings, group=self.producer, source=self.out, retrier=Retrier())
        self._made: list[Any] = []

    def _new_transactions(self) -> KafkaTransactions:
        return KafkaTransactions(
            self._settings, transactional_id=self.producer, source=self.out, retrier=Retrier(), reopen_s_max=30,
            native=self._native,
        )  # fmt: skip

    def transactions(self) -> Transactions:
        made = self._new_transactions()
        self._made.append(made)
        made.reopen()
        return made

    def sink(self) -> TransactionalSink:
        made = self._new_transactions()
        checkpoints = KafkaCheckpoints(self._settings, made, name=self.producer, topic=self.out)
        sink = TransactionalSink(made, checkpoints, fenced="somebody else writes")
        self._made.append(sink)
        return sink

    def joined(self) -> object:
        """The membership of a member that has joined the group."""
        member = Consumer({"bootstrap.servers": self._stack.bootstrap_servers, "group.id": self.producer})
        self._members.append(member)
        member.subscribe([self.out])
        deadline = time.monotonic() + 60
        while not member.assignment():
            assert time.monotonic() < deadline
            member.poll(0.1)
        return member.consumer_group_metadata()

    def rebalance(self) -> None:
        """The group goes on without its member."""
        self._members.pop().close()

    def committed(self) -> dict[int, Committed | None]:
        return self._changelog.committed(range(PARTITIONS))

    def rows(self, topic: str) -> list[Row]:
        reader = Consumer(
            {
                "bootstrap.servers": self._stack.bootstrap_servers,
                "group.id": "contract-reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
            }
        )
        reader.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        found: list[Row] = []
        ended: set[int] = set()
        deadline = time.monotonic() + 60
        while len(ended) < PARTITIONS:
            assert time.monotonic() < deadline
            for message in reader.consume(1_000, 0.05):
                error = message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    ended.add(message.partition() or 0)
                    continue
                headers: Any = list(message.headers() or [])
                found.append(
                    (message.partition() or 0, message.key(), message.value(), message.timestamp()[1], headers)
                )
        reader.close()
        return sorted(found, key=lambda row: row[0])

    def finish(self) -> None:
        for one in [*self._made, *self._members]:
            one.close()
        self._changelog.close()
        for future in self._admin.delete_topics([self.out, self.small]).values():
            settled("deleting a topic", future)


class MemorySubject:
    """The twin."""

    def __init__(self) -> None:
        self._kafka = MemoryKafka(PARTITIONS)
        self.producer, self.out, self.small = "p", "out", "small"

    def _refuses(self, topic: str, _key: bytes | None, value: bytes | None) -> bool:
        return topic == self.small and len(value or b"") > 10_000

    def transactions(self) -> MemoryTransactions:
        return MemoryTransactions(self._kafka, self.producer, refuses=self._refuses)

    def sink(self) -> TransactionalSink:
        made = self.transactions()
        checkpoints = MemoryCheckpoints(self._kafka, made, name=self.producer)
        return TransactionalSink(made, checkpoints, fenced="somebody else writes")

    def joined(self) -> object:
        return self._kafka.membership_of(self.producer)

    def rebalance(self) -> None:
        self._kafka.give(0, "another")

    def committed(self) -> dict[int, Committed | None]:
        return MemoryChangelog(self._kafka).committed(range(PARTITIONS))

    def rows(self, topic: str) -> list[Row]:
        return [
            (partition, entry.key, entry.value, entry.timestamp_ms, list(entry.headers or []))
            for partition in range(PARTITIONS)
            for entry in self._kafka.committed_rows(topic, partition)
        ]

    def finish(self) -> None:
        pass


Subject = KafkaSubject | MemorySubject


@pytest.fixture(
    params=[
        "memory",
        pytest.param("kafka", marks=pytest.mark.kafka),
        pytest.param("native", marks=(pytest.mark.kafka, pytest.mark.native)),
    ]
)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    made: Subject
    if request.param == "memory":
        made = MemorySubject()
    else:
        native = native_clients("on") if request.param == "native" else None
        made = KafkaSubject(request.getfixturevalue("stack"), native)
    yield made
    made.finish()


def produce(
    transactions: Transactions,
    topic: str,
    value: bytes,
    key: bytes | None = b"k",
    partition: int | None = None,
    **more: Any,
) -> None:
    headers: Headers | None = more.pop("headers", None)
    transactions.produce(one_record(topic, key, value, 1_000, headers, partition=partition, **more))


def visible(subject: Subject, topic: str, count: int) -> list[Any]:
    """All rows of a topic, once there are `count`: the broker tells of a commit before its rows are visible."""
    rows = wait_until(
        lambda: found if len(found := subject.rows(topic)) >= count else None, f"{count} rows are visible"
    )
    assert len(rows) == count
    return rows


# --- transactions -----------------------------------------------------------------------------------------------------


def test_what_is_produced_is_visible_after_the_commit_and_not_before(subject: Subject) -> None:
    transactions = subject.transactions()
    keys, values = [b"a", b"b", b"a"], [b"1", b"2", None]
    headers: list[Headers | None] = [None, [("name", b"\xff"), ("none", None)], None]
    delivered: list[int] = []
    transactions.begin()
    transactions.produce(
        TopicRecords(subject.out, keys, values, [1_000, 2_000, 3_000], headers, on_last_delivered=delivered.append)
    )
    produce(transactions, subject.out, b"3", key=None, partition=2, on_delivered=delivered.append)
    assert subject.rows(subject.out) == []

    transactions.commit()
    rows = visible(subject, subject.out, 4)
    of_a = [row for row in rows if row[1] == b"a"]
    assert of_a == [
        (partition_of(b"a", PARTITIONS), b"a", b"1", 1_000, []),
        (partition_of(b"a", PARTITIONS), b"a", None, 3_000, []),
    ]
    (of_b,) = [row for row in rows if row[1] == b"b"]
    assert of_b == (partition_of(b"b", PARTITIONS), b"b", b"2", 2_000, [("name", b"\xff"), ("none", None)])
    assert (2, None, b"3", 1_000, []) in rows
    assert len(delivered) == 2


def test_no_records_are_produced_and_none_is_reported(subject: Subject) -> None:
    transactions = subject.transactions()
    delivered: list[int] = []
    transactions.begin()
    transactions.produce(TopicRecords(subject.out, [], [], [], [], partition=0, on_last_delivered=delivered.append))
    transactions.produce(TopicRecords(subject.out, [], [], []))
    produce(transactions, subject.out, b"there")
    transactions.commit()
    assert [row[2] for row in visible(subject, subject.out, 1)] == [b"there"]
    assert delivered == []


def test_what_is_aborted_is_never_visible_and_the_next_transaction_is_another(subject: Subject) -> None:
    transactions = subject.transactions()
    transactions.begin()
    produce(transactions, subject.out, b"void")
    transactions.send_offsets({0: Committed(5, 1)}, subject.joined())
    transactions.abort()
    transactions.abort()  # there is none
    transactions.begin()
    produce(transactions, subject.out, b"there")
    transactions.commit()
    assert [row[2] for row in visible(subject, subject.out, 1)] == [b"there"]
    assert subject.committed() == dict.fromkeys(range(PARTITIONS))


def test_positions_are_committed_with_what_they_say_of_themselves(subject: Subject) -> None:
    transactions = subject.transactions()
    membership = subject.joined()
    position = Committed(7, 3, author="worker;1", session="s", topic_id="id")
    transactions.begin()
    produce(transactions, subject.out, b"1")
    transactions.send_offsets({1: position}, membership)
    transactions.commit()
    assert subject.committed() == {0: None, 1: position, 2: None}


def test_positions_in_the_name_of_a_membership_that_is_over_are_refused(subject: Subject) -> None:
    transactions = subject.transactions()
    former = subject.joined()
    subject.rebalance()
    transactions.begin()
    produce(transactions, subject.out, b"void")
    with pytest.raises(CycleAborted):
        transactions.send_offsets({0: Committed(5, 1)}, former)
    transactions.abort()
    assert subject.rows(subject.out) == []
    assert subject.committed()[0] is None


def test_a_producer_of_the_same_name_aborts_what_the_former_left_open_and_fences_it(subject: Subject) -> None:
    first = subject.transactions()
    first.begin()
    produce(first, subject.out, b"void")
    second = subject.transactions()
    second.begin()
    produce(second, subject.out, b"there")
    second.commit()
    with pytest.raises(FencedError):
        first.commit()
    assert [row[2] for row in visible(subject, subject.out, 1)] == [b"there"]


def test_a_record_that_a_topic_refuses_is_named_when_the_cycle_is_run_again(subject: Subject) -> None:
    transactions = subject.transactions()
    named: tuple[Refused, ...] = ()
    runs = 0
    while not named:
        runs += 1
        assert runs < 6
        transactions.begin()
        with pytest.raises(OutputRefused) as raised:  # noqa: PT012 - whichever step the broker says so in
            produce(transactions, subject.small, b"fine", origin=1)
            produce(transactions, subject.small, HUGE, origin=1)
            transactions.commit()
        named = raised.value.refused
        transactions.abort()
    assert [(each.topic, each.key, each.value, each.partition) for each in named] == [(subject.small, b"k", HUGE, 1)]

    transactions.begin()
    produce(transactions, subject.small, b"fine", origin=1)
    transactions.commit()
    assert [row[2] for row in visible(subject, subject.small, 1)] == [b"fine"]


# --- the sink ---------------------------------------------------------------------------------------------------------


def outgoing(topic: str, *values: bytes, **more: Any) -> list[Outgoing]:
    return [Outgoing(topic, [b"k"] * len(values), list(values), 1_000, **more)]


def test_records_and_checkpoint_are_committed_together_and_read_by_whoever_opens_next(subject: Subject) -> None:
    sink = subject.sink()
    assert sink.open() is None
    sink.write(outgoing(subject.out, b"1", b"2"))
    sink.commit(Checkpoint(2, "two; \u00e9"))
    sink.write(outgoing(subject.out, b"3"))
    sink.close()  # as when the process ends before the next commit

    again = subject.sink()
    assert again.open() == Checkpoint(2, "two; \u00e9")
    again.write(outgoing(subject.out, b"3"))
    again.write(outgoing(subject.small, b"beside"))
    again.commit(Checkpoint(3, ""))
    assert [row[2] for row in visible(subject, subject.out, 3)] == [b"1", b"2", b"3"]
    assert [row[2] for row in visible(subject, subject.small, 1)] == [b"beside"]
    assert subject.sink().open() == Checkpoint(3, "")


def test_records_without_a_key_go_where_they_are_told_and_others_by_their_key(subject: Subject) -> None:
    sink = subject.sink()
    sink.open()
    keys = [None, b"k", None]
    sink.write([Outgoing(subject.out, keys, [b"1", b"2", b"3"], 1_000, partitions=[2, 2, 1], headers=[None] * 3)])
    sink.commit()
    found = {row[2]: row[0] for row in visible(subject, subject.out, 3)}
    assert found == {b"1": 2, b"2": partition_of(b"k", PARTITIONS), b"3": 1}


def test_a_sink_that_another_one_has_taken_over_says_so_and_writes_nothing(subject: Subject) -> None:
    first, second = subject.sink(), subject.sink()
    first.open()
    first.write(outgoing(subject.out, b"void"))
    assert second.open() is None
    with pytest.raises(FencedError, match="somebody else writes"):
        first.commit(Checkpoint(1, ""))
    assert subject.rows(subject.out) == []


def test_after_a_write_that_failed_the_sink_is_opened_again_and_goes_on(subject: Subject) -> None:
    sink = subject.sink()
    sink.open()
    sink.write(outgoing(subject.out, b"1"))
    sink.commit(Checkpoint(1, ""))

    def write_too_much() -> None:
        sink.write(outgoing(subject.out, b"void"))
        sink.write(outgoing(subject.small, HUGE))
        sink.commit(Checkpoint(9, ""))

    with pytest.raises(WriteInterrupted):
        write_too_much()
    assert sink.open() == Checkpoint(1, "")
    sink.write(outgoing(subject.out, b"2"))
    sink.commit(Checkpoint(2, ""))
    assert [row[2] for row in visible(subject, subject.out, 2)] == [b"1", b"2"]


def test_a_commit_of_nothing_does_nothing(subject: Subject) -> None:
    sink = subject.sink()
    sink.open()
    sink.commit()
    assert subject.rows(subject.out) == []
