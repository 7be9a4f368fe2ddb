"""Intake: what comes out of one consumer call."""

import time
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, Message, TopicPartition

from streams.kafka.intake import Intake
from streams.settings import Settings

EOF = KafkaError(KafkaError._PARTITION_EOF)


class _Nobody:
    def assigned(self, partitions: list[int]) -> None: ...
    def revoked(self, partitions: list[int]) -> None: ...
    def lost(self, partitions: list[int]) -> None: ...
    def noted(self, membership: object | None) -> None: ...


@pytest.fixture
def intake() -> Intake:
    one = Intake(Settings(), source="t", group="g", member="m", ownership=_Nobody())
    one._started = {0: 0, 1: 10}
    return one


def record(partition: int, offset: int) -> Message:
    return Message(topic="t", partition=partition, offset=offset, key=b"k", value=b"v", timestamp=(1, 1_000))


def end(partition: int, offset: int) -> Message:
    return Message(topic="t", partition=partition, offset=offset, error=EOF)


def test_a_partition_whose_end_comes_with_its_last_records_is_at_its_end(intake: Intake) -> None:
    intake._records([record(0, 0), record(0, 1), end(0, 2), record(1, 10)])
    assert {0} == intake._at_end_since_ms.keys()


def test_an_end_behind_transaction_markers_counts(intake: Intake) -> None:
    intake._records([record(0, 0), end(0, 3)])
    assert {0} == intake._at_end_since_ms.keys()


def test_an_end_that_newer_records_have_passed_does_not_count(intake: Intake) -> None:
    intake._records([end(1, 11), record(1, 10), record(1, 11), record(1, 12)])
    assert not intake._at_end_since_ms


def test_new_records_end_the_idleness_and_its_clock_is_not_restarted_by_further_ends(intake: Intake) -> None:
    intake._records([end(0, 0)])
    since = intake._at_end_since_ms[0]
    intake._records([end(0, 0)])
    assert since == intake._at_end_since_ms[0]
    intake._records([record(0, 0)])
    assert not intake._at_end_since_ms


def test_records_of_before_a_seek_or_of_partitions_not_started_are_void(intake: Intake) -> None:
    records = intake._records([record(1, 8), record(1, 9), record(1, 10), record(2, 0)])
    assert records is not None
    assert [10] == records.offset.tolist()
    assert intake._records([record(2, 1)]) is None


# --- commands of other threads ----------------------------------------------------------------------------------------


@pytest.fixture
def assigned(intake: Intake) -> Intake:
    """A real consumer of partition 1; it is thought to have 0 and 1, so it refuses to seek in 0."""
    intake._started = {}
    intake._assigned = {0, 1}
    intake.consumer.assign([TopicPartition("t", 1, 0)])
    return intake


def obey_until(intake: Intake, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        intake._obey()
        time.sleep(0.01)


def test_a_partition_that_cannot_be_started_holds_up_no_other(assigned: Intake) -> None:
    assigned.start(0, 5, (0, 9))
    assigned.start(1, 7, (0, 9))
    obey_until(assigned, lambda: 1 in assigned._started)
    assert {1: 7} == assigned._started
    assert [{0}] == [command.partitions for command in assigned._pending]


def test_a_start_that_failed_is_tried_again_by_itself(assigned: Intake) -> None:
    assigned.start(0, 5, (0, 9))
    assigned._obey()
    assert not assigned._started
    assigned.consumer.assign([TopicPartition("t", 0, 0), TopicPartition("t", 1, 0)])
    obey_until(assigned, lambda: bool(assigned._started))
    assert {0: 5} == assigned._started
    assert not assigned._pending


@pytest.mark.parametrize("later", ["stop", "start", "revoked"])
def test_a_start_that_waits_is_void_once_its_partition_is_stopped_started_or_revoked(
    assigned: Intake, later: str
) -> None:
    assigned.start(0, 5, (0, 9))
    assigned._obey()
    assert assigned._pending
    if later == "stop":
        assigned.stop([0, 1], 1)
    elif later == "start":
        assigned.start(0, 6, (0, 9))
    else:
        assigned._forget([0])
    assigned._assigned.add(0)  # and assigned once more
    assigned.consumer.assign([TopicPartition("t", 0, 0), TopicPartition("t", 1, 0)])
    obey_until(assigned, lambda: not assigned._pending and assigned._commands.empty())
    assert ({0: 6} if later == "start" else {}) == assigned._started


def test_a_start_that_was_asked_for_before_a_revocation_is_void_after_it(assigned: Intake) -> None:
    assigned.start(1, 7, (0, 9))
    assigned._forget([1])
    assigned._assigned.add(1)
    assigned._obey()
    assert not assigned._started
