"""Traffic that the autoscaler is simulated against."""

import math
from dataclasses import replace

from tests.simulation.scaling.world import Scenario

HOUR_S = 3_600.0
BURSTS_S = (1 * HOUR_S, 2 * HOUR_S, 2.5 * HOUR_S)
DEAD_S = (1 * HOUR_S, 1.5 * HOUR_S)
SLOW_S = (1 * HOUR_S, 2 * HOUR_S)
STORM_S = (1 * HOUR_S, 1 * HOUR_S + 1_200)


def _bursts(t: float) -> float:
    return 7_000.0 if any(at <= t < at + 300 for at in BURSTS_S) else 1_200.0


def _day(t: float) -> float:
    """Quiet from 22 to 5 o'clock, with a wave of some minutes on top."""
    hour = t / HOUR_S % 24
    day = 0.5 - 0.5 * math.cos(2 * math.pi * (hour - 3) / 24)
    return 100.0 + 6_000.0 * day**2 + 0.05 * 6_000.0 * day * math.sin(t / 400.0)


BURSTS = Scenario("bursts", 4 * HOUR_S, _bursts)
NIGHT = Scenario("a day and a night", 30 * HOUR_S, _day)
DEAD = Scenario(
    "a dead downstream", 4 * HOUR_S, lambda _: 2_500.0, replicas=4,
    downstream=lambda t: 0.0 if DEAD_S[0] <= t < DEAD_S[1] else 1.0,
)  # fmt: skip
SLOW = Scenario(
    "a downstream with a ceiling", 4 * HOUR_S, lambda t: 4_500.0 if SLOW_S[0] <= t < SLOW_S[1] else 1_200.0,
    ceiling=lambda _: 2_600.0,
)  # fmt: skip
STORM = Scenario(
    "a rebalance storm", 3 * HOUR_S, lambda _: 2_500.0, replicas=4, storm=lambda t: STORM_S[0] <= t < STORM_S[1]
)
HOT = Scenario("a hot partition", 3 * HOUR_S, lambda _: 2_500.0, replicas=4, weights=[30.0, *[1.0] * 11])
HOT_OF_SOMEBODY = replace(HOT, name="a hot partition, owner unknown", owners_known=False)
WARM = Scenario("a warm partition", 3 * HOUR_S, lambda _: 1_471.0, weights=[800.0, *[61.0] * 11])
"""One worker drains it together with one other."""
ALL = (BURSTS, NIGHT, DEAD, SLOW, STORM, HOT, HOT_OF_SOMEBODY, WARM)
