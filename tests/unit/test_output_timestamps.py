"""Timestamps of outputs: never so old that retention deletes what was just written, never refused by the broker."""

import numpy as np
import pytest

from logistics.flows.gps import GPS
from streams.batch.rejects import DeadLetter, Reason, Reject
from streams.engine.commit import Committer
from streams.engine.effects import Effects, PartitionEffects
from streams.kafka.memory import MemoryChangelog, MemoryKafka
from streams.operators.late import LateEvents
from streams.operators.output import EventRecords
from streams.sinks.kafka.outputs import timestamp_age_ms
from streams.sinks.memory import MemoryTransactions
from tests.unit.test_task import events

NOW_MS = 1_800_000_000_000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def written(topic: str, *timestamps: int, ages_ms: dict[str, int] | None = None, **part: object) -> list[int]:
    """Timestamps of the records of `topic` that come of events with these."""
    kafka = MemoryKafka(1)
    transactions = MemoryTransactions(kafka, "w", lambda: "committed")
    made = events(*((number, at) for number, at in enumerate(timestamps)))
    records = [
        EventRecords(GPS.clean, made, "clean"),
        LateEvents(GPS.late, made, "late", beyond_horizon=False, by_ms=np.zeros(len(made), np.int64)),
    ]
    letters = [
        DeadLetter(Reject(0, Reason.INVALID, "m"), 0, number, at, b"d", b"v", None)
        for number, at in enumerate(timestamps)
    ]
    committer = Committer(
        GPS, transactions, MemoryChangelog(kafka), [], author="w", session="s", timestamp_ages_ms=ages_ms
    )
    committer.write(Effects(NOW_MS, len(made), [PartitionEffects(0, records)], letters))
    transactions.commit()
    return [entry.timestamp_ms for entry in kafka.topic_rows(topic)]


@pytest.mark.parametrize("topic", [GPS.clean, GPS.late])
def test_a_timestamp_of_the_last_hour_is_kept(topic: str) -> None:
    kept = [NOW_MS - HOUR_MS, NOW_MS - 1, NOW_MS]
    assert kept == written(topic, *kept)


@pytest.mark.parametrize("topic", [GPS.clean, GPS.late])
@pytest.mark.parametrize("timestamp", [NOW_MS - 40 * DAY_MS, 0, -1])
def test_an_older_timestamp_or_none_becomes_the_beginning_of_the_hour(topic: str, timestamp: int) -> None:
    assert [NOW_MS - HOUR_MS] == written(topic, timestamp)


@pytest.mark.parametrize("topic", [GPS.clean, GPS.late])
def test_a_later_timestamp_becomes_the_time_of_the_write(topic: str) -> None:
    assert [NOW_MS] == written(topic, NOW_MS + 10 * 365 * DAY_MS)


def test_a_topic_may_ask_for_younger_ones() -> None:
    assert [NOW_MS - 5_000] == written(GPS.clean, NOW_MS - 60_000, ages_ms={GPS.clean: 5_000})


@pytest.mark.parametrize("timestamp", [NOW_MS - 40 * DAY_MS, -1, NOW_MS + DAY_MS])
def test_a_dead_letter_has_the_time_of_its_failure(timestamp: int) -> None:
    assert [NOW_MS] == written(GPS.dlq, timestamp)


@pytest.mark.parametrize(
    ("config", "age_ms"),
    [
        ({"retention.ms": str(7 * DAY_MS), "message.timestamp.before.max.ms": str(2**63 - 1)}, HOUR_MS),
        ({"retention.ms": "-1"}, HOUR_MS),
        ({}, HOUR_MS),
        ({"retention.ms": "80000"}, 10_000),
        ({"retention.ms": "-1", "message.timestamp.before.max.ms": "60000"}, 30_000),
        ({"retention.ms": "0"}, 0),
    ],
)
def test_the_age_follows_retention_and_what_the_broker_accepts(config: dict[str, str], age_ms: int) -> None:
    assert age_ms == timestamp_age_ms(config)
