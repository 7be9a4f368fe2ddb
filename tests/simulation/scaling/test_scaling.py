"""The autoscaler's rules: as properties of single decisions, and over hours of traffic."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.batch.columns import Float64
from streams.monitor.scale import NOBODY, SETTLE_S, Load, ScalePolicy, ScaleState, decide
from tests.examples import examples
from tests.simulation.scaling.scenarios import (
    BURSTS,
    BURSTS_S,
    DEAD,
    DEAD_S,
    HOT,
    HOT_OF_SOMEBODY,
    SLOW,
    SLOW_S,
    STORM,
    STORM_S,
    WARM,
)
from tests.simulation.scaling.world import Course, Scenario, World

POLICY = ScalePolicy()


def load(time_s: float, *, lag_s: float = 0.0, arrive: float = 1_000.0, drain: float = 1_000.0, members: int | None = 2,
         partitions: int = 12) -> Load:  # fmt: skip
    lag = np.full(partitions, round(lag_s * arrive / partitions), dtype=np.int64)
    return Load(
        time_s, lag, np.full(partitions, lag_s), np.full(partitions, arrive / partitions),
        np.full(partitions, drain / partitions), np.arange(partitions) % max(members or 1, 1), members,
    )  # fmt: skip


def settled(policy: ScalePolicy = POLICY, *, worker_rate: float | None = None, members: int = 2) -> ScaleState:
    return replace(ScaleState.first(load(0.0, members=members), policy), worker_rate=worker_rate)


steps = st.lists(st.tuples(st.floats(0.0, 900.0), st.none() | st.integers(0, 300)), max_size=25)
"""Time that passes, and members."""


def uneven(chance: np.random.Generator, time_s: float, members: int | None, partitions: int) -> Load:
    """Any load: each partition with rates and a lag of its own, of any size, some not known; any owner or none."""

    def rates() -> Float64:
        return np.where(chance.random(partitions) < 0.1, np.nan, 10.0 ** chance.uniform(-3, 7, partitions))

    nothing = chance.random(partitions) < 0.3
    lag_s = np.where(nothing, 0.0, 10.0 ** chance.uniform(0, 5, partitions))
    lag = np.where(nothing, 0, 10.0 ** chance.uniform(0, 12, partitions)).astype(np.int64)
    owner = chance.integers(NOBODY, chance.integers(1, 40), partitions)
    return Load(time_s, lag, lag_s, rates(), rates() * chance.integers(0, 2), owner, members)


@settings(max_examples=examples(100))
@given(
    st.integers(0, 2**32), steps, st.integers(1, 50), st.integers(1, 60), st.integers(0, 60), st.floats(0.0, 2_000.0)
)
def test_the_number_is_always_within_its_bounds_and_the_peaks_stay_few(
    seed: int, passing: list[tuple[float, int | None]], partitions: int, low: int, more: int, cool_down_s: float
) -> None:  # fmt: skip
    policy = ScalePolicy(workers_min=low, workers_max=low + more, cool_down_s=cool_down_s)
    state = ScaleState.first(load(0.0, members=3, partitions=partitions), policy)
    chance, time_s = np.random.default_rng(seed), 0.0
    for passed_s, members in passing:
        time_s += passed_s
        state, decision = decide(state, uneven(chance, time_s, members, partitions), policy)

        assert min(low, partitions) <= decision.replicas <= min(partitions, low + more)
        assert decision.reason
        assert len(state.peaks) <= partitions
        assert all(one[1] > other[1] for one, other in pairwise(state.peaks))


@given(st.floats(1_000.0, 1e9), st.integers(2, 24), st.integers(0, 23), st.floats(0.0, 900.0), st.booleans())
def test_what_a_hot_partition_gets_beyond_one_worker_asks_for_none(
    hot_rate: float, partitions: int, place: int, others: float, owner_known: bool
) -> None:
    """However much comes to it: as many as if it got what one worker drains."""
    place %= partitions

    def asked(rate: float) -> int:
        arrive = np.full(partitions, others / partitions)
        drain = arrive.copy()
        arrive[place], drain[place] = rate, 1_000.0
        lag_s = np.zeros(partitions)
        lag_s[place] = 500.0
        owner = np.arange(partitions) % 2 if owner_known else np.full(partitions, NOBODY)
        policy = ScalePolicy(worker_rate=1_000.0)
        now = Load(SETTLE_S, np.rint(arrive * lag_s).astype(np.int64), lag_s, arrive, drain, owner, 2)
        return decide(settled(policy, worker_rate=1_000.0), now, policy)[1].replicas

    assert asked(1_000.0) == asked(hot_rate) <= 3


@given(st.lists(st.floats(0.0, 5_000.0), min_size=2, max_size=24), st.integers(1, 24), st.floats(1.0, 5_000.0))
def test_what_a_worker_drains_is_never_taken_for_more_than_the_busiest_drains(
    drains: list[float], members: int, known: float
) -> None:
    """Learned of those that are behind only, so idle ones do not make it look small."""
    partitions = len(drains)
    members = min(members, partitions)
    owner = np.arange(partitions) % members
    drain = np.array(drains)
    lag_s = np.where(owner == 0, 100.0, 0.0)
    now = Load(SETTLE_S, (lag_s * 10).astype(np.int64), lag_s, drain, drain, owner, members)

    assert math.isclose(now.busy_rate(members, POLICY), float(drain[owner == 0].sum()), rel_tol=1e-9)


@given(st.floats(1.0, 1e6), st.floats(0.0, 1e6))
def test_more_arrivals_never_ask_for_fewer_workers(arrive: float, more: float) -> None:
    state = settled(worker_rate=1_000.0)

    _, one = decide(state, load(SETTLE_S, arrive=arrive, drain=arrive), POLICY)
    _, other = decide(state, load(SETTLE_S, arrive=arrive + more, drain=arrive + more), POLICY)

    assert one.replicas <= other.replicas


def test_a_group_that_is_behind_gets_as_many_workers_as_arrivals_and_backlog_need() -> None:
    _, decision = decide(settled(), load(SETTLE_S, lag_s=90.0, arrive=3_000.0, drain=2_000.0), POLICY)

    # 3,000/s arrive, 60 s of them wait too long and are to be gone in 300 s: 3,600/s at 0.7 of 1,000/s each.
    assert 6 == decision.replicas
    assert "3,000 records/s arrive, 600 of backlog, a worker drains 1,000" in decision.reason


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (load(SETTLE_S, lag_s=300.0, drain=0.0), "nothing is drained"),
        (load(SETTLE_S, lag_s=300.0, drain=200.0), "more of them do not help"),
        (load(SETTLE_S, lag_s=300.0, members=1), "come or gone"),
        (load(SETTLE_S, lag_s=300.0, members=0), "no members"),
        (load(SETTLE_S, lag_s=300.0, members=None), "not known"),
        (load(SETTLE_S, lag_s=300.0, drain=math.nan), "rates are not known"),
    ],
)
def test_the_number_stays_where_nothing_can_be_concluded(now: Load, words: str) -> None:
    _, decision = decide(settled(worker_rate=1_000.0), now, POLICY)

    assert 2 == decision.replicas
    assert words in decision.reason


def test_a_backlog_of_one_partition_asks_for_one_worker_only() -> None:
    now = load(SETTLE_S, arrive=1_000.0, drain=1_000.0)
    lag, lag_s = now.lag.copy(), now.lag_s.copy()
    lag[3], lag_s[3] = 10_000_000, 5_000.0

    policy = ScalePolicy(worker_rate=1_000.0)

    _, decision = decide(settled(policy, worker_rate=1_000.0), replace(now, lag=lag, lag_s=lag_s), policy)

    assert 3 == decision.replicas  # (1,000 + 1,000) at 0.7 of 1,000 each, and not the 34,000/s that the backlog is


def test_a_worker_with_more_partitions_than_it_drains_together_gets_rid_of_some() -> None:
    arrive = np.array([800.0, *[61.0] * 11])
    lag_s = np.where(np.arange(12) % 3 == 0, 60.0, 0.0)
    now = Load(
        SETTLE_S, (arrive * lag_s).astype(np.int64), lag_s, arrive, np.minimum(arrive, 750.0), np.arange(12) % 3, 3
    )
    policy = ScalePolicy(worker_rate=1_000.0)

    _, decision = decide(settled(policy, worker_rate=1_000.0, members=3), now, policy)

    assert 6 == decision.replicas  # two on a worker; by the 1,471/s of all 3 would do


def test_workers_that_bring_no_throughput_are_not_followed_by_more() -> None:
    state, first = decide(settled(), load(SETTLE_S, lag_s=60.0, arrive=3_000.0, drain=2_000.0), POLICY)
    at_s = SETTLE_S + 40.0
    state, _ = decide(state, load(at_s, lag_s=120.0, arrive=3_000.0, drain=2_000.0, members=first.replicas), POLICY)

    later = load(at_s + SETTLE_S, lag_s=200.0, arrive=3_000.0, drain=2_000.0, members=first.replicas)
    _, decision = decide(state, later, POLICY)

    assert first.replicas == decision.replicas
    assert "brought no more throughput" in decision.reason


@pytest.mark.parametrize(
    "wrong",
    [{"lag_s_max": 0.0}, {"workers_min": 0}, {"workers_min": 3, "workers_max": 2}, {"cool_down_s": -1.0}],
)
def test_a_policy_that_contradicts_itself_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"above 0|at least 1"):
        ScalePolicy(**wrong)  # type: ignore[arg-type]


def flaps(course: Course, within_s: float) -> list[tuple[float, float]]:
    """Workers taken away shortly after some were added."""
    changes = course.changes()
    return [(at, later) for (at, by), (later, then) in pairwise(changes) if by > 0 > then and later - at < within_s]


def test_bursts_are_met_and_nothing_flaps() -> None:
    course = World(BURSTS).run()

    assert [] == flaps(course, BURSTS.policy.cool_down_s)
    for begin_s in BURSTS_S:
        assert max(course.between(course.lag_s, begin_s + 480, begin_s + 900)) < BURSTS.policy.lag_s_max
    assert max(course.replicas) <= BURSTS.partitions
    assert 2 == course.replicas[-1]  # 1,200 records/s at 1,000 each


def test_more_workers_are_not_asked_for_while_the_downstream_is_dead_and_the_backlog_is_drained_after_it() -> None:
    course = World(DEAD).run()

    during = course.between(course.replicas, DEAD_S[0], DEAD_S[1])
    assert max(during) == during[0]
    assert [] == flaps(course, DEAD.policy.cool_down_s)
    assert course.lag_s[-1] < DEAD.policy.lag_s_max


def test_a_rebalance_storm_changes_nothing() -> None:
    course = World(STORM).run()

    assert 1 == len(set(course.between(course.replicas, STORM_S[0] + 30, STORM_S[1])))
    assert [] == flaps(course, STORM.policy.cool_down_s)
    assert course.lag_s[-1] < STORM.policy.lag_s_max


@pytest.mark.parametrize("scenario", [HOT, HOT_OF_SOMEBODY], ids=lambda one: one.name)
def test_a_hot_partition_does_not_drive_the_number_to_the_most(scenario: Scenario) -> None:
    course = World(scenario).run()

    assert max(course.replicas) == scenario.replicas
    assert course.replicas[-1] <= 4
    assert any("get more than one worker drains" in decision.reason for decision in course.decisions)
    assert [] == flaps(course, scenario.policy.cool_down_s)


def test_a_partition_that_one_worker_drains_is_brought_up_to_date_and_stays_so() -> None:
    course = World(WARM).run()

    assert max(course.replicas) < WARM.partitions
    assert max(course.between(course.lag_s, 3_600, WARM.lasts_s)) < WARM.policy.lag_s_max
    assert [] == flaps(course, WARM.policy.cool_down_s)


def test_a_ceiling_of_the_downstream_costs_one_increase_for_as_long_as_it_lasts() -> None:
    course = World(SLOW).run()

    during = course.between(course.replicas, SLOW_S[0] + 60, SLOW_S[1])
    assert 1 == len(set(during))
    assert max(during) <= 4  # three would be what the ceiling lets through
    assert [] == flaps(course, SLOW.policy.cool_down_s)
