"""Intake: what comes out of one consumer call."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from confluent_kafka import KafkaError, Message, TopicPartition

from streams.batch.records import Records
from streams.limits import BATCH_RECORDS_MAX, BATCH_WAIT_MS, BATCH_WAIT_MS_MIN, QUIET_WAIT_MS, SPARE_AFTER_MS
from streams.settings import Settings
from streams.sources.kafka.arrivals import FromMessages, Notice, records_of_next
from streams.sources.kafka.intake import Intake
from streams.sources.lost import LostRecords

EOF = KafkaError(KafkaError._PARTITION_EOF)
OUT_OF_RANGE = KafkaError(KafkaError._AUTO_OFFSET_RESET)


class _Nobody:
    def assigned(self, partitions: list[int]) -> None: ...
    def revoked(self, partitions: list[int]) -> None: ...
    def lost(self, partitions: list[int]) -> None: ...
    def noted(self, membership: object | None) -> None: ...


@pytest.fixture
def intake() -> Intake:
    one = Intake(Settings(), source="t", group="g", member="m", ownership=_Nobody())
    one._consumed.started = {0: 0, 1: 10}
    return one


def record(partition: int, offset: int) -> Message:
    return Message(topic="t", partition=partition, offset=offset, key=b"k", value=b"v", timestamp=(1, 1_000))


def end(partition: int, offset: int) -> Message:
    return Message(topic="t", partition=partition, offset=offset, error=EOF)


def received(intake: Intake, *messages: Message) -> Records | None:
    return intake._received(FromMessages(list(messages), {"t": 0}))


def asked(intake: Intake) -> list[int]:
    """Partitions whose true end would be asked for a while from now."""
    return intake._consumed.idle.due(int(time.monotonic() * 1000) + 60_000)


def test_a_partition_whose_end_comes_with_its_last_records_may_be_idle(intake: Intake) -> None:
    received(intake, record(0, 0), record(0, 1), end(0, 2), record(1, 10))
    assert [0] == asked(intake)


@pytest.mark.parametrize(
    ("interval_ms", "gathers_ms"), [(200, BATCH_WAIT_MS), (1_000, BATCH_WAIT_MS), (50, 50), (1, BATCH_WAIT_MS_MIN)]
)
def test_records_of_a_live_stream_are_gathered_for_about_a_commit_cycle(
    monkeypatch: pytest.MonkeyPatch, interval_ms: int, gathers_ms: int
) -> None:
    settings = Settings(streams_commit_interval_ms=interval_ms)
    intake = Intake(settings, source="t", group="g", member="m", ownership=_Nobody())
    intake._consumed.started = {0: 0}
    waits: list[int] = []
    arriving: list[list[Message]] = [[], [record(0, 0)], [record(0, 1)], [], []]

    def consumed() -> list[FromMessages]:
        waits.append(intake._wait_ms)
        messages = arriving[len(waits) - 1]
        return [FromMessages(messages, {"t": 0})] if messages else []

    monkeypatch.setattr(intake, "_consumed_in_python", consumed)
    for _ in arriving:
        intake.poll()
    assert waits == [QUIET_WAIT_MS, QUIET_WAIT_MS, gathers_ms, gathers_ms, QUIET_WAIT_MS]


def test_an_end_that_lies_after_transaction_markers_counts(intake: Intake) -> None:
    received(intake, record(0, 0), end(0, 3))
    assert [0] == asked(intake)


def test_an_end_that_newer_records_have_passed_does_not_count(intake: Intake) -> None:
    received(intake, end(1, 11), record(1, 10), record(1, 11), record(1, 12))
    assert [] == asked(intake)


def test_new_records_end_the_idleness(intake: Intake) -> None:
    received(intake, end(0, 0))
    received(intake, record(0, 0))
    assert [] == asked(intake)


def test_an_offset_that_is_not_in_the_log_any_more_is_no_reason_to_jump_in_silence(intake: Intake) -> None:
    assert "error" == intake._config["auto.offset.reset"]

    received(intake, Message(topic="t", partition=1, offset=10, error=OUT_OF_RANGE))

    assert intake._commands.waiting() == [{1}], "where to go on is decided, and what is lost is counted"


@pytest.mark.parametrize(
    ("starts", "lost"),
    [
        ([(5, 20)], [(0, 5, 20)]),
        ([(5, 20), (5, 20)], [(0, 5, 20)]),
        ([(5, 20), (5, 25)], [(0, 5, 20), (0, 20, 25)]),
        ([(5, 20), (30, 40)], [(0, 5, 20), (0, 30, 40)]),
        ([(500, 600), (5, 20)], [(0, 500, 600), (0, 5, 20)]),
        ([(30, 20)], []),
    ],
)
def test_each_lost_record_is_told_once(starts: list[tuple[int, int]], lost: list[tuple[int, int, int]]) -> None:
    told: list[tuple[int, int, int]] = []
    records = LostRecords(lambda *each: told.append(each))
    for offset, low in starts:
        records.note(0, offset, low)
    assert lost == told


def test_records_of_before_a_seek_or_of_partitions_not_started_are_void(intake: Intake) -> None:
    records = received(intake, record(1, 8), record(1, 9), record(1, 10), record(2, 0))
    assert records is not None
    assert [10] == records.offset.tolist()
    assert received(intake, record(2, 1)) is None


# --- commands of other threads ----------------------------------------------------------------------------------------


@pytest.fixture
def assigned(intake: Intake) -> Intake:
    """A real consumer of partition 1; it is thought to have 0 and 1, so it refuses to seek in 0."""
    intake._consumed.started = {}
    intake._consumed.assigned = {0, 1}
    intake.consumer.assign([TopicPartition("t", 1, 0)])
    return intake


def obey_until(intake: Intake, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        intake._commands.obey()
        time.sleep(0.01)


def test_a_partition_that_cannot_be_started_holds_up_no_other(assigned: Intake) -> None:
    assigned.start(0, 5, (0, 9))
    assigned.start(1, 7, (0, 9))
    obey_until(assigned, lambda: 1 in assigned._consumed.started)
    assert {1: 7} == assigned._consumed.started
    assert [{0}] == assigned._commands.waiting()


def test_a_start_that_failed_is_tried_again_by_itself(assigned: Intake) -> None:
    assigned.start(0, 5, (0, 9))
    assigned._commands.obey()
    assert not assigned._consumed.started
    assigned.consumer.assign([TopicPartition("t", 0, 0), TopicPartition("t", 1, 0)])
    obey_until(assigned, lambda: bool(assigned._consumed.started))
    assert {0: 5} == assigned._consumed.started
    assert not assigned._commands.waiting()


@pytest.mark.parametrize("later", ["stop", "start", "revoked"])
def test_a_start_that_waits_is_void_once_its_partition_is_stopped_started_or_revoked(
    assigned: Intake, later: str
) -> None:
    assigned.start(0, 5, (0, 9))
    assigned._commands.obey()
    assert assigned._commands.waiting()
    if later == "stop":
        assigned.stop([0, 1], 1)
    elif later == "start":
        assigned.start(0, 6, (0, 9))
    else:
        assigned._forget([0])
    assigned._consumed.assigned.add(0)  # and assigned once more
    assigned.consumer.assign([TopicPartition("t", 0, 0), TopicPartition("t", 1, 0)])
    obey_until(assigned, lambda: not assigned._commands.waiting())
    assert ({0: 6} if later == "start" else {}) == assigned._consumed.started


def test_a_start_that_was_asked_for_before_a_revocation_is_void_after_it(assigned: Intake) -> None:
    assigned.start(1, 7, (0, 9))
    assigned._forget([1])
    assigned._consumed.assigned.add(1)
    assigned._commands.obey()
    assert not assigned._consumed.started


def test_a_batch_of_large_records_has_fewer_of_them() -> None:
    small, large = records_of(1_000, value_bytes=86), records_of(1_000, value_bytes=3_000)
    assert BATCH_RECORDS_MAX == records_of_next(small, 4 << 20)
    assert 1_300 < records_of_next(large, 4 << 20) < 1_400
    assert 1 == records_of_next(records_of(1, value_bytes=10_000_000), 4 << 20)


def records_of(count: int, *, value_bytes: int) -> Records:
    numbers = np.arange(count)
    return Records(numbers, numbers, numbers, [b"k" * 36] * count, [bytes(value_bytes)] * count)


def test_a_member_without_a_partition_is_a_spare_once_a_rebalance_would_be_over(intake: Intake) -> None:
    def is_spare(after_ms: int) -> bool:
        return intake.is_spare(int(time.monotonic() * 1000) + after_ms)

    assert not is_spare(SPARE_AFTER_MS), "the group has not taken it in"
    intake._on_assign(intake.consumer, [])
    assert (False, True) == (is_spare(0), is_spare(SPARE_AFTER_MS))
    intake._on_assign(intake.consumer, [TopicPartition("t", 0)])
    assert not is_spare(SPARE_AFTER_MS)
    intake._on_revoke(intake.consumer, [TopicPartition("t", 0)])
    assert (False, True) == (is_spare(0), is_spare(SPARE_AFTER_MS))
    intake._lose([])
    assert not is_spare(SPARE_AFTER_MS), "the group has thrown it out"


def test_a_member_of_a_group_whose_source_is_gone_is_no_spare(intake: Intake) -> None:
    intake._on_assign(intake.consumer, [])
    received(intake, Message(topic="t", partition=0, error=KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)))
    assert not intake.is_spare(int(time.monotonic() * 1000) + SPARE_AFTER_MS)


def test_with_the_consumer_protocol_who_hears_nothing_but_no_error_either_has_joined() -> None:
    settings = Settings(streams_group_protocol="consumer")
    intake = Intake(settings, source="t", group="g", member="m", ownership=_Nobody())
    assert not intake.is_spare(int(time.monotonic() * 1000) + SPARE_AFTER_MS)
    intake.subscribe()
    later_ms = int(time.monotonic() * 1000) + SPARE_AFTER_MS
    assert intake.is_spare(later_ms)
    time.sleep(0.01)
    intake._note(Notice(0, 0, KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)))
    assert not intake.is_spare(later_ms)
