"""What comes from a real broker never reaches a terminal raw, and a broker may have an IPv6 address."""

import contextlib
import json
import re
import select
import socket
import threading
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import NewTopic

from streams.local.stack import Stack
from tests.integration.kafka_helpers import admin_of, run
from tests.integration.workers import wait_until

pytestmark = pytest.mark.kafka

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eslau"


@pytest.fixture
def evil_group(stack: Stack) -> str:
    """A consumer group whose name would act on a terminal, with one record read of two."""
    topic, group = f"edges-{uuid.uuid4().hex[:8]}", f"edges {EVIL} {uuid.uuid4().hex[:8]}"
    client = admin_of(stack)  # kept: what is asked of a client that is collected comes to nothing
    client.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "enable.idempotence": True})
    for _ in range(2):
        producer.produce(topic, b"x")
    producer.flush(30)
    consumer = Consumer({"bootstrap.servers": stack.bootstrap_servers, "group.id": group})
    wait_until(lambda: commits(consumer, topic), "the group's coordinator")
    consumer.close()
    return group


def commits(consumer: Consumer, topic: str) -> bool:
    """Commit offset 1; False while the broker is still making its topic of offsets."""
    try:
        consumer.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
    except KafkaException:
        return False
    return True


def test_the_name_of_a_group_does_not_act_on_a_terminal(stack: Stack, evil_group: str) -> None:
    shown = run(stack, "lag", "--for", "0.2")
    assert shown.returncode in {0, 100}, shown.stderr  # other groups may lag
    for text in (shown.stdout, shown.stderr):
        assert all(line.isprintable() for line in text.split("\n"))
    assert "edges \\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\u202eslau" in shown.stdout
    assert "1 record" in shown.stdout
    assert not re.search(r"(?<![\d,])1 records", shown.stdout)  # other groups of the stack may have 21 records
    named = json.loads(run(stack, "lag", "--for", "0.2", "--group", evil_group, "--format", "json").stdout)
    assert [evil_group] == [one["group"] for one in named["groups"]]


def test_a_group_that_is_not_there_is_named_harmlessly(stack: Stack) -> None:
    shown = run(stack, "lag", "--for", "0.2", "--group", f"nobody {EVIL}")
    assert 100 == shown.returncode
    assert all(line.isprintable() for line in (shown.stdout + shown.stderr).split("\n"))


def test_a_broker_is_reached_by_an_ipv6_address(stack: Stack) -> None:
    with relay(stack.kafka.port) as port:
        shown = run(stack, "topics", "list", KAFKA_BOOTSTRAP_SERVERS=f"[::1]:{port}")
    assert "gps.positions.v1" in shown.stdout
    assert shown.returncode in {0, 100}


@contextlib.contextmanager
def relay(target: int) -> Iterator[int]:
    """A port of `::1` that leads to a port of 127.0.0.1."""
    server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    ends = threading.Event()

    def carry(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", target)) as broker:
            while not ends.is_set():
                for readable in select.select([client, broker], [], [], 0.2)[0]:
                    data = readable.recv(65_536)
                    if not data:
                        return
                    (broker if readable is client else client).sendall(data)

    def accept() -> None:
        while not ends.is_set():
            if select.select([server], [], [], 0.2)[0]:
                threading.Thread(target=carry, args=(server.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        ends.set()
        thread.join()
        server.close()
