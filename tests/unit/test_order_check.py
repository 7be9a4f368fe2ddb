"""The oracle over the order flows: it agrees with what the engine makes, and finds what is wrong."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from confluent_kafka import Message

from loadtest.oracle.order_check import OrderReport, check_dispatch, check_tracking
from loadtest.oracle.read import Share, TopicReader
from logistics.flows.dispatch import flow as dispatch
from logistics.flows.tracking import flow as tracking
from streams.testing import FlowDriver
from streams.testing.driver import Record
from tests.unit.test_dispatch import history
from tests.unit.test_tracking import idle, random_logs


class Read:
    """A record as the client gives one."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def key(self) -> bytes | None:
        return self._record.key

    def value(self) -> bytes | None:
        return self._record.value

    def offset(self) -> int:
        return self._record.offset

    def partition(self) -> int:
        return self._record.partition

    def timestamp(self) -> tuple[int, int]:
        return 1, self._record.timestamp_ms


class DriverTopics(TopicReader):
    """The topics of a driver, without a broker."""

    def __init__(self, driver: FlowDriver) -> None:
        self._driver = driver
        self.without: set[tuple[str, int]] = set()
        """Topic and number of records that are left out."""
        self.twice: set[tuple[str, int]] = set()

    def partitions(self, _topic: str) -> int:
        return 2

    def batches(self, topic: str, partitions: Sequence[int]) -> Iterator[list[Message]]:
        found: list[Any] = [one for one in self._all(topic) if one.partition() in partitions]
        yield found

    def records(self, topic: str, share: Share | None = None) -> Iterator[Message]:
        assert share is None
        yield from self._all(topic)

    def _all(self, topic: str) -> Iterator[Any]:
        for number, record in enumerate(self._driver.read(topic)):
            name = (topic, number)
            if name not in self.without:
                yield Read(record)
            if name in self.twice:
                yield Read(record)


@pytest.fixture(scope="module")
def dispatched() -> FlowDriver:
    driver = FlowDriver(dispatch, partitions=2)
    driver.feed(*history())
    driver.advance("3h")
    return driver


@pytest.fixture(scope="module")
def followed() -> FlowDriver:
    orders, positions = random_logs(random.Random(3), 80)
    driver = FlowDriver(tracking, partitions=2)
    driver.feed(*orders, of="orders")
    driver.feed(*positions, of="positions")
    return idle(driver)


def verdict(driver: FlowDriver, topics: DriverTopics) -> OrderReport:
    check = check_dispatch if driver.flow is dispatch else check_tracking
    return check(topics, driver._registered.text_of, driver.flow.pipeline)


@pytest.mark.parametrize("name", ["dispatched", "followed"])
def test_it_agrees_with_the_engine(name: str, request: pytest.FixtureRequest) -> None:
    driver: FlowDriver = request.getfixturevalue(name)
    report = verdict(driver, DriverTopics(driver))
    assert report.ok, report.details
    assert report.rows.total() > 50


@pytest.mark.parametrize(
    ("name", "topic"),
    [
        ("dispatched", "orders.bound.v1"),
        ("dispatched", "orders.overdue.v1"),
        ("followed", "orders.tracking.v1"),
        ("followed", "deliveries.verified.v1"),
    ],
)
def test_it_finds_a_row_that_is_lost_or_there_twice(name: str, topic: str, request: pytest.FixtureRequest) -> None:
    driver: FlowDriver = request.getfixturevalue(name)
    topics = DriverTopics(driver)
    topics.without.add((topic, 3))
    lost = verdict(driver, topics)
    if topic == "orders.overdue.v1":  # a promise may pass later, a late delivery may not be missing
        topics.without |= {(topic, number) for number in range(100)}
        lost = verdict(driver, topics)
    assert lost.faults["lost"] >= 1, lost.details
    topics = DriverTopics(driver)
    topics.twice.add((topic, 3))
    twice = verdict(driver, topics)
    assert twice.faults["unexpected"] + twice.faults["duplicated"] == 1, twice.details


def test_it_finds_a_row_of_another_input(dispatched: FlowDriver, followed: FlowDriver) -> None:
    """An input record that the output knows nothing of."""
    topics = DriverTopics(followed)
    topics.without.add(("gps.positions.v1.clean", 20))
    assert not verdict(followed, topics).ok
    topics = DriverTopics(dispatched)
    topics.without.add(("orders.events.v1.clean", 20))
    assert not verdict(dispatched, topics).ok
