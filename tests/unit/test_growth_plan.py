"""The plan of a growth, its refusals, and the command's steps, killed anywhere."""

from dataclasses import replace

import pytest

from streams.growth.control import AddPartitions, Await, Over, Write, may_be_abandoned, next_step
from streams.growth.layout import Growth, Layout
from streams.growth.plan import GrowthPlan, GrowthRefused, Kind, Reader, TopicCount, Under, plan_growth
from streams.growth.stages import Duty, Phase, Progress, Standing, duty_of, is_due, is_over, journal_needed_from

LAYOUT = Layout(1, 3)
TO_12 = Growth(LAYOUT, Layout(2, 12))
NAMES = {
    "gps": Kind.SOURCE,
    "gps.clean": Kind.OUTPUT,
    "gps.dlq": Kind.OUTPUT,
    "gps.journal": Kind.STATE,
    "vehicles": Kind.STATE,
    "gps.forwarded": Kind.FORWARDED,
}


def topics(**counts: int) -> list[TopicCount]:
    """All with 3 partitions, but for those that are named (with `_` for a dot)."""
    named = {name.replace("_", "."): count for name, count in counts.items()}
    return [TopicCount(name, kind, named.get(name, 3)) for name, kind in NAMES.items()]


def test_topics_get_partitions_outputs_first_and_the_source_last() -> None:
    plan = plan_growth("gps", LAYOUT, topics(), 12)
    assert plan.growth == TO_12
    assert [one.topic for one in plan.additions] == [
        "gps.clean", "gps.dlq", "gps.journal", "vehicles", "gps.forwarded", "gps",
    ]  # fmt: skip
    assert [one.topic for one in plan.inputs] == ["gps"]
    assert [one.topic for one in plan.before_begin] == [one.topic for one in plan.additions[:-1]]
    assert {(one.before, one.after) for one in plan.additions} == {(3, 12)}
    assert not plan.is_resumed
    assert not plan.is_by_hand


def test_all_inputs_get_partitions_once_parents_have_cut_and_the_source_is_the_last() -> None:
    found = [*topics(), TopicCount("zones", Kind.INPUT, 3), TopicCount("gps.forwarded.zones", Kind.FORWARDED, 3)]
    plan = plan_growth("gps", LAYOUT, found, 12)
    assert [one.topic for one in plan.inputs] == ["zones", "gps"]
    assert {one.topic for one in plan.before_begin}.isdisjoint({"zones", "gps"})
    assert plan.before_begin[-1].topic == "gps.forwarded.zones"


def test_topics_that_have_their_partitions_are_left_out() -> None:
    under = Under(TO_12, Phase.PLANNED, is_over=False)
    plan = plan_growth("gps", LAYOUT, topics(gps_clean=12, vehicles=12), 12, under=under)
    assert [one.topic for one in plan.additions] == ["gps.dlq", "gps.journal", "gps.forwarded", "gps"]
    assert plan.is_resumed


def test_a_source_that_was_grown_by_hand_is_finished_and_said_so() -> None:
    plan = plan_growth("gps", LAYOUT, topics(gps=12), 12)
    assert plan.is_by_hand
    assert not plan.inputs
    begun = plan_growth("gps", LAYOUT, topics(gps=12), 12, under=Under(TO_12, Phase.BEGUN, is_over=False))
    assert not begun.is_by_hand


@pytest.mark.parametrize(
    ("partitions", "says"),
    [
        (3, "3 partitions already"),
        (2, "Kafka cannot take partitions away"),
        (0, "Kafka cannot take partitions away"),
        (-3, "Kafka cannot take partitions away"),
        (4, "no multiple of it.*Ask for 6$"),
        (10, "no multiple of it.*Ask for 9 or 12$"),
        (30_000, "30,000 partitions are more than 10,000"),
    ],
)
def test_a_number_that_cannot_be_is_refused(partitions: int, says: str) -> None:
    with pytest.raises(GrowthRefused, match=says):
        plan_growth("gps", LAYOUT, topics(), partitions)


def test_another_growth_waits_until_the_first_is_over() -> None:
    with pytest.raises(GrowthRefused, match=r"grows from 3 to 12 already.*`--partitions 12`"):
        plan_growth("gps", LAYOUT, topics(), 24, under=Under(TO_12, Phase.BEGUN, is_over=False))
    done = [replace(topic, partitions=12) for topic in topics()]
    plan = plan_growth("gps", TO_12.after, done, 24, under=Under(TO_12, Phase.BEGUN, is_over=True))
    assert plan.growth == Growth(Layout(2, 12), Layout(3, 24))
    assert not plan.is_resumed
    assert len(plan.additions) == len(done)


def test_a_growth_that_is_over_is_not_done_again() -> None:
    done = [replace(topic, partitions=12) for topic in topics()]
    with pytest.raises(GrowthRefused, match="12 partitions already"):
        plan_growth("gps", TO_12.after, done, 12, under=Under(TO_12, Phase.BEGUN, is_over=True))


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"gps_journal": 0}, r"gps\.journal: no such topic; create with `streams topics apply --pipeline gps`"),
        ({"vehicles": 5}, "vehicles has 5 partitions, which is neither 3 nor 12: give it 12"),
        ({"gps": 6}, "gps has 6 partitions, which is neither 3 nor 12: grow the flow to 6"),
        ({"gps": 7}, "gps has 7 partitions, which is neither 3 nor 12: keys in its partitions"),
        ({"gps_clean": 24}, "grow the flow to 24"),
        ({"gps": 24}, "grow the flow to 24"),
        ({"gps_clean": 13}, "declare a flow with a new source topic"),
    ],
)
def test_topics_that_fit_no_growth_are_named(counts: dict[str, int], says: str) -> None:
    with pytest.raises(GrowthRefused, match=says):
        plan_growth("gps", LAYOUT, topics(**counts), 12)


def test_every_reason_is_said_at_once() -> None:
    with pytest.raises(GrowthRefused, match=r"vehicles has 5.*partition 1 is not processed: no leader"):
        plan_growth("gps", LAYOUT, topics(vehicles=5), 12, stuck={1: "no leader"})


def test_a_flow_that_reads_an_output_is_grown_first() -> None:
    narrow = Reader("geofences", "gps.clean", 3)
    with pytest.raises(GrowthRefused, match=r"grow it first, `streams topics grow gps\.clean --partitions 12`"):
        plan_growth("gps", LAYOUT, topics(), 12, readers=[narrow])
    assert plan_growth("gps", LAYOUT, topics(gps_clean=12), 12, readers=[replace(narrow, partitions=12)])
    assert plan_growth("gps", LAYOUT, topics(), 12, readers=[Reader("other", "elsewhere", 3)])


def test_a_stuck_partition_stops_a_new_growth_and_not_one_that_was_begun() -> None:
    with pytest.raises(GrowthRefused, match="partition 2 is not processed: why"):
        plan_growth("gps", LAYOUT, topics(), 12, stuck={2: "why"})
    assert plan_growth("gps", LAYOUT, topics(), 12, stuck={2: "why"}, under=Under(TO_12, Phase.BEGUN, is_over=False))


# --- the steps of the command ---------------------------------------------------------------------------------------


def plan_at(counts: dict[str, int]) -> GrowthPlan:
    found = [TopicCount(name, kind, counts[name]) for name, kind in NAMES.items()]
    return plan_growth("gps", LAYOUT, found, 12, under=Under(TO_12, Phase.PLANNED, is_over=False))


def test_the_command_goes_through_all_steps_in_order_and_may_be_killed_before_each() -> None:
    counts = dict.fromkeys(NAMES, 3)
    phase: Phase | None = None
    standings: dict[int, Standing] = {}
    settled: set[int] = set()
    steps = []
    while True:
        step = next_step(plan_at(counts), phase, standings, settled)  # nothing is remembered from the step before
        steps.append(step)
        if isinstance(step, Over):
            break
        if isinstance(step, Write):
            phase = step.phase
        elif isinstance(step, AddPartitions):
            counts[step.additions[0].topic] = 12  # killed after the first one
        else:
            first = step.partitions[0]
            ready = Standing(1, ready=2)
            done = Standing(2, ready=2)
            if step.what == "settled":
                settled.add(first)
            else:
                standings[first] = {"ready": ready, "cleared": replace(done, cleared=2)}.get(step.what, done)
    added = [step.additions[0].topic for step in steps if isinstance(step, AddPartitions)]
    assert added == ["gps.clean", "gps.dlq", "gps.journal", "vehicles", "gps.forwarded", "gps"]
    kinds = [step.what if isinstance(step, Await) else type(step).__name__ for step in steps]
    assert kinds == [
        "Write", *["ready"] * 3, "Write", *["AddPartitions"] * 5, "Write", *["cut"] * 3, "AddPartitions",
        *["adopted"] * 9, *["cleared"] * 9, *["settled"] * 3, "Over",
    ]  # fmt: skip
    assert [step.phase for step in steps if isinstance(step, Write)] == [Phase.PLANNED, Phase.ANNOUNCED, Phase.BEGUN]


def test_a_growth_may_be_abandoned_until_the_first_cut() -> None:
    phases = (None, Phase.PLANNED, Phase.ANNOUNCED, Phase.BEGUN)
    assert [may_be_abandoned(phase) for phase in phases] == [False, True, True, False]


# --- what each partition does ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("partition", "standing", "growth", "phase", "parent_epoch", "duty"),
    [
        (1, Standing(1), None, None, 1, Duty.NOTHING),
        (3, Standing(0), None, None, 1, Duty.REFUSE),
        (12, Standing(0), TO_12, Phase.BEGUN, 2, Duty.REFUSE),
        (1, Standing(1), TO_12, Phase.PLANNED, 1, Duty.SAY_READY),
        (1, Standing(1), TO_12, Phase.ANNOUNCED, 1, Duty.SAY_READY),
        (1, Standing(1, ready=2), TO_12, Phase.ANNOUNCED, 1, Duty.NOTHING),
        (1, Standing(1, ready=2), TO_12, Phase.BEGUN, 1, Duty.CUT),
        (1, Standing(0), TO_12, Phase.BEGUN, 0, Duty.CUT),
        (1, Standing(2, ready=2), TO_12, Phase.BEGUN, 2, Duty.NOTHING),
        (4, Standing(0), TO_12, Phase.ANNOUNCED, 1, Duty.AWAIT_CUT),
        (4, Standing(0), TO_12, Phase.BEGUN, 1, Duty.AWAIT_CUT),
        (4, Standing(0), TO_12, Phase.BEGUN, 2, Duty.ADOPT),
        (4, Standing(2), TO_12, Phase.BEGUN, 2, Duty.NOTHING),
    ],
)
def test_what_a_growth_asks_of_a_partition(
    partition: int, standing: Standing, growth: Growth | None, phase: Phase | None, parent_epoch: int, duty: Duty
) -> None:
    assert duty_of(partition, standing, LAYOUT, growth, phase, parent_epoch=parent_epoch) is duty


def test_a_parent_keeps_its_journal_until_all_its_children_have_adopted() -> None:
    standings = {4: Standing(2), 7: Standing(2), 10: Standing(0)}
    assert journal_needed_from(1, 77, TO_12, standings) is None
    assert journal_needed_from(1, 77, TO_12, standings | {10: Standing(2)}) == 77


def test_a_growth_is_over_when_all_have_adopted_and_all_parents_have_settled() -> None:
    everyone = dict.fromkeys(range(12), Standing(2, cleared=2))
    assert is_over(TO_12, everyone, {0, 1, 2})
    assert not is_over(TO_12, everyone, {0, 2})
    assert not is_over(TO_12, everyone | {11: Standing(0)}, {0, 1, 2})
    assert not is_over(TO_12, everyone | {11: Standing(2)}, {0, 1, 2})


def test_children_are_told_of_a_later_time_at_once_and_of_standing_still_now_and_then() -> None:
    told = Progress(100, {})
    assert is_due(Progress(101, {}), told, told_ms=0, now_ms=1, interval_ms=1_000)
    assert is_due(Progress(100, {}, is_settled=True), told, told_ms=0, now_ms=1, interval_ms=1_000)
    assert is_due(told, None, told_ms=0, now_ms=1, interval_ms=1_000)
    still = Progress(100, {4: 7})
    assert not is_due(still, told, told_ms=0, now_ms=999, interval_ms=1_000)
    assert is_due(still, told, told_ms=0, now_ms=1_000, interval_ms=1_000)
    assert not is_due(told, told, told_ms=0, now_ms=10_000, interval_ms=1_000)


def test_keys_of_a_new_partition_come_from_its_parent() -> None:
    for key_hash in range(1_000):
        assert TO_12.before.home(key_hash) == TO_12.parent_of(TO_12.after.home(key_hash))
    assert [list(TO_12.children_of(parent)) for parent in TO_12.parents] == [[3, 6, 9], [4, 7, 10], [5, 8, 11]]
    assert sorted(one for parent in TO_12.parents for one in TO_12.children_of(parent)) == list(TO_12.children)


@pytest.mark.parametrize("after", [Layout(2, 3), Layout(2, 4), Layout(3, 12), Layout(1, 12)])
def test_what_is_no_growth_is_not_made(after: Layout) -> None:
    with pytest.raises(ValueError, match="no growth"):
        Growth(LAYOUT, after)
