"""Parts of the command that grows a flow: its records, partitions that are stuck, what it says."""

from collections.abc import Sequence

import numpy as np
import pytest

from logistics.flows.gps import GPS
from streams.grow.found import COMMAND, GrowthStatus
from streams.grow.run import NoAnswer, StandsStill
from streams.grow.stuck import stuck_partitions
from streams.grow.words import event_lines, plan_row, status_lines, status_row
from streams.growth.control import AddPartitions, Await, Write
from streams.growth.layout import Growth, Layout
from streams.growth.layouts import Layouts
from streams.growth.plan import Addition, GrowthPlan, Kind, named
from streams.growth.record import GrowthLogError, GrowthRecord, layouts_of, newest_records, read_record
from streams.growth.stages import Phase
from streams.kafka.round import Group, Member, Round

TO_6 = Growth(Layout(1, 3), Layout(2, 6))
TO_24 = Growth(Layout(2, 6), Layout(3, 24))


def written(growth: Growth, phase: Phase, at_ms: int = 0) -> tuple[bytes, bytes, int]:
    record = GrowthRecord(growth, phase)
    return record.key, record.value, at_ms


# --- records ----------------------------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written_also_with_fields_of_a_later_version() -> None:
    record = GrowthRecord(TO_6, Phase.ANNOUNCED, 77)
    assert read_record(record.value, 77) == record
    assert read_record(record.value[:-1] + b', "by": "somebody"}', 77) == record


def test_the_newest_record_of_each_growth_counts_and_what_was_given_up_was_never_there() -> None:
    log = [written(TO_6, phase, at_ms) for at_ms, phase in enumerate(Phase)]
    assert newest_records(log) == [GrowthRecord(TO_6, Phase.BEGUN, 2)]
    second = written(TO_24, Phase.PLANNED, 3)
    assert [one.growth for one in newest_records([*log, second])] == [TO_6, TO_24]
    assert newest_records([*log, second, (second[0], None, 4)]) == newest_records(log)
    assert layouts_of(newest_records([*log, second]), 3) == Layouts(
        (TO_6.before, TO_6.after, TO_24.after), Phase.PLANNED
    )
    assert layouts_of([], 3) == Layouts.first(3)


@pytest.mark.parametrize(
    "log",
    [
        [(b"2", b"{}", 0)],
        [(b"2", b"not json", 0)],
        [(b"2", b'{"epoch": 2, "before": 3, "after": 7, "phase": "planned"}', 0)],
        [(b"2", b'{"epoch": 2, "before": 3, "after": 6, "phase": "later"}', 0)],
        [(b"3", GrowthRecord(TO_6, Phase.PLANNED).value, 0)],
        [(None, GrowthRecord(TO_6, Phase.PLANNED).value, 0)],
        [written(TO_24, Phase.PLANNED)],
        [written(TO_6, Phase.BEGUN), written(Growth(Layout(2, 5), Layout(3, 10)), Phase.PLANNED)],
    ],
)
def test_what_is_no_growth_is_refused(log: Sequence[tuple[bytes | None, bytes | None, int]]) -> None:
    with pytest.raises(GrowthLogError):
        newest_records(log)


# --- partitions that are stuck ----------------------------------------------------------------------------------------


def a_round(
    *,
    time_ms: int = 0,
    ends: Sequence[int] = (10, 10, 10),
    members: tuple[Member, ...] | None = (Member("a", "a", "host", (0, 1, 2)),),
    offsets: Sequence[int] = (10, 10, 10),
    marks: Sequence[int] = (1, 1, 1),
) -> Round:
    empty, zeros = np.empty(0, dtype=np.int64), np.zeros(len(ends), dtype=np.int64)
    end, offset, mark = (np.array(one, dtype=np.int64) for one in (ends, offsets, marks))
    numbers = np.arange(len(offsets), dtype=np.int64)
    return Round(
        "cluster", time_ms, ((GPS.source, len(ends)),), (Group(GPS.group, "STABLE", members),), (), end, zeros, end,
        empty, empty, np.zeros_like(offset), numbers, offset, mark, np.zeros_like(offset),
    )  # fmt: skip


def stuck(before: Round, now: Round, *, records: bool = True) -> dict[int, str]:
    return stuck_partitions(GPS, 3, before, now, lambda *_: records)


def test_a_flow_that_is_processed_has_no_stuck_partition() -> None:
    assert stuck(a_round(), a_round()) == {}
    moving = a_round(ends=(99, 99, 99), offsets=(20, 20, 20), marks=(2, 2, 2))
    assert stuck(a_round(), moving) == {}
    assert stuck(a_round(ends=(99, 10, 10)), a_round(ends=(99, 10, 10), marks=(2, 1, 1))) == {}, "it commits"
    assert stuck(a_round(), a_round(members=None)) == {}, "the coordinator does not tell"


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (a_round(members=()), {0: "no worker runs", 1: "no worker runs", 2: "no worker runs"}),
        (a_round(members=(Member("a", "a", "h", (0, 2)),)), {1: "no worker has it"}),
        (a_round(ends=(10, -1, 10)), {1: "it has no leader"}),
        (a_round(time_ms=15_000, ends=(10, 10, 12)), {2: "its offset has not moved for 15 s with 2 records waiting"}),
        (a_round(ends=(10, 10, 10), offsets=(10, 10), marks=(1, 1)), {2: "its offset has not moved for 0 s with 10"}),
    ],
)
def test_a_partition_that_is_not_processed_is_named(now: Round, says: dict[int, str]) -> None:
    before = a_round() if len(now.commit_offset) == 3 else now
    found = stuck(before, now)
    assert found.keys() == says.keys()
    assert all(found[one].startswith(words) for one, words in says.items()), found


def test_the_end_of_a_transaction_is_no_record_that_waits() -> None:
    now = a_round(ends=(11, 10, 10))
    assert stuck(a_round(), now, records=False) == {}


# --- words ------------------------------------------------------------------------------------------------------------


PLAN = GrowthPlan(
    "gps",
    TO_6,
    [Addition("clean", Kind.OUTPUT, 3, 6), Addition("gps", Kind.SOURCE, 3, 6)],
    is_resumed=False,
    is_by_hand=True,
)


def test_what_is_told_while_a_flow_grows() -> None:
    first, by_hand, *rest = event_lines(PLAN, None)
    assert first == "gps grows from 3 to 6 partitions"
    assert by_hand.startswith("somebody has given the source its partitions already: more events may be late")
    assert rest == [
        "  keys of partition 0 go to partition 3, or stay",
        "  keys of partition 1 go to partition 4, or stay",
        "  keys of partition 2 go to partition 5, or stay",
        "topics get partitions in this order:",
        "  clean  3 to 6",
        "  gps    3 to 6",
    ]  # fmt: skip
    assert event_lines(Write(Phase.BEGUN), None)[0].startswith("begun: ")
    assert event_lines(AddPartitions(PLAN.additions[1:]), None)[0] == "adding partitions to gps: 3 to 6"
    assert event_lines(Await("cut", [0, 1]), None) == ["waiting for partitions 0, 1 to give their keys away"]
    assert event_lines(NoAnswer("no broker"), None) == ["no broker; trying again"]
    still = StandsStill(Await("ready", [0, 1]), 30, {1: "no worker has it"})
    assert event_lines(still, None) == ["partition 1 is not processed: no worker has it"]
    unknown = event_lines(StandsStill(Await("ready", [0]), 30, {}), None)
    assert unknown[0].startswith("nothing has changed for 30 s: a worker of an earlier version")


def test_a_wide_growth_is_told_in_few_lines() -> None:
    wide = Growth(Layout(1, 400), Layout(2, 800))
    lines = event_lines(GrowthPlan("gps", wide, [], is_resumed=False, is_by_hand=False), None)
    assert len(lines) == 18
    assert lines[-1] == "  and so on, of 384 more partitions"


def test_how_far_a_growth_is_in_words_and_as_json() -> None:
    status = GrowthStatus("gps", "gps", GrowthRecord(TO_6, Phase.BEGUN, 5), "adopted", [4, 5], 3, 3, 1, 0, 0, [])
    first, *rows = status_lines(status)
    assert first == (
        "gps grows from 3 to 6 partitions: begun; waiting for partitions 4, 5 to take over the state of their keys"
    )
    assert [row.split() for row in rows][2] == ["adopted", "1", "of", "3"]
    row = status_row(status)
    assert (row["phase"], row["phase_at_ms"], row["waits_for"], row["over"]) == ("begun", 5, [4, 5], False)
    assert row["partitions"]["adopted"] == {"done": 1, "of": 3}
    assert plan_row(PLAN)["children"] == {"0": [3], "1": [4], "2": [5]}
    waits = GrowthStatus("gps", "gps", GrowthRecord(TO_6, Phase.BEGUN), COMMAND, [], 3, 3, 0, 0, 0, [])
    assert "its next step is made by `streams topics grow gps --partitions 6`" in status_lines(waits)[0]


def test_partitions_are_named_in_spans() -> None:
    assert named([4]) == "partition 4"
    assert named([5, 0, 1, 2, 7, 8]) == "partitions 0 to 2, 5, 7, 8"
