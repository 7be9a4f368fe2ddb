"""What is said of groups of declared flows beyond their offsets: partitions without a place, topics that are gone."""

from itertools import pairwise
from typing import Any, Final

import numpy as np
import pytest

from logistics.flows.gps import GPS
from logistics.flows.orders import ORDERS
from streams.batch.columns import Int64
from streams.kafka.round import FOREIGN, Group, Member, Round
from streams.monitor.flow_states import ASKED_OFFSETS_MAX, BACK_OFFSETS_MAX, FURTHER_OFFSETS_MAX, TAIL_OFFSETS, Tail
from streams.monitor.group_lag import GroupLag
from streams.monitor.missing import missing_topics
from streams.monitor.policies import GroupPolicies
from streams.monitor.report import missing_row, partition_row
from streams.monitor.tracker import LagTracker
from streams.state.journal import JournalEntry, Position, pack
from tests.merged import merged_flow

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
        commit_mark=np.zeros_like(here), commit_cycle=np.full_like(here, FOREIGN),
    )  # fmt: skip
    book = LagTracker(GroupPolicies(), window_s=5, interval_s=1, flows=[GPS, ORDERS])
    book.note(found)
    return book.judge()[group]


def test_records_in_a_partition_that_was_added_are_a_stall_at_the_first_look_and_no_worker_is_asked_for() -> None:
    group = judged(15)
    row = partition_row(group, ADDED)

    assert ("STALL", "not_in_layout") == (row["status"], row["reason"])
    assert "journal and tables have none of its number" in row["why"]
    assert "add a worker" not in row["advice"]
    assert "streams topics grow" in row["advice"]
    assert {"OK"} == {partition_row(group, number)["status"] for number in range(ADDED)}


@pytest.mark.parametrize(
    ("end", "journal", "group"),
    [(0, ADDED, GPS.group), (15, ADDED + 1, GPS.group), (15, ADDED, "somebody-else")],
    ids=["nothing is in it", "the flow has a place for it", "a group of no flow"],
)
def test_any_other_partition_is_judged_by_its_offsets(end: int, journal: int, group: str) -> None:
    assert "not_in_layout" != partition_row(judged(end, journal=journal, group=group), ADDED)["reason"]


# --- offsets that are not those of the state --------------------------------------------------------------------------

STANDS: Final = 40
"""Where the state of the partition stands, by its journal."""


def committed(
    offset: int, *, cycle: int = FOREIGN, journal: int = 9, end: int = 50, group: str = GPS.group
) -> tuple[LagTracker, Tail | None]:
    """A look at one partition of the source, of which the group has committed `offset`, and what is asked then."""

    def one(value: int) -> Int64:
        return np.array([value], dtype=np.int64)

    none = np.empty(0, dtype=np.int64)
    ends = np.array([end, journal], dtype=np.int64)
    found = Round(
        cluster="c", time_ms=1_800_000_000_000, topics=((GPS.source, 1), (GPS.journal, 1)),
        groups=(Group(group, "STABLE", (Member("m", "worker-1", "host", (0,)),)),), failed=(),
        end=ends, low=np.zeros_like(ends), high=ends, newest_offset=none, newest_ms=none,
        commit_group=one(0), commit_partition=one(0), commit_offset=one(offset), commit_mark=one(1),
        commit_cycle=one(cycle),
    )  # fmt: skip
    book = LagTracker(GroupPolicies(), window_s=5, interval_s=1, flows=[GPS, ORDERS])
    book.note(found)
    return book, next(iter(book.states.questions()), None)


def journal_of(offset_next: int) -> list[bytes]:
    """The newest records of a journal: a cycle of two parts, and something that is no journal record."""
    entry = JournalEntry(cycle=7, event_time_max=0, positions={GPS.source: Position(offset_next, 0)})
    return [*pack(entry, {"a": [b"1" * 50], "b": [b"2" * 50]}, record_bytes_max=60), b"something else"]


def test_an_offset_that_was_set_by_something_else_is_a_stall_although_nothing_is_left_to_read() -> None:
    book, tail = committed(50)
    assert tail == Tail(GPS.journal, 0, 0, 9)
    book.states.learn(tail, journal_of(STANDS))

    row = partition_row(book.judge()[GPS.group], 0)

    assert ("STALL", "offset_not_of_state", 0) == (row["status"], row["reason"], row["lag"])
    assert "the group's offset 50 was set by something else, and the flow's state stands at 40" in row["why"]
    assert "set the offset back" in row["advice"]
    assert [] == book.states.questions(), "the same end of the journal is read once"


def test_a_commit_without_anything_in_the_journal_is_of_state_that_is_gone() -> None:
    book, tail = committed(50, cycle=7, journal=0)

    row = partition_row(book.judge()[GPS.group], 0)

    assert (None, "STALL", "offset_not_of_state") == (tail, row["status"], row["reason"])
    assert "its journal is empty: deleted and created again" in row["why"]


@pytest.mark.parametrize(
    ("offset", "state_at", "more"),
    [
        (STANDS, STANDS, {}),
        (50, STANDS, {"cycle": 7}),
        (50, None, {"journal": 0}),
        (50, STANDS, {"group": "somebody-else"}),
        (30, STANDS, {"end": 35}),
    ],
    ids=["the state's own offset", "a cycle's", "before the first start", "a group of no flow", "a truncated source"],
)
def test_an_offset_that_a_worker_goes_on_from_is_judged_by_lag(
    offset: int, state_at: int | None, more: dict[str, Any]
) -> None:
    book, tail = committed(offset, **more)
    if tail is not None and state_at is not None:
        book.states.learn(tail, journal_of(state_at))

    (row,) = (partition_row(group, 0) for group in book.judge().values())
    assert "offset_not_of_state" != row["reason"]


def test_a_journal_that_says_nothing_of_the_source_is_no_reason_to_refuse() -> None:
    book, tail = committed(50)
    assert tail is not None
    book.states.learn(tail, [b"something else"])

    assert "OK" == partition_row(book.judge()[GPS.group], 0)["status"]


def test_a_journal_is_read_backwards_until_it_tells_and_no_further_than_a_bound() -> None:
    book, tail = committed(50, journal=10_000)
    read: list[tuple[int, int]] = []
    while tail is not None:
        read.append((tail.first, tail.end))
        book.states.learn(tail, [])
        tail = next(iter(book.states.questions()), None)

    assert [(9_984, 10_000), (9_920, 9_984), (9_664, 9_920)] == read[:3]
    assert all(after[1] == before[0] for before, after in pairwise(read)), "each piece ends where the last one began"
    assert max(end - first for first, end in read) == FURTHER_OFFSETS_MAX
    assert BACK_OFFSETS_MAX <= 10_000 - read[-1][0] < BACK_OFFSETS_MAX + FURTHER_OFFSETS_MAX
    assert "OK" == partition_row(book.judge()[GPS.group], 0)["status"], "nothing is said there: no reason to refuse"


def test_journals_that_are_not_answered_in_time_let_the_others_go_first() -> None:
    count = 100
    none, here = np.empty(0, dtype=np.int64), np.arange(count, dtype=np.int64)
    ends = np.concatenate([np.full(count, 50), np.full(count, 1_000)])
    book = LagTracker(GroupPolicies(), window_s=5, interval_s=1, flows=[GPS])
    book.note(
        Round(
            cluster="c", time_ms=1_800_000_000_000, topics=((GPS.source, count), (GPS.journal, count)),
            groups=(Group(GPS.group, "STABLE", ()),), failed=(), end=ends, low=np.zeros_like(ends), high=ends,
            newest_offset=none, newest_ms=none, commit_group=np.zeros_like(here), commit_partition=here,
            commit_offset=np.full_like(here, 50), commit_mark=np.zeros_like(here),
            commit_cycle=np.full_like(here, FOREIGN),
        )
    )  # fmt: skip

    asked = [[tail.partition for tail in book.states.questions()] for _ in range(4)]

    assert {ASKED_OFFSETS_MAX // TAIL_OFFSETS} == {len(partitions) for partitions in asked}
    assert set(range(count)) == {partition for partitions in asked for partition in partitions}


def test_a_topic_that_is_gone_is_named_of_flows_in_use_only() -> None:
    there = {topic.name for topic in GPS.topics()} - {GPS.source}

    (found,) = missing_topics(there, [GPS, ORDERS])

    assert (GPS.source, GPS.group) == (found.topic, found.group)
    assert "the topic does not exist" in missing_row(found)["why"]
    assert "streams topics apply" in missing_row(found)["advice"]
    assert () == missing_topics(there | {GPS.source}, [GPS, ORDERS])
    assert () == missing_topics({"somebody.else"}, [GPS, ORDERS])


def test_who_has_a_partition_of_the_source_has_that_of_what_is_merged_with_it() -> None:
    flow = merged_flow().pipeline
    none, ends = np.empty(0, dtype=np.int64), np.array([10, 10, 15, 15], dtype=np.int64)
    here = np.arange(4, dtype=np.int64)
    found = Round(
        cluster="c", time_ms=1_800_000_000_000, topics=(("left.v1", 2), ("right.v1", 2)),
        groups=(Group(flow.group, "STABLE", (Member("m", "worker-1", "host", (0, 1)),)),), failed=(),
        end=ends, low=np.zeros_like(ends), high=ends, newest_offset=none, newest_ms=none,
        commit_group=np.zeros_like(here), commit_partition=here, commit_offset=np.full_like(here, 10),
        commit_mark=np.zeros_like(here), commit_cycle=np.full_like(here, FOREIGN),
    )  # fmt: skip
    book = LagTracker(GroupPolicies(), window_s=5, interval_s=1, flows=[flow])
    book.note(found)
    group = book.judge()[flow.group]
    rows = [partition_row(group, number) for number in range(4)]
    assert [row["owner"] for row in rows] == ["worker-1"] * 4
    assert "left_topic" not in {row["reason"] for row in rows}
