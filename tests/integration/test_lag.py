"""Lag on a real broker: what counts as lag, how old it is, and what is said of it."""

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions, NewTopic

from logistics.flows.gps import GPS
from streams.flow.declaration import Pipeline
from streams.kafka.offsets_process import OffsetProbe, RoundFailed
from streams.kafka.topics import apply_topics
from streams.local.stack import Stack
from streams.monitor.evaluator import LagEvaluator
from streams.monitor.group_lag import GroupLag
from streams.monitor.policies import GroupPolicies
from streams.monitor.policy import Policy
from streams.monitor.reasons import Reason
from streams.monitor.status import Status
from streams.state.journal import JournalEntry, Position, pack
from tests.integration.kafka_helpers import admin_of, delete_topics, run, settings_of
from tests.integration.workers import wait_until

pytestmark = pytest.mark.kafka

_NOT_YET = {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE}
HASTY = Policy(tiny_s=0.2, nobody_s=0.4, still_s=1.0, growth_s=1.0, seldom_s=1.0)


@pytest.fixture(scope="module", autouse=True)
def _groups_end_with_this_file(stack: Stack) -> Iterator[None]:
    """Pages of the monitor show every group that there is, the worst one first: other files expect their own."""
    yield
    client = admin_of(stack)
    left = [group.group_id for group in client.list_consumer_groups().result().valid if group.group_id[:3] == "lag"]
    for future in client.delete_consumer_groups(left).values() if left else ():
        future.result(30)


@dataclass
class Topic:
    """A topic and a group of its own."""

    stack: Stack
    partitions: int = 2
    name: str = field(default_factory=lambda: f"lag-{uuid.uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        self.group = f"{self.name}-group"
        client = admin_of(self.stack)  # kept: what is asked of a client that is collected comes to nothing
        client.create_topics([NewTopic(self.name, self.partitions, 1)])[self.name].result(30)

    def produce(
        self, count: int, *, partition: int = 0, age_s: float = 0.0, transactional: bool = False, abort: bool = False
    ) -> None:
        config = {"bootstrap.servers": self.stack.bootstrap_servers}
        producer = Producer({**config, **({"transactional.id": self.name} if transactional else {})})
        if transactional:
            producer.init_transactions(30)
            producer.begin_transaction()
        for number in range(count):
            producer.produce(
                self.name, b"%d" % number, partition=partition, timestamp=int((time.time() - age_s) * 1000)
            )
        if abort:
            producer.flush(30)
            producer.abort_transaction(30)
        elif transactional:
            producer.commit_transaction(30)
        producer.flush(30)

    def consumer(self) -> Consumer:
        return Consumer(
            {"bootstrap.servers": self.stack.bootstrap_servers, "group.id": self.group, "enable.auto.commit": False,
             "auto.offset.reset": "earliest", "isolation.level": "read_committed"}
        )  # fmt: skip

    def commit(self, offset: int, partition: int = 0) -> None:
        consumer = self.consumer()
        commit(consumer, TopicPartition(self.name, partition, offset))
        consumer.close()


def commit(consumer: Consumer, position: TopicPartition) -> None:
    def committed() -> bool:
        try:
            consumer.commit(offsets=[position], asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() in _NOT_YET:
                return False
            raise
        return True

    wait_until(committed, "the coordinator of a broker that has just been started is there")


@pytest.fixture
def topic(stack: Stack) -> Topic:
    return Topic(stack)


@pytest.fixture
def evaluator(stack: Stack) -> Iterator[LagEvaluator]:
    with LagEvaluator(settings_of(stack), window_s=10, interval_s=0.2, policies=GroupPolicies(default=HASTY)) as made:
        wait_until(lambda: _look(made, []) is not None, "the first round")
        yield made


def _look(evaluator: LagEvaluator, groups: list[str]) -> dict[str, GroupLag] | None:
    try:
        return evaluator.look(groups)[1]
    except RoundFailed:
        return None


def seen(evaluator: LagEvaluator, topic: Topic, status: Status, *, timeout_s: float = 30.0) -> GroupLag:
    """The group, as soon as its worst partition has this status."""

    def looked() -> GroupLag | None:
        found = (_look(evaluator, [topic.group]) or {}).get(topic.group)
        time.sleep(0.1)
        return found if found is not None and found.verdicts.status.max() == status else None

    return wait_until(looked, f"{topic.group} is {status.name}", timeout_s=timeout_s)


def test_transaction_markers_are_no_lag(evaluator: LagEvaluator, topic: Topic) -> None:
    for _ in range(3):
        topic.produce(5, transactional=True)
    consumer = topic.consumer()
    consumer.assign([TopicPartition(topic.name, 0, 0)])
    read = [message for message in consumer.consume(15, 20) if message.error() is None]
    read_to = int(read[-1].offset() or 0) + 1
    consumer.commit(offsets=[TopicPartition(topic.name, 0, read_to)], asynchronous=False)
    consumer.close()

    group = seen(evaluator, topic, Status.OK)

    assert 15 == len(read)
    assert read_to < group.end[0], "the last marker is behind the last record"
    assert (0, Reason.DRAINED) == (group.lag_sum, group.verdicts.reason[0])


def test_what_an_open_transaction_holds_is_no_lag(evaluator: LagEvaluator, topic: Topic) -> None:
    topic.produce(5)
    topic.commit(5)
    producer = Producer({"bootstrap.servers": topic.stack.bootstrap_servers, "transactional.id": topic.name})
    producer.init_transactions(30)
    producer.begin_transaction()
    for _ in range(50):
        producer.produce(topic.name, b"open", partition=0)
    producer.flush(30)

    group = seen(evaluator, topic, Status.OK)

    assert 0 == group.lag_sum
    producer.commit_transaction(30)
    assert 50 <= seen(evaluator, topic, Status.STOP).lag_sum <= 51


def test_a_transaction_within_the_timeout_of_producers_is_mentioned_and_no_trouble(
    evaluator: LagEvaluator, topic: Topic
) -> None:
    topic.produce(5)
    topic.commit(5)
    producer = Producer({"bootstrap.servers": topic.stack.bootstrap_servers, "transactional.id": topic.name})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic.name, b"open", partition=0, timestamp=int((time.time() - 12) * 1000))
    producer.flush(30)
    said: list[GroupLag] = []

    def is_mentioned() -> bool:
        _, groups = evaluator.look([topic.group])
        said.append(groups[topic.group])
        return "cannot be read yet" in said[-1].why(0)

    wait_until(is_mentioned, "the transaction is mentioned", timeout_s=30)

    assert {Status.OK} == {one.status for one in said}
    assert said[-1].why(0).startswith("everything readable is read: 1 record after an open transaction")
    assert 12 <= said[-1].window.open_s[0] < 60
    producer.abort_transaction(30)


def test_an_open_transaction_that_lasts_is_a_reason_of_its_own(evaluator: LagEvaluator, topic: Topic) -> None:
    """Its first record tells since when, so that one look of a few seconds is enough."""
    topic.produce(5)
    topic.commit(5)
    producer = Producer({"bootstrap.servers": topic.stack.bootstrap_servers, "transactional.id": topic.name})
    producer.init_transactions(30)
    producer.begin_transaction()
    minutes_ago_ms = int((time.time() - 180) * 1000)
    for _ in range(50):
        producer.produce(topic.name, b"open", partition=0, timestamp=minutes_ago_ms)
    producer.flush(30)
    topic.produce(3)

    group = seen(evaluator, topic, Status.WARN)

    assert (0, Reason.OPEN_TRANSACTION) == (group.lag_sum, group.verdicts.reason[0])
    assert "53 records after an open transaction cannot be read yet; it has been open since 2" in group.why(0)
    assert 180 <= group.window.open_s[0] <= 300
    assert Reason.OPEN_TRANSACTION != group.verdicts.reason[1], "another partition"
    producer.abort_transaction(30)
    assert 3 <= seen(evaluator, topic, Status.STOP).lag_sum <= 54


def test_lag_in_seconds_is_the_age_of_the_first_record_that_is_not_committed(
    evaluator: LagEvaluator, topic: Topic
) -> None:
    for age_s in (500, 400, 300):
        topic.produce(100, age_s=age_s)
    topic.commit(100)

    group = seen(evaluator, topic, Status.STOP)

    assert 200 == group.lag_sum
    assert 400 <= group.lag_s_max <= 430
    assert not group.lag_s_is_bound[0]
    assert "no member of the group has this partition" in group.why(0)


def test_a_member_that_does_not_get_on_is_a_stall_and_not_a_stop(evaluator: LagEvaluator, topic: Topic) -> None:
    topic.produce(10)
    topic.commit(1)
    consumer = topic.consumer()
    consumer.subscribe([topic.name])
    wait_until(lambda: consumer.poll(0.2) is not None and consumer.assignment(), "it has joined")

    group = seen(evaluator, topic, Status.STALL)

    assert Reason.NO_PROGRESS == group.verdicts.reason[0]
    assert group.owners[0].startswith("rdkafka")
    consumer.close()
    assert Reason.NOBODY_READS == seen(evaluator, topic, Status.STOP).verdicts.reason[0]


def test_offsets_that_are_reset_are_a_rewind_until_they_are_regained(evaluator: LagEvaluator, topic: Topic) -> None:
    topic.produce(20)
    topic.commit(20)
    seen(evaluator, topic, Status.OK)
    topic.commit(5)

    assert 15 == seen(evaluator, topic, Status.REWIND).verdicts.back_by[0]
    topic.commit(20)
    seen(evaluator, topic, Status.OK)


def test_records_deleted_unread_are_an_error(evaluator: LagEvaluator, topic: Topic) -> None:
    topic.produce(20)
    topic.commit(5)
    at = TopicPartition(topic.name, 0, 20)
    client = admin_of(topic.stack)
    client.delete_records([at])[at].result(30)

    group = seen(evaluator, topic, Status.ERR)

    assert "15 records deleted unread" == group.why(0)
    assert Status.ERR == group.status


def test_a_position_behind_the_end_is_an_error(evaluator: LagEvaluator, topic: Topic) -> None:
    topic.produce(3)
    topic.commit(1_000)

    assert "997 records past the end" in seen(evaluator, topic, Status.ERR).why(0)


def test_rounds_go_on_when_the_process_that_takes_them_dies(evaluator: LagEvaluator, topic: Topic) -> None:
    topic.produce(3)
    topic.commit(3)
    process = evaluator.probe._process
    assert process is not None
    process.send_signal(signal.SIGABRT)
    process.wait(10)

    with pytest.raises(RoundFailed, match="died"):
        evaluator.look([topic.group])
    assert 1 == evaluator.probe.deaths
    seen(evaluator, topic, Status.OK)


def test_rounds_go_on_when_the_broker_was_away(evaluator: LagEvaluator, topic: Topic) -> None:
    """Restarted and frozen with requests in flight: what the client aborts its process for."""
    topic.produce(3)
    topic.commit(3)
    seen(evaluator, topic, Status.OK)
    pid = topic.stack.kafka_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(1.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    seen(evaluator, topic, Status.OK)
    topic.stack.restart_kafka(signal.SIGKILL)

    seen(evaluator, topic, Status.OK, timeout_s=60)


def test_the_process_that_takes_rounds_ends_with_whoever_asked(stack: Stack) -> None:
    probe = OffsetProbe(settings_of(stack))
    probe.take([])
    process = probe._process
    assert process is not None
    assert process.stdin is not None

    process.stdin.close()

    assert 0 == process.wait(10)
    probe.close()


def test_groups_that_hold_the_progress_of_ingest_are_none(stack: Stack, topic: Topic) -> None:
    topic.produce(3)
    topic.commit(1)
    topic.group = f"streams.ingest.{topic.name}"
    topic.commit(1)

    with OffsetProbe(settings_of(stack)) as probe:
        names = {group.name for group in probe.take().groups}

    assert f"{topic.name}-group" in names
    assert topic.group not in names


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_what_is_wrong_and_what_to_do(stack: Stack, topic: Topic) -> None:
    topic.produce(10, age_s=100)
    topic.commit(4)

    done = run(stack, "lag", "--group", topic.group, "--for", "1.5", "--interval", "0.5")

    assert 100 == done.returncode, done.stderr
    assert f"{topic.name}-0" in done.stdout
    assert "no member of the group has this partition" in done.stdout
    assert "-> start a worker" in done.stdout
    assert f"streams: not OK: {topic.group}" in done.stderr


def test_the_command_is_content_with_a_group_that_has_read_all(stack: Stack, topic: Topic) -> None:
    topic.produce(10)
    topic.commit(10)

    done = run(stack, "lag", "--group", topic.group, "--for", "0", "--format", "json")

    assert 0 == done.returncode, done.stderr
    (group,) = json.loads(done.stdout)["groups"]
    assert (topic.group, "OK", 0) == (group["group"], group["status"], group["lag"])
    # Partition 1 is empty and was never committed: there is nothing to do, and that is all right.
    assert [("OK", "drained"), ("OK", "nothing_committed")] == [
        (row["status"], row["reason"]) for row in group["partitions"]
    ]


@pytest.mark.parametrize("aborted", [0, 50])
def test_a_drained_group_on_a_transactional_topic_has_no_lag_at_the_first_look(
    stack: Stack, topic: Topic, aborted: int
) -> None:
    """The broker names the offset of the last marker when it is asked for the newest timestamp of a log."""
    topic.produce(5, transactional=True)
    if aborted:
        topic.produce(aborted, transactional=True, abort=True)
    topic.commit(5)

    done = run(stack, "lag", "--group", topic.group, "--for", "0", "--format", "json")

    (group,) = json.loads(done.stdout)["groups"]
    row = group["partitions"][0]
    assert 0 == done.returncode, row
    assert (0, 0, "OK", "drained") == (group["lag"], row["lag"], row["status"], row["reason"])
    assert row["end"] > row["offset"], "markers are behind it"


def test_what_is_aborted_while_the_group_is_watched_is_no_lag(evaluator: LagEvaluator, topic: Topic) -> None:
    topic.produce(5, transactional=True)
    topic.commit(5)
    assert 0 == seen(evaluator, topic, Status.OK).lag_sum

    topic.produce(100, transactional=True, abort=True)
    time.sleep(HASTY.still_s)

    group = seen(evaluator, topic, Status.OK)
    assert (0, Reason.DRAINED) == (group.lag_sum, group.verdicts.reason[0])


def test_a_topic_that_a_living_group_has_left_is_no_outage(stack: Stack, topic: Topic) -> None:
    topic.produce(10, age_s=100)
    topic.commit(4)
    other = Topic(stack, partitions=1)
    other.group = topic.group
    consumer = other.consumer()
    consumer.subscribe([other.name])
    try:
        wait_until(lambda: consumer.poll(0.1) is not None or consumer.assignment(), "the other topic is assigned")
        done = run(stack, "lag", "--group", topic.group, "--for", "0", "--format", "json")
    finally:
        consumer.close()

    assert 0 == done.returncode, done.stdout
    (group,) = json.loads(done.stdout)["groups"]
    rows = {(row["topic"], row["partition"]): row for row in group["partitions"]}
    left = rows[topic.name, 0]
    assert ("OK", "left_topic", 6) == (left["status"], left["reason"], left["lag"])
    assert "no member is subscribed to this one any more" in left["why"]
    assert "--delete-offsets" in left["advice"]
    assert (0, 0.0) == (group["lag"], group["lag_seconds"]), "it counts for nothing in the sums"


def test_a_group_that_is_not_there_is_not_found(stack: Stack) -> None:
    done = run(stack, "lag", "--group", "no-such-group", "--for", "0", "--format", "json")

    assert 100 == done.returncode
    assert [{"group": "no-such-group", "status": "NOTFOUND", "partitions": []}] == json.loads(done.stdout)["groups"]
    assert "no such consumer group" in done.stderr


def test_a_partition_without_a_place_and_a_topic_that_is_gone_are_named_of_a_declared_flow(stack: Stack) -> None:
    prefix = f"lag{uuid.uuid4().hex[:8]}."
    flow = GPS.with_prefix(prefix)
    client = admin_of(stack)
    apply_topics(client, [flow], partitions=2)
    consumer = Consumer({"bootstrap.servers": stack.bootstrap_servers, "group.id": flow.group})
    commit(consumer, TopicPartition(flow.source, 0, 0))
    consumer.close()
    client.create_partitions([NewPartitions(flow.source, 3)])[flow.source].result(30)
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "enable.idempotence": True})
    wait_until(lambda: len(producer.list_topics(flow.source).topics[flow.source].partitions) == 3, "it has 3")
    producer.produce(flow.source, b"x", partition=2)
    assert producer.flush(30) == 0

    def asked() -> tuple[int, Any, str]:
        done = run(stack, "lag", "--group", flow.group, "--for", "0", "--format", "json", STREAMS_TOPIC_PREFIX=prefix)
        return done.returncode, json.loads(done.stdout), done.stderr

    code, told, _ = asked()
    assert (100, []) == (code, told["missing_topics"])
    last = told["groups"][0]["partitions"][2]
    assert ("STALL", "not_in_layout") == (last["status"], last["reason"])

    delete_topics(client, {flow.source})
    code, told, said = asked()
    assert [(flow.source, flow.group)] == [(one["topic"], one["group"]) for one in told["missing_topics"]]
    assert (100, True) == (code, f"missing: {flow.source}" in said)
    text = run(stack, "lag", "--group", flow.group, "--for", "0", STREAMS_TOPIC_PREFIX=prefix).stdout
    assert f"{flow.source}  MISSING  ({flow.group}) the topic does not exist" in text
    assert "-> `streams topics apply` creates it" in text


@pytest.mark.slow  # it waits for ten seconds, as any command does
def test_without_a_broker_the_command_says_so_in_one_line(stack: Stack) -> None:
    done = run(stack, "lag", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")

    assert 1 == done.returncode
    assert done.stderr.startswith("streams: no Kafka broker answers at 127.0.0.1:1")
    assert 1 == len(done.stderr.splitlines())


@pytest.fixture
def foreign(stack: Stack) -> Pipeline:
    """A flow of three partitions whose state stands at 40, while the group's offsets were set to 0 by something else.

    Journals as they are under load, after cycles that failed again and again, and with a cycle in many parts.
    """
    flow = GPS.with_prefix(f"lag{uuid.uuid4().hex[:8]}.")
    apply_topics(admin_of(stack), [flow], partitions=3)
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "transactional.id": flow.journal})
    producer.init_transactions(30)

    def cycle(partition: int, *pieces: bytes, abort: bool = False) -> None:
        entry = JournalEntry(cycle=1, event_time_max=0, positions={flow.source: Position(40, 0)})
        producer.begin_transaction()
        for record in pack(entry, {"ids": pieces}, record_bytes_max=1):
            producer.produce(flow.journal, record, partition=partition)
        if abort:
            producer.flush(30)  # aborted records that never left the client would leave nothing in the log
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)

    for _ in range(32):
        cycle(0, os.urandom(300_000))
    cycle(1, b"small")
    for _ in range(40):
        cycle(1, b"small", abort=True)
    cycle(2, *[b"small"] * 100)
    source = Producer({"bootstrap.servers": stack.bootstrap_servers, "enable.idempotence": True})
    for number in range(120):
        source.produce(flow.source, b"event", partition=number % 3)
    source.flush(30)
    with closing(Consumer({"bootstrap.servers": stack.bootstrap_servers, "group.id": flow.group})) as consumer:
        for partition in range(3):
            commit(consumer, TopicPartition(flow.source, partition, 0))
    return flow


def test_every_partition_whose_offset_something_else_has_set_is_named_by_one_look(
    stack: Stack, foreign: Pipeline
) -> None:
    with LagEvaluator(
        settings_of(stack), window_s=10, interval_s=0.2, policies=GroupPolicies(default=HASTY), flows=[foreign]
    ) as made:
        groups = wait_until(lambda: _look(made, [foreign.group]), "a round")

    group = groups[foreign.group]
    assert [Reason.OFFSET_NOT_OF_STATE] * 3 == list(group.verdicts.reason)
    assert all("the flow's state stands at 40" in group.why(row) for row in range(3))
