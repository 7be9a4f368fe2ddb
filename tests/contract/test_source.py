"""One contract over the sources: the consumer of a Kafka topic, and its twin in memory."""

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from streams.avro.native import choose
from streams.batch.records import Records
from streams.kafka.admin import settled
from streams.kafka.memory import MemoryKafka, Transaction
from streams.kafka.native_client import NativeClients
from streams.local.stack import Stack
from streams.settings import load_settings
from streams.sources.base import Idle, Source
from streams.sources.kafka.intake import Intake
from streams.sources.memory import MemorySource

PARTITIONS = 2
IDLE_MS = 400
WAIT_S = 60.0


@dataclass
class Member:
    """A source, and what it has said and handed over so far."""

    source: Source = field(init=False)
    told: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    mine: set[int] = field(default_factory=set)
    membership: object | None = None
    lost_records: list[tuple[int, int, int]] = field(default_factory=list)
    batches: list[Records] = field(default_factory=list)
    idle: dict[int, Idle] = field(default_factory=dict)
    generation: int = 0

    def assigned(self, partitions: list[int]) -> None:
        self.told.append(("assigned", tuple(sorted(partitions))))
        self.mine |= set(partitions)

    def revoked(self, partitions: list[int]) -> None:
        self.told.append(("revoked", tuple(sorted(partitions))))
        self.mine -= set(partitions)

    def lost(self, partitions: list[int]) -> None:
        self.told.append(("lost", tuple(sorted(partitions))))
        self.mine -= set(partitions)

    def noted(self, membership: object | None) -> None:
        self.membership = membership

    def poll(self) -> None:
        records, self.idle, self.generation = self.source.poll()
        if records is not None:
            self.batches.append(records)

    def values(self, partition: int) -> list[bytes | None]:
        """What was handed over of a partition, in that order."""
        return [
            value
            for batch in self.batches
            for number, value in zip(batch.partition.tolist(), batch.value, strict=True)
            if number == partition
        ]


class KafkaSubject:
    """A topic and a group of its own on the real broker."""

    def __init__(self, stack: Stack, native: NativeClients | None = None) -> None:
        self._native = native
        self._settings = load_settings(kafka_bootstrap_servers=stack.bootstrap_servers, streams_idle_ms=IDLE_MS)
        self._name = f"contract-{uuid.uuid4().hex[:8]}"
        self._admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
        self._plain = Producer({"bootstrap.servers": stack.bootstrap_servers, "enable.idempotence": True})
        self._bootstrap = stack.bootstrap_servers
        for future in self._admin.create_topics([self._topic(PARTITIONS)]).values():
            settled("creating a topic", future)
        self._open: list[Member] = []

    def _topic(self, partitions: int) -> NewTopic:
        """Kept for ever: by their timestamps the broker would delete its records at its next look."""
        return NewTopic(self._name, partitions, 1, config={"retention.ms": "-1"})

    def member(self, name: str) -> Member:
        one = Member()
        one.source = Intake(
            self._settings, source=self._name, group=self._name, member=f"{self._name}-{name}", ownership=one,
            on_lost_records=lambda *lost: one.lost_records.append(lost), native=self._native,
        )  # fmt: skip
        self._open.append(one)
        return one

    def close(self, member: Member) -> None:
        self._open.remove(member)
        member.source.close()

    def produce(self, partition: int, *values: bytes, **more: Any) -> None:
        for value in values:
            self._plain.produce(self._name, value, b"key", partition, timestamp=1_700_000_000_000, **more)
        assert self._plain.flush(30) == 0

    def begin(self, partition: int, *values: bytes) -> Producer:
        name = f"{self._name}-{uuid.uuid4().hex[:8]}"
        producer = Producer({"bootstrap.servers": self._bootstrap, "transactional.id": name})
        producer.init_transactions(30)
        producer.begin_transaction()
        for value in values:
            producer.produce(self._name, value, b"key", partition)
        producer.flush(30)
        return producer

    def end(self, transaction: Any, *, commit: bool) -> None:
        if commit:
            transaction.commit_transaction(30)
        else:
            transaction.abort_transaction(30)

    def delete_before(self, partition: int, offset: int) -> None:
        for future in self._admin.delete_records([TopicPartition(self._name, partition, offset)]).values():
            settled("deleting records", future)

    def grow(self, partitions: int) -> None:
        for future in self._admin.create_partitions([NewPartitions(self._name, partitions)]).values():
            settled("adding partitions", future)

    def create_again(self, partitions: int) -> None:
        for future in self._admin.delete_topics([self._name]).values():
            settled("deleting a topic", future)
        while self._name in self._admin.list_topics(timeout=10).topics:
            time.sleep(0.05)
        for future in self._admin.create_topics([self._topic(partitions)]).values():
            settled("creating a topic", future)

    def finish(self) -> None:
        for member in self._open:
            member.source.close()
        for future in self._admin.delete_topics([self._name]).values():
            settled("deleting a topic", future)


class MemorySubject:
    """The twin."""

    def __init__(self) -> None:
        self._kafka = MemoryKafka(PARTITIONS)

    def member(self, name: str) -> Member:
        one = Member()
        one.source = MemorySource(
            self._kafka, topic="t", member=name, listener=one, idle_ms=IDLE_MS,
            on_lost_records=lambda *lost: one.lost_records.append(lost),
        )  # fmt: skip
        return one

    def close(self, member: Member) -> None:
        member.source.close()

    def produce(self, partition: int, *values: bytes, headers: Any = None) -> None:
        for value in values:
            self._kafka.append("t", partition, b"key", value, 1_700_000_000_000, headers)

    def begin(self, partition: int, *values: bytes) -> Transaction:
        transaction = Transaction(uuid.uuid4().hex)
        for value in values:
            self._kafka.append("t", partition, b"key", value, 1, None, transaction)
        return transaction

    def end(self, transaction: Any, *, commit: bool) -> None:
        self._kafka.end(transaction, "committed" if commit else "aborted")

    def delete_before(self, partition: int, offset: int) -> None:
        self._kafka.begin_offset["t", partition] = offset

    def finish(self) -> None:
        pass


Subject = KafkaSubject | MemorySubject


def _subject(name: str, request: pytest.FixtureRequest) -> Subject:
    if name == "memory":
        return MemorySubject()
    native = choose("on").native if name == "native" else None
    return KafkaSubject(request.getfixturevalue("stack"), NativeClients(native) if native is not None else None)


@pytest.fixture(
    params=[
        "memory",
        pytest.param("kafka", marks=pytest.mark.kafka),
        pytest.param("native", marks=(pytest.mark.kafka, pytest.mark.native)),
    ]
)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    made = _subject(request.param, request)
    yield made
    made.finish()


def poll_until(done: Callable[[], object], *members: Member) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline, [(one.told, one.batches, one.idle) for one in members]
        for member in members:
            member.poll()
        time.sleep(0.001)


def poll_for(seconds: float, *members: Member) -> None:
    until = time.monotonic() + seconds
    poll_until(lambda: time.monotonic() > until, *members)


def joined(subject: Subject, name: str = "a") -> Member:
    """The only member, with all partitions, none of them started."""
    one = subject.member(name)
    one.source.subscribe()
    poll_until(lambda: one.mine == {0, 1}, one)
    return one


def test_what_is_assigned_is_read_once_it_is_started_and_from_where_it_was_told(subject: Subject) -> None:
    subject.produce(0, b"a", b"b", b"c")
    one = joined(subject)
    poll_for(0.3, one)
    assert one.batches == []

    one.source.start(0, 1, (0, 3))
    poll_until(lambda: len(one.values(0)) == 2, one)
    assert one.values(0) == [b"b", b"c"]
    assert one.source.taken() == {0: 3}
    assert one.membership is not None


def test_each_partition_comes_in_log_order_with_keys_headers_and_timestamps(subject: Subject) -> None:
    subject.produce(0, *(b"%d" % n for n in range(50)))
    subject.produce(1, b"x", headers=[("name", b"\xff")])
    one = joined(subject)
    one.source.start(0, -1, (0, 50))
    one.source.start(1, -1, (0, 1))
    poll_until(lambda: len(one.values(0)) + len(one.values(1)) == 51, one)
    subject.produce(0, b"50")
    poll_until(lambda: len(one.values(0)) == 51, one)

    assert one.values(0) == [b"%d" % n for n in range(51)]
    found = Records.concat(one.batches)
    assert found.offset[found.partition == 0].tolist() == list(range(51))
    assert set(found.key) == {b"key"}
    assert set(found.timestamp_ms.tolist()) == {1_700_000_000_000}
    assert found.headers is not None
    (row,) = [row for row, number in enumerate(found.partition.tolist()) if number == 1]
    assert list(found.headers[row] or ()) == [("name", b"\xff")]


def test_records_of_an_open_transaction_hold_up_what_lies_after_them_and_aborted_ones_never_come(
    subject: Subject,
) -> None:
    subject.produce(0, b"before")
    aborted = subject.begin(0, b"aborted")
    committed = subject.begin(0, b"committed")
    subject.produce(0, b"after")
    one = joined(subject)
    one.source.start(0, 0, (0, 4))
    poll_until(lambda: one.values(0), one)
    subject.end(committed, commit=True)
    poll_for(0.5, one)
    assert one.values(0) == [b"before"]

    subject.end(aborted, commit=False)
    poll_until(lambda: len(one.values(0)) == 3, one)
    assert one.values(0) == [b"before", b"committed", b"after"]
    poll_until(lambda: one.source.positions() == {0: 6}, one)  # two markers


def test_a_partition_is_idle_at_the_true_end_of_its_log_and_not_before_an_open_transaction(subject: Subject) -> None:
    subject.produce(0, b"a")
    held_up = subject.begin(1, b"b")
    one = joined(subject)
    one.source.start(0, 0, (0, 1))
    one.source.start(1, 0, (0, 1))
    poll_until(lambda: 0 in one.idle and one.idle[0].until_ms - one.idle[0].since_ms >= IDLE_MS, one)
    assert one.idle.keys() == {0}

    subject.end(held_up, commit=True)
    poll_until(lambda: 1 in one.idle, one)
    assert one.values(1) == [b"b"]
    since_ms = one.idle[0].since_ms
    subject.produce(0, b"more")
    poll_until(lambda: one.values(0) == [b"a", b"more"] and one.idle.get(0, Idle(since_ms, 0)).since_ms > since_ms, one)


def test_a_paused_partition_gives_nothing_until_it_is_paused_no_more(subject: Subject) -> None:
    one = joined(subject)
    one.source.start(0, 0, (0, 0))
    one.source.start(1, 0, (0, 0))
    one.source.pause_only(frozenset({0}))
    one.poll()
    subject.produce(0, b"a")
    subject.produce(1, b"b")
    poll_until(lambda: one.values(1), one)
    poll_for(0.3, one)
    assert one.values(0) == []

    one.source.pause_only(frozenset())
    poll_until(lambda: one.values(0) == [b"a"], one)


def test_what_is_stopped_is_read_no_more_and_belongs_to_another_generation(subject: Subject) -> None:
    one = joined(subject)
    one.source.start(0, 0, (0, 0))
    one.source.start(1, 0, (0, 0))
    one.poll()
    one.source.stop([0], 7)
    poll_until(lambda: one.generation == 7, one)
    one.source.start_again(0, 0, 6)
    subject.produce(0, b"a")
    subject.produce(1, b"b")
    poll_until(lambda: one.values(1), one)
    poll_for(0.3, one)
    assert one.values(0) == []
    assert one.source.taken().keys() == {1}

    one.source.start(0, 0, (0, 1))
    poll_until(lambda: one.values(0) == [b"a"], one)
    one.source.start_again(0, 0, 7)
    poll_until(lambda: one.values(0) == [b"a", b"a"], one)


def test_records_that_were_deleted_unread_are_told_once(subject: Subject) -> None:
    subject.produce(0, *(b"%d" % n for n in range(6)))
    one = joined(subject)
    subject.delete_before(0, 4)
    for _ in range(2):
        one.source.start(0, 1, (4, 6))
        poll_until(lambda: one.values(0)[-1:] == [b"5"], one)
        one.batches.clear()
    assert one.lost_records == [(0, 1, 4)]


def test_a_start_after_the_end_of_the_log_reads_nothing_and_raises_suspicion(subject: Subject) -> None:
    subject.produce(0, b"a")
    one = joined(subject)
    assert not one.source.take_suspicion()
    one.source.start(0, 9, (0, 1))
    poll_for(0.3, one)
    assert one.batches == []
    assert one.source.take_beyond_end() == {0}
    assert one.source.take_suspicion()
    assert (one.source.take_beyond_end(), one.source.take_suspicion()) == (frozenset(), False)


def test_members_share_the_partitions_and_whoever_leaves_releases_them_first(subject: Subject) -> None:
    first = joined(subject, "a")
    second = subject.member("b")
    second.source.subscribe()
    poll_until(lambda: len(first.mine) == 1 and len(second.mine) == 1, first, second)
    assert first.mine | second.mine == {0, 1}
    (moved,) = second.mine
    assert ("revoked", (moved,)) in first.told

    mine, theirs = next(iter(first.mine)), moved
    for partition in (0, 1):
        subject.produce(partition, b"a")
    for member, partition in ((first, mine), (second, theirs)):
        member.source.start(partition, 0, (0, 1))
        member.source.start(1 - partition, 0, (0, 1))  # not its own: void
    poll_until(lambda: first.values(mine) and second.values(theirs), first, second)
    assert (first.values(theirs), second.values(mine)) == ([], [])

    subject.close(second)
    assert second.mine == set()
    poll_until(lambda: first.mine == {0, 1}, first)


@pytest.mark.kafka
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_new_partitions_are_divided_as_soon_as_members_have_looked_for_them(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """The client would compare its subscription with the topic when it next refreshes, which is after the test."""
    monkeypatch.setenv("KAFKA_CONFIG_TOPIC_METADATA_REFRESH_INTERVAL_MS", "600000")
    monkeypatch.setenv("STREAMS_GROUP_PROTOCOL", protocol)
    subject = KafkaSubject(stack)
    first, second = joined(subject, "a"), subject.member("b")
    second.source.subscribe()
    poll_until(lambda: len(first.mine) == 1 and len(second.mine) == 1, first, second)

    subject.grow(3 * PARTITIONS)
    for member in (first, second):
        assert isinstance(member.source, Intake)
        poll_until(partial(member.source.has_seen, 3 * PARTITIONS), first, second)

    poll_until(lambda: first.mine | second.mine == set(range(3 * PARTITIONS)), first, second)
    assert not first.mine & second.mine
    subject.finish()


@pytest.mark.kafka
def test_a_member_that_comes_back_to_a_topic_with_fewer_partitions_is_given_those_that_are_there(stack: Stack) -> None:
    """A static member is given what it had within its session: here four partitions, of which two are left."""
    subject = KafkaSubject(stack)
    subject.grow(2 * PARTITIONS)
    first = subject.member("a")
    first.source.subscribe()
    poll_until(lambda: first.mine == {0, 1, 2, 3}, first)
    subject.close(first)
    subject.create_again(PARTITIONS)

    again = subject.member("a")
    again.source.subscribe()
    poll_until(lambda: again.mine == {0, 1}, again)
    poll_for(3.0, again)
    assert again.mine == {0, 1}
    subject.finish()
