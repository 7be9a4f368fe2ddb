"""Records given to a client one by one and a batch at a time: as many are taken, and the next is refused likewise."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer

from streams.batch.columns import Headers
from streams.kafka.native_client import native_clients
from streams.settings import Settings
from streams.sinks.base import TopicRecords
from streams.sinks.kafka.produce import QUEUE_FULL, Gives, GivesBatch, GivesEach

Open = Callable[..., tuple[Producer, Gives]]


def opened_in_python(**config: Any) -> tuple[Producer, Gives]:
    producer = Producer(_config(config))
    return producer, GivesEach(producer)


def opened_natively(**config: Any) -> tuple[Producer, Gives]:
    clients = native_clients("on")
    assert clients is not None
    producer, native = clients.producer(Settings(), _config(config))
    assert native is not None
    return producer, GivesBatch(native)


def _config(more: dict[str, Any]) -> dict[str, Any]:
    """Of a client that never has a broker: what it takes stays in its queue."""
    return {
        "bootstrap.servers": "127.0.0.1:1",
        "log_level": 0,
        **{name.replace("_", "."): at for name, at in more.items()},
    }


@pytest.fixture(params=[opened_in_python, pytest.param(opened_natively, marks=pytest.mark.native)])
def opened(request: pytest.FixtureRequest) -> Open:
    found: Open = request.param
    return found


def records(count: int, *, headers: list[Headers | None] | None = None, partition: int | None = None) -> TopicRecords:
    values: list[bytes | None] = [b"value %d" % row for row in range(count)]
    return TopicRecords("t", [b"k"] * count, values, [1_000] * count, headers, partition)


def messages_in(producer: Producer) -> int:
    """Messages that wait in a client: its length counts errors of the connection too, until these are served."""
    found = []
    for _ in range(20):
        producer.poll(0)
        found.append(len(producer))
    return min(found)


def test_a_full_queue_says_how_many_were_taken_and_the_rest_is_given_later(opened: Open) -> None:
    producer, give = opened(queue_buffering_max_messages=10)
    taken, error = give(records(7), 0)
    assert (taken, error) == (7, None)
    taken, error = give(records(7), 2)
    assert taken == 3
    assert error is not None
    assert error.code() == QUEUE_FULL
    producer.purge()
    assert producer.flush(60) == 0
    assert give(records(7), 5) == (2, None)
    assert messages_in(producer) == 2
    assert give(records(7), 7) == (0, None)
    producer.purge()


@pytest.mark.parametrize("with_headers", [False, True])
def test_a_record_that_the_client_itself_refuses_is_told_by_its_row(opened: Open, *, with_headers: bool) -> None:
    producer, give = opened(message_max_bytes=1_000)
    keys: list[bytes | None] = [b"a", None, b"", b"k", b"k"]
    values: list[bytes | None] = [None, b"", b"1", bytes(2_000), b"2"]
    headers: list[Headers | None] | None = [[("a", b"1"), ("b", None)], None, [], None, None] if with_headers else None
    taken, error = give(TopicRecords("t", keys, values, [0, 1, 2, 3, 4], headers), 1)
    assert taken == 2
    assert error is not None
    assert (error.code(), error.str()) == (
        KafkaError.MSG_SIZE_TOO_LARGE,
        "Unable to produce message: Broker: Message size too large",
    )
    assert [error.retriable(), error.fatal(), error.txn_requires_abort()] == [False] * 3
    producer.purge()


def test_a_topic_that_can_have_no_such_name_is_refused(opened: Open) -> None:
    _, give = opened()
    taken, error = give(TopicRecords("t" * 600, [b"k"], [b"v"], [1]), 0)
    assert taken == 0
    assert error is not None
    assert error.code() == KafkaError._INVALID_ARG


@pytest.mark.parametrize(
    "columns",
    [
        TopicRecords("t", [b"k"], [], [1]),
        TopicRecords("t", [b"k"], [b"v"], []),
        TopicRecords("t", [b"k"], [b"v"], [1], []),
    ],
    ids=["values", "times", "headers"],
)
def test_columns_of_different_lengths_are_a_mistake(opened: Open, columns: TopicRecords) -> None:
    producer, give = opened()
    with pytest.raises(ValueError, match=r"length|shorter|longer"):
        give(columns, 0)
    producer.purge()


@pytest.mark.native
def test_what_gives_natively_keeps_its_producer() -> None:
    _, give = opened_natively()
    assert give(records(3), 0) == (3, None)


@pytest.mark.native
def test_what_is_no_bytes_object_is_refused_before_anything_is_given() -> None:
    producer, give = opened_natively(queue_buffering_max_messages=1)
    odd: Any = [b"v", "text"]
    with pytest.raises(ValueError, match="neither bytes nor None"):
        give(TopicRecords("t", [b"k", b"k"], odd, [1, 1]), 0)
    assert give(records(1), 0) == (1, None)
    producer.purge()
