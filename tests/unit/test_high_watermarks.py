"""Questions for high watermarks: a leader that does not answer delays nobody else's."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from streams.settings import Settings
from streams.sources.kafka.high_watermarks import Futures, HighWatermarks


class Broker:
    """Answers when told to; a leader that is away makes the whole question fail late, for its own partition."""

    def __init__(self) -> None:
        self.asked: list[dict[TopicPartition, Future[Any]]] = []

    def listed(self, partitions: list[int]) -> Futures:
        self.asked.append({TopicPartition("t", partition): Future() for partition in partitions})
        return self.asked[-1]

    def questions(self) -> list[list[int]]:
        return [[at.partition for at in question] for question in self.asked]

    def answer(self, *, away: set[int], only: set[int] | None = None) -> None:
        for question in self.asked:
            if only is not None and {at.partition for at in question} - only:
                continue
            for at, future in question.items():
                if future.done():
                    continue
                if at.partition in away:
                    future.set_exception(KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE)))
                else:
                    future.set_result(SimpleNamespace(offset=100 + at.partition))


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def high(broker: Broker) -> HighWatermarks:
    one = HighWatermarks(Settings(), topics=("t",), client_id="tests")
    one._list = broker.listed
    return one


def test_an_answer_comes_with_the_time_of_its_question(high: HighWatermarks, broker: Broker) -> None:
    high.ask([0, 1], 5)
    assert [] == high.answers()
    broker.answer(away=set())
    assert [({0: 100, 1: 101}, 5)] == high.answers()
    assert [] == high.answers()


def test_what_has_not_been_answered_is_not_asked_again(high: HighWatermarks, broker: Broker) -> None:
    high.ask([0, 1], 5)
    high.ask([0, 1, 2], 6)
    assert [[0, 1], [2]] == broker.questions()


def test_a_partition_whose_leader_is_away_is_asked_for_by_itself_until_it_answers(
    high: HighWatermarks, broker: Broker
) -> None:
    high.ask([0, 1, 2], 1)
    broker.answer(away={1})
    assert [({0: 100, 2: 102}, 1)] == high.answers()
    high.ask([0, 1, 2], 2)
    assert [[0, 2], [1]] == broker.questions()[1:]
    broker.answer(away=set(), only={0, 2})
    assert [({0: 100, 2: 102}, 2)] == high.answers(), "it waits for nobody"
    broker.answer(away=set())
    assert [({1: 101}, 2)] == high.answers()
    high.ask([0, 1, 2], 3)
    assert [[0, 1, 2]] == broker.questions()[3:]


def test_where_nobody_answers_the_next_question_is_one_question(high: HighWatermarks, broker: Broker) -> None:
    high.ask([0, 1], 1)
    broker.answer(away={0, 1})
    assert [({}, 1)] == high.answers()
    high.ask([0, 1], 2)
    assert [[0, 1]] == broker.questions()[1:]
