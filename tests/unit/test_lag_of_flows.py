"""What is said of groups of declared flows beyond their offsets: partitions without a place, topics that are gone."""

from typing import Final

import numpy as np
import pytest

from logistics.flows.gps import GPS
from logistics.flows.orders import ORDERS
from streams.kafka.round import Group, Member, Round
from streams.monitor.book import GroupLag, LagBook
from streams.monitor.missing import missing_topics
from streams.monitor.policies import GroupPolicies
from streams.monitor.report import missing_row, partition_row

ADDED: Final = 3
"""The first partition of the source that the journal has none for."""


def judged(end: int, *, journal: int = ADDED, group: str = GPS.group) -> GroupLag:
    """The group at the first look: all is read of the partitions that there were, nothing of one that was added."""
    none, ends = np.empty(0, dtype=np.int64), np.array([10] * ADDED + [end] + [0] * journal, dtype=np.int64)
    here = np.arange(ADDED, dtype=np.int64)
    found = Round(
        cluster="c", time_ms=1_800_000_000_000, topics=((GPS.source, ADDED + 1), (GPS.journal, journal)),
        groups=(Group(group, "STABLE", (Member("m", "worker-1", "host", tuple(range(ADDED + 1))),)),),
        failed=(), end=ends, low=np.zeros_like(ends), high=ends, newest_offset=none, newest_ms=none,
        commit_group=np.zeros_like(here), commit_partition=here, commit_offset=np.full_like(here, 10),
        commit_mark=np.zeros_like(here),
    )  # fmt: skip
    book = LagBook(GroupPolicies(), window_s=5, interval_s=1, pipelines=[GPS, ORDERS])
    book.note(found)
    return book.judge()[group]


def test_records_in_a_partition_that_was_added_are_a_stall_at_the_first_look_and_no_worker_is_asked_for() -> None:
    group = judged(15)
    row = partition_row(group, ADDED)

    assert ("STALL", "not_in_layout") == (row["status"], row["reason"])
    assert "journal and tables have none of its number" in row["why"]
    assert "add a worker" not in row["advice"]
    assert "partitions that there were before" in row["advice"]
    assert {"OK"} == {partition_row(group, number)["status"] for number in range(ADDED)}


@pytest.mark.parametrize(
    ("end", "journal", "group"),
    [(0, ADDED, GPS.group), (15, ADDED + 1, GPS.group), (15, ADDED, "somebody-else")],
    ids=["nothing is in it", "the flow has a place for it", "a group of no flow"],
)
def test_any_other_partition_is_judged_by_its_offsets(end: int, journal: int, group: str) -> None:
    assert "not_in_layout" != partition_row(judged(end, journal=journal, group=group), ADDED)["reason"]


def test_a_topic_that_is_gone_is_named_of_flows_in_use_only() -> None:
    there = {topic.name for topic in GPS.topics()} - {GPS.source}

    (found,) = missing_topics(there, [GPS, ORDERS])

    assert (GPS.source, GPS.group) == (found.topic, found.group)
    assert "the topic does not exist" in missing_row(found)["why"]
    assert "streams topics apply" in missing_row(found)["advice"]
    assert () == missing_topics(there | {GPS.source}, [GPS, ORDERS])
    assert () == missing_topics({"somebody.else"}, [GPS, ORDERS])
