"""Intake: what comes out of one consumer call."""

import numpy as np
import pytest
from confluent_kafka import KafkaError, Message

from streams.kafka.intake import Intake, _records_of_next
from streams.limits import BATCH_RECORDS_MAX
from streams.operators.columns import Records
from streams.settings import Settings

EOF = KafkaError(KafkaError._PARTITION_EOF)


class _Nobody:
    def assigned(self, partitions: list[int]) -> None: ...
    def revoked(self, partitions: list[int]) -> None: ...
    def lost(self, partitions: list[int]) -> None: ...


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


def test_a_batch_of_large_records_has_fewer_of_them():
    small, large = records_of(1_000, value_bytes=86), records_of(1_000, value_bytes=3_000)
    assert BATCH_RECORDS_MAX == _records_of_next(small, 4 << 20)
    assert 1_300 < _records_of_next(large, 4 << 20) < 1_400
    assert 1 == _records_of_next(records_of(1, value_bytes=10_000_000), 4 << 20)


def records_of(count, *, value_bytes):
    numbers = np.arange(count)
    return Records(numbers, numbers, numbers, [b"k" * 36] * count, [bytes(value_bytes)] * count)
